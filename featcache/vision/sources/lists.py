"""A list of image files as a source: CSV, TSV or JSON lines with paths and labels."""

import os
import stat
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.addresses import (
    absolute,
    is_url,
    joined,
    of_file_url,
    require_no_secret,
)
from featcache.core.errors import DataError
from featcache.core.manifest import Manifest
from featcache.core.text import plural, shown
from featcache.vision.sources.labelled import (
    UNSAID,
    Vocabulary,
    arrange,
    split_number,
)
from featcache.vision.sources.list_lines import lines_of
from featcache.vision.sources.statuses import remote_statuses

_CHUNK = 1 << 14  # paths kept as Python objects before they are packed


@dataclass(frozen=True)
class FileList:
    """Images that a text file lists.

    Paths are relative to its folder, absolute, or URLs.

    Parameters
    ----------
    path : str
        The list: a path or a URL.
    """

    path: str

    @property
    def address(self) -> str:
        """The URL, or the absolute path."""
        return absolute(self.path)

    @property
    def name(self) -> str:
        """Of the list, without its ending."""
        return Path(self.path).stem

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
            When the list cannot be read, lacks a column, names a path twice, none of
            its files is there, or its classes and splits make no sense.
        """
        gathered = _Gathered(self.path)
        for line in lines_of(self.path):
            gathered.add(*line)
        return gathered.manifest()


class _Gathered:
    """The samples of a list, packed as they come."""

    def __init__(self, path: str) -> None:
        self._where, self._root = shown(path), os.path.dirname(path)  # noqa: PTH120
        self._remote = is_url(path)
        self._split: dict[str | None, int] = {None: UNSAID}  # of the words that came
        self._names: list[bytes] = []
        self._packed: list[Any] = []
        self._lines = array("q")
        self._codes, self._splits = array("i"), array("B")
        self._sizes, self._mtimes_ns = array("q"), array("q")
        self._urls: dict[int, str] = {}  # of those that have one
        self._classes = Vocabulary()

    def add(self, number: int, path: str, label: str, split: str | None) -> None:
        here = f"{self._where}, line {number}"
        if "\0" in path:
            raise DataError(f"{here}: no path has a zero byte in it: {shown(path)}")
        self._look(path, here)
        try:
            self._names.append(os.fsencode(path.removeprefix("./")))
            self._codes.append(self._classes.number(os.fsencode(label)))
        except UnicodeEncodeError:  # JSON can say half of a letter
            raise DataError(f"{here} is no text: {path!r}, {label!r}") from None
        if split not in self._split:
            self._split[split] = split_number(split or "", here)
        self._splits.append(self._split[split])
        self._lines.append(number)
        if len(self._names) == _CHUNK:
            self._pack()

    def _look(self, path: str, here: str) -> None:
        """Note size and time of a file, or its URL, to be asked for with others."""
        local = of_file_url(path)
        size = mtime_ns = 0
        if is_url(local):
            require_no_secret(local, f"{here}: its path")
            self._urls[len(self._lines)] = local
        elif self._remote and os.path.isabs(local):  # noqa: PTH117
            raise DataError(
                f"{here}: {shown(path)} is a path of one machine, in a list at a URL; "
                "expected a URL, or a path relative to that of the list"
            )
        elif self._remote:
            self._urls[len(self._lines)] = joined(self._root, local)
        else:
            try:
                found = os.stat(os.path.join(self._root, local))  # noqa: PTH116, PTH118
            except (OSError, ValueError):  # named with the reason when it is read
                pass
            else:
                size = found.st_size if stat.S_ISREG(found.st_mode) else 0
                mtime_ns = found.st_mtime_ns
        self._sizes.append(size)
        self._mtimes_ns.append(mtime_ns)

    def manifest(self) -> Manifest:
        self._pack()
        paths = np.concatenate(self._packed)
        if not len(paths):
            raise DataError(f"{self._where} lists no image")
        self._require_once(paths, np.array(self._lines))
        classes, labels, splits = arrange(
            self._where,
            self._classes.names,
            np.array(self._codes, np.int32),
            np.array(self._splits),
            paths,
        )
        sizes, mtimes_ns = self._statuses()
        if not mtimes_ns.any():
            raise self._nothing_there(paths[0])
        order = np.lexsort((paths, labels, splits))
        return Manifest(
            root=self._root if self._remote else Path(self._root),
            classes=classes,
            paths=paths[order],
            labels=labels[order],
            splits=splits[order],
            sizes=sizes[order],
            mtimes_ns=mtimes_ns[order],
        )

    def _statuses(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return sizes and times, zeros where there is nothing."""
        sizes = np.array(self._sizes, np.int64)
        mtimes_ns = np.array(self._mtimes_ns, np.int64)
        if self._urls:
            rows = np.fromiter(self._urls, np.int64, len(self._urls))
            sizes[rows], mtimes_ns[rows] = remote_statuses([*self._urls.values()])
        return sizes, mtimes_ns

    def _nothing_there(self, path: bytes) -> DataError:
        first = self._urls.get(0) or absolute(
            os.path.join(self._root, of_file_url(os.fsdecode(path)))  # noqa: PTH118
        )
        return DataError(
            f"none of the {plural(len(self._lines), 'file')} that {self._where} lists "
            f"is there; the first was looked for at {shown(first)}: paths are relative "
            "to the folder of the list, or absolute"
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
