"""The lines of a list: where each image lies, its label, and perhaps its split."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from featcache.core.addresses import is_url
from featcache.core.errors import DataError
from featcache.core.text import listed, shown
from featcache.vision.listing import unreadable
from featcache.vision.sources.labelled import LABELS, field_of, said
from featcache.vision.sources.pieces import PIECE, RemoteStream
from featcache.vision.sources.remote import file_status
from featcache.vision.sources.trying import RemoteError

PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
SPLIT = "split"
TABLE_ENDINGS = {
    ".csv": ",;\t",
    ".tsv": "\t",
}  # what separates columns, as Excel writes
JSON_LINES = (".jsonl", ".ndjson")

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # how it begins
_AT_ONCE = 1 << 16  # bytes


class Line(NamedTuple):
    """What a list says of an image."""

    number: int  # of the line, from 1
    path: str
    label: str
    split: str | None


def lines_of(path: str) -> Iterator[Line]:
    """Yield what a list says, line by line.

    Parameters
    ----------
    path : str
        The list: a path or a URL.

    Yields
    ------
    Line
        For each image.

    Raises
    ------
    DataError
        When the list cannot be read, or a line says too little.
    """
    where = shown(path)
    try:
        with _opened(path) as text:
            if path.lower().endswith(JSON_LINES):
                yield from _json_lines(text, where)
            else:
                ending = os.path.splitext(path)[1].lower()  # noqa: PTH122 - or a URL
                yield from _Table(where, TABLE_ENDINGS[ending]).lines(text)
    except FileNotFoundError:
        raise DataError(f"there is no list {where}") from None
    except RemoteError as error:
        raise DataError(str(error)) from None
    except UnicodeError as error:
        raise DataError(f"{where} cannot be read: {error}; save it as UTF-8") from None
    except OSError as error:
        raise unreadable(os.fsencode(path), error) from error


def _opened(path: str) -> io.TextIOWrapper:
    """Open a list; names of files may be any bytes, spreadsheets write a mark first."""
    data = (
        io.BufferedReader(RemoteStream(path, file_status(path)[0]), PIECE)
        if is_url(path)
        else io.BufferedReader(io.FileIO(path), _AT_ONCE)
    )
    wide = data.peek(2)[:2] in _UTF_16  # as Excel and PowerShell write it
    encoding, errors = (
        ("utf-16", "strict") if wide else ("utf-8-sig", "surrogateescape")
    )
    return io.TextIOWrapper(data, encoding, errors, newline="")


def _json_lines(text: Iterator[str], where: str) -> Iterator[Line]:
    for number, line in enumerate(text, 1):
        if line.strip():
            here = f"{where}, line {number}"
            found = _json_line(line, here)
            path, label = said(found, PATHS, here), said(found, LABELS, here)
            split = found.get(SPLIT)
            yield Line(number, path, label, None if split in (None, "") else str(split))


def _json_line(line: str, here: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{here} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise DataError(
            f'{here} is no JSON object; expected {{"path": ..., "label": ...}}'
        )
    return found


class _Table:
    """A table of text.

    Parameters
    ----------
    where : str
        What it is called in errors.
    separators : str
        Those that may be between columns, the first one by default.
    """

    def __init__(self, where: str, separators: str) -> None:
        self._where, self._separators = where, separators

    def lines(self, text: Iterator[str]) -> Iterator[Line]:
        """Yield what the lines below the names of the columns say."""
        above, first = next(
            ((at, line) for at, line in enumerate(text) if line.strip()), (0, "")
        )
        rows = self._rows(chain([first], text), self._separator(first), above)
        _, header = next(rows, (0, []))
        if not header:
            return
        names = [name.strip().lower() for name in header]
        path, label, split = self._columns(names)
        for number, row in rows:
            if len(row) != len(names):
                raise DataError(
                    f"{self._where}, line {number} has {len(row)} columns; the "
                    f"first line names {len(names)}: {listed(map(shown, names))}"
                )
            here = f"{self._where}, line {number}"
            yield Line(
                number,
                _filled(row[path], names[path], here),
                _filled(row[label].strip(), names[label], here),
                row[split].strip() or None if split >= 0 else None,
            )

    def _separator(self, first: str) -> str:
        """Return what separates the names of columns: in some countries a semicolon."""
        for separator in self._separators:
            names = next(csv.reader([first], delimiter=separator), [])
            if {name.strip().lower() for name in names} & {*PATHS}:
                return separator
        return self._separators[0]

    def _rows(
        self, text: Iterator[str], separator: str, above: int
    ) -> Iterator[tuple[int, list[str]]]:
        rows = csv.reader(text, delimiter=separator, strict=True, skipinitialspace=True)
        try:
            for row in rows:
                if any(row):  # spreadsheets write lines of nothing but commas
                    yield above + rows.line_num, row
        except csv.Error as error:
            raise DataError(
                f"{self._where}, line {above + rows.line_num} cannot be read: {error}"
            ) from None

    def _columns(self, names: Sequence[str]) -> tuple[int, int, int]:
        """Return which columns hold path, label and split; -1 where none does."""
        here = f"{self._where}: its first line"
        path, label = field_of(names, PATHS, here), field_of(names, LABELS, here)
        for name in (path, label, SPLIT):
            if names.count(name) > 1:
                raise DataError(f"{here} names the column {name} twice; keep one")
        split = names.index(SPLIT) if SPLIT in names else -1
        return names.index(path), names.index(label), split


def _filled(value: str, name: str, here: str) -> str:
    if not value:
        raise DataError(f"{here}: its {name} is empty")
    return value
