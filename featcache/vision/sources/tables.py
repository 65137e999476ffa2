"""Tables as a source: Parquet and Arrow files with a column of images' bytes."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from featcache.core.addresses import absolute, is_url
from featcache.core.errors import DataError
from featcache.core.locations import Cell
from featcache.core.manifest import Manifest
from featcache.core.progress import SILENT
from featcache.core.text import listed, shown
from featcache.core.text import size as text_size
from featcache.vision.listing import unreadable
from featcache.vision.sources.cells import TableFile, forget_groups
from featcache.vision.sources.labelled import (
    LABELS,
    UNSAID,
    Splits,
    Vocabulary,
    arrange,
    field_of,
    one_vocabulary,
    split_number,
    split_of_name,
)
from featcache.vision.sources.patterns import (
    AT_ONCE,
    Tell,
    folder_of,
    has_pattern,
    matching_files,
    name_of,
    names_below,
)
from featcache.vision.sources.remote import file_status
from featcache.vision.sources.trying import RemoteError

TABLES = (".parquet", ".arrow", ".feather")
IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes")
_SPLIT = "split"
_LARGE = 1 << 30  # bytes of a group
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Tables:
    """Files with one row for each image: its bytes, its label and perhaps its split.

    Parameters
    ----------
    pattern : str
        Names the files: ``data/train-*.parquet``.
    called : str
        What files made of it are called; by the pattern without it.
    tell : callable
        Hears a line where the files need much memory.
    """

    pattern: str
    called: str = ""
    tell: Tell = SILENT.say

    @property
    def address(self) -> str:
        """The pattern with an absolute path."""
        return absolute(self.pattern)

    @property
    def name(self) -> str:
        """Of the one file, or the folder that all lie in."""
        if self.called:
            return self.called
        if not has_pattern(self.pattern):
            return Path(self.pattern).stem
        return name_of(folder_of(self.pattern)) or "tables"

    def scan(self) -> Manifest:
        """Return the manifest of the files' rows.

        Labels and splits alone are read. An image's path is that of its file and the
        number of its row; size and time are the file's.

        Returns
        -------
        Manifest
            In the order of the files' paths, then of their rows.

        Raises
        ------
        DataError
            When a file is missing or damaged, has no column of images or of labels, a
            label is missing, or classes and splits make no sense.
        DependencyError
            When pyarrow is not installed.
        """
        root, files = folder_of(self.pattern), matching_files(self.pattern)
        names = names_below(files, root)
        forget_groups()
        with ThreadPoolExecutor(AT_ONCE if is_url(self.pattern) else 1) as pool:
            tables = [*pool.map(_read, files, names)]
        self._warn_of_large(files, [table.largest for table in tables])
        counts = [len(table.codes) for table in tables]
        if not sum(counts):
            raise DataError(f"no image is in {shown(self.pattern)}")
        numbers = np.repeat(np.arange(len(files), dtype=np.int32), counts)
        rows = np.concatenate([np.arange(count, dtype=np.int64) for count in counts])
        paths = np.concatenate([*map(_paths, names, counts)])
        words, codes = one_vocabulary([(each.words, each.codes) for each in tables])
        found, labels, splits = arrange(
            shown(self.pattern),
            words,
            codes,
            np.concatenate([table.splits for table in tables]),
            paths,
        )
        return Manifest(
            root=root if is_url(root) else Path(root),
            classes=found,
            paths=paths,
            labels=labels,
            splits=splits,
            sizes=np.repeat([table.size for table in tables], counts),
            mtimes_ns=np.repeat([table.mtime_ns for table in tables], counts),
            index=TableIndex(
                tuple(files),
                tuple(names),
                tuple(table.column for table in tables),
                tuple(np.cumsum(table.groups) for table in tables),
                numbers,
                rows,
            ),
        )

    def _warn_of_large(self, files: Sequence[str], groups: Sequence[int]) -> None:
        """Tell of files that are hardly to be read in parts."""
        largest = max(groups)
        if largest > _LARGE:
            self.tell(
                f"warning: {shown(files[groups.index(largest)])} has a group of rows "
                f"of {text_size(largest)}, and each is read into memory as a whole; "
                "write it with a row_group_size of 1,000 or so"
            )


@dataclass(frozen=True, eq=False)
class TableIndex:
    """Where each image of the tables lies.

    Parameters
    ----------
    files : tuple of str
        The files.
    names : tuple of str
        As images' paths begin with them.
    columns : tuple of str
        Each one's column of images.
    ends : tuple of ndarray of int64
        Each one's groups, as the row behind each.
    numbers : ndarray of int32, shape (N,)
        Each image's file.
    rows : ndarray of int64, shape (N,)
        Its row there.
    """

    files: tuple[str, ...]
    names: tuple[str, ...]
    columns: tuple[str, ...]
    ends: tuple[npt.NDArray[np.int64], ...]
    numbers: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]

    def place(self, sample_index: int, path: str) -> Cell:
        """Return where an image's bytes lie.

        Parameters
        ----------
        sample_index : int
            Row of the manifest.
        path : str
            Its path, which ends with its row.

        Returns
        -------
        Cell
            Of its table.
        """
        number, row = int(self.numbers[sample_index]), int(self.rows[sample_index])
        ends = self.ends[number]
        group = int(np.searchsorted(ends, row, side="right"))
        return Cell(
            self.files[number],
            self.columns[number],
            group,
            row - int(ends[group - 1]) if group else row,
            path.rpartition("/")[2],
        )

    def take(self, rows: npt.NDArray[np.int64]) -> "TableIndex":
        """Return the index of some of the images.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Of the manifest.

        Returns
        -------
        TableIndex
            Of n images.
        """
        return replace(self, numbers=self.numbers[rows], rows=self.rows[rows])


@dataclass(frozen=True, eq=False)
class _Table:
    """What a manifest takes of one file."""

    column: str
    largest: int  # group, bytes
    groups: list[int]
    words: list[bytes]
    codes: npt.NDArray[np.int32]
    splits: Splits
    size: int
    mtime_ns: int


def _paths(name: str, count: int) -> npt.NDArray[np.bytes_]:
    start = os.fsencode(name)
    return np.array([b"%s/%08d" % (start, row) for row in range(count)], np.bytes_)


def _read(file: str, name: str) -> _Table:
    try:
        size, mtime_ns = file_status(file)
        table = TableFile(file)
        column = _image_column(table, shown(file))
        words, codes = _codes(table, shown(file), name)
        splits = _splits(table, shown(file), name)
        largest = table.largest_group(column)
        return _Table(
            column, largest, table.groups, words, codes, splits, size, mtime_ns
        )
    except RemoteError as error:
        raise DataError(str(error)) from None
    except OSError as error:
        raise unreadable(os.fsencode(file), error) from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).split("\n", 1)[0]
        raise DataError(
            f"{shown(file)} is damaged, or no table at all: {reason}"
        ) from None


def _image_column(table: TableFile, here: str) -> str:
    columns = table.byte_columns
    if len(columns) > 1:
        columns = [column for column in columns if column in IMAGES] or columns
    if len(columns) == 1:
        return columns[0]
    if columns:
        raise DataError(
            f"{here} has several columns of bytes: {listed(columns)}; call the one "
            "with the images image"
        )
    found = listed(f"{field.name} of {field.type}" for field in table.schema)
    raise DataError(f"{here} has no column of image bytes (it has: {found})")


def _codes(
    table: TableFile, here: str, path: str
) -> tuple[list[bytes], npt.NDArray[np.int32]]:
    """Return class names, and each row's as its place among them."""
    partition = _partition(path, LABELS)
    if partition is not None and not {*LABELS} & {*table.names}:
        return [partition], np.zeros(sum(table.groups), np.int32)
    name = field_of(table.names, LABELS, here)
    try:
        values, numbers = table.encoded(name)
    except NotImplementedError:  # lists and the like
        kind = table.schema.field(name).type
        raise DataError(
            f"{here}: {name} is of {kind}, no text and no whole number"
        ) from None
    said = table.class_names(name)
    classes = Vocabulary()
    known = [classes.number(_class(v, said, f"{here}: {name}")) for v in values]
    if (numbers < 0).any():
        row = int((numbers < 0).argmax())
        raise DataError(f"{here}: row {row:,} has no {name}")
    return classes.names, np.array([*known, -1], np.int32)[numbers]


def _partition(path: str, names: Sequence[str]) -> bytes | None:
    """Return what a folder such as ``label=ants`` says, as Spark writes it."""
    for part in path.split("/")[:-1]:
        name, equals, value = part.partition("=")
        if equals and name in names and value != _NO_VALUE:
            return unquote(value).encode("utf-8", "surrogateescape")
    return None


def _class(value: Any, words: Sequence[str] | None, here: str) -> bytes:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int | str | bytes):
        raise DataError(f"{here} is {value!r}, no text and no whole number")
    if isinstance(value, int) and words is not None:
        if not 0 <= value < len(words):
            raise DataError(
                f"{here} is {value}, but there are {len(words)} class names"
            )
        return words[value].encode()
    word = value if isinstance(value, bytes) else str(value).encode()
    if not word or b"\0" in word:
        raise DataError(f"{here} has an empty class name")
    return word


def _splits(table: TableFile, here: str, name: str) -> Splits:
    if _SPLIT not in table.names:
        return np.full(sum(table.groups), split_of_name(name), np.uint8)
    values, numbers = table.encoded(_SPLIT)
    known = [split_number(str(value), f"{here}: {_SPLIT}") for value in values]
    # Behind all others, where a missing one's -1 finds it.
    return np.array([*known, UNSAID], np.uint8)[numbers]
