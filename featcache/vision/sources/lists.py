"""A list of image files as a source: CSV, TSV or JSON lines with paths and labels."""

import csv
import json
import os
from array import array
from collections.abc import Iterator, KeysView, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featcache.core.errors import DataError
from featcache.core.manifest import Manifest
from featcache.core.text import listed, shown
from featcache.vision.listing import unreadable
from featcache.vision.sources.labelled import (
    LABELS,
    UNSAID,
    Vocabulary,
    arrange,
    field_of,
    split_number,
    text_of,
)

PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
SPLIT = "split"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")

_CHUNK = 1 << 14  # paths kept as Python objects before they are packed

Line = tuple[int, Mapping[str, Any]]  # its number, and its values by column


@dataclass(frozen=True)
class FileList:
    """Images that a text file lists; paths are relative to its folder, or absolute.

    Parameters
    ----------
    path : Path
        The list.
    """

    path: Path

    @property
    def address(self) -> str:
        """The absolute path."""
        return str(self.path.absolute())

    @property
    def name(self) -> str:
        """Of the list, without its ending."""
        return self.path.stem

    def scan(self) -> Manifest:
        """Return the manifest of what is listed.

        Returns
        -------
        Manifest
            Ordered by split, class and path bytes, whatever the order of the list. A
            file that is not there is among them: reading it says why.

        Raises
        ------
        DataError
            When the list cannot be read, lacks a column, names a path twice, or its
            classes and splits make no sense.
        """
        gathered = _Gathered(self.path)
        for number, line in _lines(self.path):
            gathered.add(number, line)
        return gathered.manifest()


class _Gathered:
    """The samples of a list, packed as they come."""

    def __init__(self, path: Path) -> None:
        self._where, self._root = shown(path), path.parent
        self._folder = os.fspath(path.parent)
        self._keys: KeysView[str] = {}.keys()  # of the last line, whose columns are
        self._fields = ("", "")
        self._split = {"": UNSAID}  # numbers of the words that came
        self._names: list[bytes] = []
        self._packed: list[Any] = []
        self._lines = array("q")
        self._codes, self._splits = array("i"), array("B")
        self._sizes, self._mtimes_ns = array("q"), array("q")
        self._classes = Vocabulary()

    def add(self, number: int, line: Mapping[str, Any]) -> None:
        here = f"{self._where}, line {number}"
        if line.keys() != self._keys:
            self._keys = dict.fromkeys(line).keys()
            self._fields = field_of(line, PATHS, here), field_of(line, LABELS, here)
        path, label = (text_of(line, name, here) for name in self._fields)
        split = "" if line.get(SPLIT) is None else str(line[SPLIT])
        if "\0" in path:
            raise DataError(f"{here}: no path has a zero byte in it: {shown(path)}")
        try:
            # A Path of each would take longer than to look at it.
            status = os.stat(os.path.join(self._folder, path))  # noqa: PTH116, PTH118
            self._sizes.append(status.st_size)
            self._mtimes_ns.append(status.st_mtime_ns)
        except OSError:  # named with the reason when it is to be read
            self._sizes.append(0)
            self._mtimes_ns.append(0)
        self._names.append(os.fsencode(path.removeprefix("./")))
        self._codes.append(self._classes.number(os.fsencode(label)))
        if split not in self._split:
            self._split[split] = split_number(split, here)
        self._splits.append(self._split[split])
        self._lines.append(number)
        if len(self._names) == _CHUNK:
            self._pack()

    def manifest(self) -> Manifest:
        self._pack()
        paths = np.concatenate(self._packed)
        if not len(paths):
            raise DataError(f"{self._where} lists no image")
        lines = np.array(self._lines)
        self._require_once(paths, lines)
        classes, labels, splits = arrange(
            self._where,
            self._classes.names,
            np.array(self._codes, np.int32),
            np.array(self._splits),
            paths,
        )
        order = np.lexsort((paths, labels, splits))
        return Manifest(
            root=self._root,
            classes=classes,
            paths=paths[order],
            labels=labels[order],
            splits=splits[order],
            sizes=np.array(self._sizes, np.int64)[order],
            mtimes_ns=np.array(self._mtimes_ns, np.int64)[order],
        )

    def _pack(self) -> None:
        self._packed.append(np.array(self._names, np.bytes_))
        self._names.clear()

    def _require_once(self, paths: Any, lines: Any) -> None:  # noqa: ANN401 - arrays
        order = np.argsort(paths, kind="stable")
        again = np.flatnonzero(paths[order[1:]] == paths[order[:-1]])
        if len(again):
            first, second = order[again[0]], order[again[0] + 1]
            raise DataError(
                f"{self._where} lists {shown(paths[first])} twice, in lines "
                f"{lines[first]} and {lines[second]}; keep one of them"
            )


def _lines(path: Path) -> Iterator[Line]:
    """Yield what a list says, line by line."""
    try:
        # Names of files may be any bytes; spreadsheets write a mark at the beginning.
        with path.open(
            encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as file:
            if path.suffix.lower() in JSON_LINES:
                yield from _json_lines(file, shown(path))
            else:
                yield from _table(file, path)
    except FileNotFoundError:
        raise DataError(f"there is no list {shown(path)}") from None
    except OSError as error:
        raise unreadable(os.fsencode(path), error) from error


def _json_lines(file: Any, where: str) -> Iterator[Line]:  # noqa: ANN401 - text lines
    for number, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise DataError(f"{where}, line {number} is not JSON: {error}") from None
        if not isinstance(line, dict):
            raise DataError(
                f"{where}, line {number} is no JSON object; expected "
                '{"path": ..., "label": ...}'
            )
        yield number, line


def _table(file: Any, path: Path) -> Iterator[Line]:  # noqa: ANN401 - text lines
    rows = csv.reader(file, delimiter=DELIMITERS[path.suffix.lower()], strict=True)
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        for row in rows:
            if len(row) != len(header) and row:
                raise DataError(
                    f"{shown(path)}, line {rows.line_num} has {len(row)} columns; the "
                    f"first line names {len(header)}: {listed(map(shown, header))}"
                )
            if row:
                yield rows.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{shown(path)}, line {rows.line_num} cannot be read: {error}"
        ) from None
