"""Features of some samples with their labels: what a head is trained on."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from featcache.core.displays import Displayed, Told
from featcache.core.metrics import Labels

Matrix = npt.NDArray[np.floating]
Rows = npt.NDArray[np.int64]

_BLOCK_BYTES = 4 << 20  # read at once where features are looked at in order


@dataclass(frozen=True, eq=False)
class Features(Displayed):
    """Features and labels of n samples.

    Parameters
    ----------
    X : ndarray of float32 or float16, shape (n, D)
        One feature a row; memory-mapped where the rows lie together in the cache.
    y : ndarray of int32, shape (n,)
        Labels in [0, C).
    sample_index : ndarray of int64, shape (n,)
        Rows of the cache.
    """

    X: Matrix
    y: Labels
    sample_index: Rows

    def _told(self) -> Told:
        yield "samples", len(self)
        yield "embed dim", self.embed_dim
        yield "dtype", self.dtype

    def __len__(self) -> int:
        return len(self.y)

    @property
    def embed_dim(self) -> int:
        """D."""
        return int(self.X.shape[1])

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Of X."""
        return self.X.dtype

    @property
    def nbytes(self) -> int:
        """Size of X in bytes, wherever it is."""
        return len(self) * self.embed_dim * self.dtype.itemsize

    def subset(self, rows: Rows) -> "Features":
        """Return some of the samples.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Which of the n, rising.

        Returns
        -------
        Features
            Copies of the rows; of features in a file none are read yet.
        """
        return Features(self.X[rows], self.y[rows], self.sample_index[rows])

    def of_epoch(self, seed: int, epoch: int) -> "Features":
        """Return the features that an epoch of a training sees.

        Parameters
        ----------
        seed : int
            The user's.
        epoch : int
            From 0.

        Returns
        -------
        Features
            These; where samples have several views, one of each.
        """
        del seed, epoch
        return self

    def read(self, start: int, out: Matrix) -> None:
        """Copy successive rows of X.

        Parameters
        ----------
        start : int
            The first of them.
        out : ndarray, shape (m, D)
            Where to; in the dtype of X.
        """
        np.copyto(out, self.X[start : start + len(out)])

    def gather(self, rows: Rows, out: Matrix) -> None:
        """Copy rows of X.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Which of the n.
        out : ndarray, shape (m, D)
            Where to; in the dtype of X.
        """
        out[:] = self.X[rows]

    def fetch(self, rows: Rows) -> Matrix:
        """Return copies of some rows of X, past any map.

        Of a mapped file every row that is touched brings 64 KiB into memory.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Which of the n, in any order.

        Returns
        -------
        ndarray, shape (m, D)
            In the dtype of X.
        """
        out: Matrix = np.empty((len(rows), self.embed_dim), self.dtype)
        self.subset(rows).read(0, out)
        return out

    def blocks(self, most: int | None = None) -> Iterator[tuple[slice, Matrix]]:
        """Pass over X in order, in bounded memory.

        Parameters
        ----------
        most : int, optional
            Rows of a block; about 4 MiB without it, and never more.

        Yields
        ------
        (slice, ndarray)
            The rows, and their part of X, good until the next is asked for.
        """
        for rows in self._slices(most):
            yield rows, self.X[rows]

    def _slices(self, most: int | None) -> Iterator[slice]:
        row_bytes = self.embed_dim * self.dtype.itemsize
        size = max(1, min(most or len(self), _BLOCK_BYTES // row_bytes))
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


class RowSource(Protocol):
    """Rows of features that lie in files: the first view of each."""

    @property
    def views(self) -> int:
        """V, how many views each row has room for."""

    def flat(self) -> "RowSource":
        """Return all views as rows: that of row i and view v is i * V + v."""

    @property
    def embed_dim(self) -> int:
        """D."""

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Of the features."""

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

    def read(self, rows: Rows, out: Matrix) -> None:
        """Copy rows without mapping them: no more memory is taken than `out` has.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            In any order; those that lie together are read at once.
        out : ndarray, shape (m, D)
            Where to; in the stored dtype, rows contiguous.
        """


class StoredFeatures(Features):
    """Features in files; X is not there before somebody asks for it.

    Parameters
    ----------
    source : RowSource
        The files.
    y : ndarray of int32, shape (n,)
        Labels in [0, C).
    sample_index : ndarray of int64, shape (n,)
        Rows of the source.
    """

    def __init__(self, source: RowSource, y: Labels, sample_index: Rows) -> None:
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "sample_index", sample_index)
        object.__setattr__(self, "_source", source)

    _source: RowSource

    @cached_property
    def X(self) -> Matrix:  # only read when it is used
        """The features (n, D): mapped where they lie together, else a copy."""
        return self._source.take(self.sample_index)

    @property
    def embed_dim(self) -> int:
        """D."""
        return self._source.embed_dim

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Of X."""
        return self._source.dtype

    def subset(self, rows: Rows) -> Features:
        """Return some of the samples.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Which of the n, rising.

        Returns
        -------
        Features
            None of them is read yet.
        """
        return StoredFeatures(self._source, self.y[rows], self.sample_index[rows])

    def read(self, start: int, out: Matrix) -> None:
        """Copy successive rows of X, past any map.

        Parameters
        ----------
        start : int
            The first of them.
        out : ndarray, shape (m, D)
            Where to; in the dtype of X.
        """
        self._source.read(self.sample_index[start : start + len(out)], out)

    def gather(self, rows: Rows, out: Matrix) -> None:
        """Copy rows of X, past any map.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Which of the n; those that lie together are read at once.
        out : ndarray, shape (m, D)
            Where to; in the dtype of X.
        """
        self._source.read(self.sample_index[rows], out)

    def blocks(self, most: int | None = None) -> Iterator[tuple[slice, Matrix]]:
        """Pass over X in order, in bounded memory.

        Parameters
        ----------
        most : int, optional
            Rows of a block; about 4 MiB without it, and never more.

        Yields
        ------
        (slice, ndarray)
            The rows, and their part of X, good until the next is asked for.
        """
        buffer: Matrix | None = None
        for rows in self._slices(most):
            if buffer is None:  # the first block is the largest
                buffer = np.empty((rows.stop, self.embed_dim), self.dtype)
            block = buffer[: rows.stop - rows.start]
            self.read(rows.start, block)
            yield rows, block
