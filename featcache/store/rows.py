"""Rows of features in files, read past the map: in as much memory as one gives."""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.core.errors import StorageError
from featcache.core.features import Matrix, Rows, RowSource
from featcache.core.text import shown

_SHORT = 16  # rows that lie together: fewer are not worth a read of their own


class FileRows:
    """The first view of each row of one cache file.

    Stays good when the cache is closed or its file is replaced, as a mapped array does.

    Parameters
    ----------
    path : Path
        For messages.
    descriptor : int
        Of the open file; a copy is kept.
    offset : int
        Where the features begin, in bytes.
    mapped : ndarray, shape (N, D) or (N, V, D)
        The same features, mapped.
    """

    def __init__(
        self, path: Path, descriptor: int, offset: int, mapped: Matrix
    ) -> None:
        self._path, self._offset, self._mapped = path, offset, mapped
        self._file = os.dup(descriptor)
        weakref.finalize(self, os.close, self._file)

    @property
    def views(self) -> int:
        """V, how many views each row has room for."""
        return 1 if self._mapped.ndim == 2 else int(self._mapped.shape[1])

    def flat(self) -> "FileRows":
        """Return all views as rows: that of row i and view v is i * V + v.

        Returns
        -------
        FileRows
            Of the same file.
        """
        mapped = self._mapped.reshape(-1, self.embed_dim)
        return FileRows(self._path, self._file, self._offset, mapped)

    @property
    def embed_dim(self) -> int:
        """D."""
        return int(self._mapped.shape[-1])

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Of the features."""
        return self._mapped.dtype

    def take(self, rows: Rows) -> Matrix:
        """Return rows.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            In any order.

        Returns
        -------
        ndarray, shape (m, D)
            Mapped where they lie together, else a copy.
        """
        first = self._mapped if self._mapped.ndim == 2 else self._mapped[:, 0]
        together = len(rows) and bool((np.diff(rows) == 1).all())
        return first[rows[0] : rows[-1] + 1] if together else first[rows]

    def read(self, rows: Rows, out: Matrix) -> None:
        """Copy rows without mapping them, in little more memory than `out` has.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            In any order; those that lie together are read at once.
        out : ndarray, shape (m, D)
            Where to; in the stored dtype, rows contiguous.

        Raises
        ------
        StorageError
            When the disk does not give them.
        """
        if not len(rows) or not hasattr(os, "preadv"):  # not on Windows
            out[:] = self.take(rows)
            return
        row_bytes = self.embed_dim * self.dtype.itemsize
        stride = self._mapped[:1].nbytes
        # With several views the first ones of two rows do not lie together.
        apart = np.diff(rows) != 1 if stride == row_bytes else np.ones(len(rows) - 1)
        ends = [*(np.flatnonzero(apart) + 1).tolist(), len(rows)]
        low, span = int(rows.min()), int(np.ptp(rows)) + 1
        scattered = len(ends) > max(1, len(rows) / _SHORT)
        if stride == row_bytes and scattered and span <= 2 * len(rows):
            # Here and there a row is left out: one read of all, which then holds them.
            whole: Matrix = np.empty((span, self.embed_dim), self.dtype)
            self._fill(whole, self._offset + low * stride)
            np.take(whole, rows - low, axis=0, out=out)
            return
        start = 0
        for end in ends:
            self._fill(out[start:end], self._offset + int(rows[start]) * stride)
            start = end

    def _fill(self, out: Matrix, position: int) -> None:
        rest = out.data.cast("B")
        try:
            while rest:
                count = os.preadv(self._file, [rest], position)
                if not count:
                    raise StorageError(f"{shown(self._path)} ends too early")
                rest, position = rest[count:], position + count
        except OSError as error:
            raise StorageError(f"cannot read {shown(self._path)}: {error}") from error


class PartedRows:
    """Rows of several files in one order.

    Parameters
    ----------
    parts : sequence of RowSource
        The files.
    part : ndarray of integers, shape (N,)
        Which of them each row is in.
    row : ndarray of int64, shape (N,)
        Which row it is there.
    """

    def __init__(
        self, parts: Sequence[RowSource], part: npt.NDArray[np.integer], row: Rows
    ) -> None:
        self._parts, self._part, self._row = tuple(parts), part, row

    @property
    def views(self) -> int:
        """V, how many views each row has room for."""
        return self._parts[0].views

    def flat(self) -> "PartedRows":
        """Return all views as rows: that of row i and view v is i * V + v.

        Returns
        -------
        PartedRows
            Of the same files.
        """
        views = self.views
        row = (self._row[:, None] * views + np.arange(views)).ravel()
        parts = [part.flat() for part in self._parts]
        return PartedRows(parts, np.repeat(self._part, views), row)

    @property
    def embed_dim(self) -> int:
        """D."""
        return self._parts[0].embed_dim

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Of the features."""
        return self._parts[0].dtype

    def take(self, rows: Rows) -> Matrix:
        """Return rows.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            In any order.

        Returns
        -------
        ndarray, shape (m, D)
            A copy.
        """
        out: Matrix = np.empty((len(rows), self.embed_dim), self.dtype)
        part, row = self._part[rows], self._row[rows]
        for number in np.unique(part).tolist():
            at = np.flatnonzero(part == number)
            out[at] = self._parts[number].take(row[at])
        return out

    def read(self, rows: Rows, out: Matrix) -> None:
        """Copy rows without mapping them: a second `out` is all the memory it takes.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            In any order; those that lie together are read at once.
        out : ndarray, shape (m, D)
            Where to; in the stored dtype, rows contiguous.

        Raises
        ------
        StorageError
            When the disk does not give them.
        """
        part, row = self._part[rows], self._row[rows]
        for number in np.unique(part).tolist():
            at = np.flatnonzero(part == number)
            own = np.empty((len(at), self.embed_dim), self.dtype)
            self._parts[number].read(row[at], own)
            out[at] = own
