"""Cells: images' bytes out of Parquet and Arrow files, some hundred rows at a time."""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.addresses import is_url
from featcache.core.errors import UnreachableError
from featcache.core.libraries import optional
from featcache.core.locations import Cell
from featcache.core.text import shown
from featcache.vision.sources.pieces import RemoteStream
from featcache.vision.sources.remote import remote_status
from featcache.vision.sources.shared import Shared

_KEPT = 1 << 30  # bytes of groups
_FEATHER = b"ARROW1"
_BYTES = "bytes"  # of a Hugging Face image, beside its path


class TableFile:
    """A Parquet or Arrow file, of which columns are read group by group.

    Groups are Parquet's row groups and Feather's batches. An Arrow stream is one: it is
    mapped, not read. The data of a Hugging Face image are those of its ``bytes``.

    Parameters
    ----------
    file : str
        A path, or a URL of Parquet; Parquet by its ending, Arrow otherwise.

    Raises
    ------
    OSError
        When it cannot be read.
    ValueError
        When it is damaged.
    DependencyError
        When pyarrow is not installed.
    """

    def __init__(self, file: str) -> None:
        purpose = f"reading {shown(file)}"
        self._arrow = optional("pyarrow", purpose, extra="parquet")
        self._file: Any
        self._stream: Any = None
        if file.lower().endswith(".parquet"):
            parquet = optional("pyarrow.parquet", purpose, extra="parquet")
            self._file = _parquet(parquet, file)
            self.schema = self._file.schema_arrow
            meta = self._file.metadata
            self.groups = [
                meta.row_group(i).num_rows for i in range(meta.num_row_groups)
            ]
            return
        self._file = self._opened(file)
        self.schema = self._file.schema
        if hasattr(self._file, "get_batch"):
            count = self._file.num_record_batches
            self.groups = [self._file.get_batch(i).num_rows for i in range(count)]
        else:
            self._stream = self._file.read_all()
            self.groups = [self._stream.num_rows]

    def _opened(self, file: str) -> Any:  # noqa: ANN401 - of pyarrow
        source = self._arrow.memory_map(file)
        feather = source.read(len(_FEATHER)) == _FEATHER
        source.seek(0)
        ipc = self._arrow.ipc
        return ipc.open_file(source) if feather else ipc.open_stream(source)

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return list(self.schema.names)

    @property
    def byte_columns(self) -> list[str]:
        """The columns that may hold images, by name."""
        return [field.name for field in self.schema if self._holds_bytes(field.type)]

    def _holds_bytes(self, kind: Any) -> bool:  # noqa: ANN401 - a pyarrow type
        types = self._arrow.types
        if types.is_struct(kind):
            at = kind.get_field_index(_BYTES)
            return at >= 0 and self._holds_bytes(kind.field(at).type)
        tests = (types.is_binary, types.is_large_binary, types.is_binary_view)
        return any(test(kind) for test in tests)

    def largest_group(self, column: str) -> int:
        """Return how much of memory a column's largest group takes.

        Parameters
        ----------
        column : str
            Its name.

        Returns
        -------
        int
            Bytes; 0 for Arrow, which is mapped.
        """
        meta = getattr(self._file, "metadata", None)
        if meta is None or not hasattr(meta, "row_group"):
            return 0
        return max(
            (
                meta.row_group(group).column(at).total_uncompressed_size
                for group in range(meta.num_row_groups)
                for at in range(meta.num_columns)
                if meta.row_group(group).column(at).path_in_schema
                in (column, f"{column}.{_BYTES}")
            ),
            default=0,
        )

    def group(self, column: str, number: int) -> Any:  # noqa: ANN401 - a pyarrow array
        """Return the values of a column in one group.

        Parameters
        ----------
        column : str
            Its name.
        number : int
            Of the group.

        Returns
        -------
        pyarrow.ChunkedArray
            As long as ``groups`` says.
        """
        if self._stream is not None:
            found = self._stream.column(column)
        elif hasattr(self._file, "get_batch"):
            batch = self._file.get_batch(number)
            found = self._arrow.chunked_array([batch.column(column)])
        else:
            nested = self._arrow.types.is_struct(self.schema.field(column).type)
            leaf = f"{column}.{_BYTES}" if nested else column
            found = self._file.read_row_group(number, columns=[leaf]).column(column)
        if self._arrow.types.is_struct(found.type):
            at = found.type.get_field_index(_BYTES)
            found = self._arrow.chunked_array(
                [chunk.field(at) for chunk in found.chunks], found.type.field(at).type
            )
        return found

    def encoded(self, column: str) -> tuple[list[Any], npt.NDArray[np.int64]]:
        """Return the different values of a column, and each row's among them.

        Parameters
        ----------
        column : str
            Its name.

        Returns
        -------
        values : list
            Of Python's own types.
        numbers : ndarray of int64, shape (rows,)
            -1 where there is no value.
        """
        values: dict[Any, int] = {}
        numbers = [np.zeros(0, np.int64)]
        for group in range(len(self.groups)):
            for chunk in self.group(column, group).chunks:
                coded = chunk.dictionary_encode()
                known = coded.dictionary.to_pylist()
                new = [values.setdefault(value, len(values)) for value in known]
                places = coded.indices.fill_null(len(new)).to_numpy(
                    zero_copy_only=False
                )
                numbers.append(np.array([*new, -1], np.int64)[places])
        return [*values], np.concatenate(numbers)

    def class_names(self, column: str) -> list[str] | None:
        """Return what a column's numbers mean, where Hugging Face's datasets say so.

        Parameters
        ----------
        column : str
            Its name.

        Returns
        -------
        list of str or None
            Class names by number.
        """
        said = (self.schema.metadata or {}).get(b"huggingface", b"{}")
        try:
            feature = json.loads(said)["info"]["features"][column]
            names = feature["names"]
        except (ValueError, KeyError, TypeError):
            return None
        return [str(name) for name in names]


def _parquet(parquet: Any, file: str) -> Any:  # noqa: ANN401 - of pyarrow
    """Open a Parquet file, whose footer is read once for all of its groups."""

    def opened(**how: Any) -> Any:  # noqa: ANN401 - of pyarrow
        if not is_url(file):
            return parquet.ParquetFile(file, memory_map=True, **how)
        stream = RemoteStream(file, known[0])
        return parquet.ParquetFile(stream, **how)

    def look() -> tuple[int, Any]:
        known[0] = remote_status(file)[0] if is_url(file) else 0
        return known[0], opened().metadata

    known = [0]
    known[0], footer = _footers.get(_version(file), look)
    return opened(metadata=footer)


def cell_bytes(cell: Cell) -> bytes:
    """Return an image's bytes out of its table.

    Parameters
    ----------
    cell : Cell
        Where they lie.

    Returns
    -------
    bytes
        As they are in the file now.

    Raises
    ------
    OSError
        When they cannot be read, or there are none.
    UnreachableError
        When the store of the table fails.
    """
    key = (*_version(cell.file), cell.column, cell.group)
    try:
        column = _groups.get(key, lambda: _read(cell))
        value = column[cell.row] if cell.row < len(column) else None
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        if isinstance(error, UnreachableError) or getattr(error, "errno", None):
            raise
        raise OSError(str(error).split("\n", 1)[0]) from None
    data = None if value is None else value.as_py()
    if not isinstance(data, bytes):
        raise OSError("its row holds no bytes, at most a path")
    return data


def _version(file: str) -> tuple[Hashable, ...]:
    if is_url(file):  # to ask for its time would take as long as to read
        return (file,)
    status = Path(file).stat()
    return file, status.st_mtime_ns, status.st_size


def _read(cell: Cell) -> Any:  # noqa: ANN401 - a pyarrow array
    return TableFile(cell.file).group(cell.column, cell.group)


# Threads work in one group or two, which may be small or, as pandas writes them, large.
_groups = Shared(_KEPT, lambda column: int(column.nbytes))
_footers = Shared(64)


def forget_groups() -> None:
    """Forget what was read, before remote tables are looked at anew."""
    _groups.clear()
    _footers.clear()
