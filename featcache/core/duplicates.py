"""Exact duplicates: pictures that stand in a data set more than once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.manifest import TRAIN
from featcache.core.status import Status
from featcache.core.text import plural

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Duplicates:
    """The m rows of g pictures that stand more than once, picture by picture.

    Parameters
    ----------
    rows : ndarray of int64, shape (m,)
        Rows of the cache; those of one picture follow each other, ascending.
    starts : ndarray of int64, shape (g,)
        Where each picture's rows begin in ``rows``.
    """

    rows: Rows
    starts: Rows

    @property
    def pictures(self) -> int:
        """How many pictures stand more than once."""
        return len(self.starts)

    @property
    def copies(self) -> int:
        """How many rows would be left out to have each picture once."""
        return len(self.rows) - len(self.starts)

    def mixed(self, values: npt.NDArray[Any]) -> int:
        """Count the pictures whose rows differ in something.

        Parameters
        ----------
        values : ndarray, shape (N,)
            Splits or labels of the cache.

        Returns
        -------
        int
            At most `pictures`.
        """
        if not self.pictures:
            return 0
        theirs = values[self.rows]
        low = np.minimum.reduceat(theirs, self.starts)
        return int((low != np.maximum.reduceat(theirs, self.starts)).sum())

    def leaks(self, splits: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
        """Return the pictures that stand in train and again in val or test.

        Parameters
        ----------
        splits : ndarray of uint8, shape (N,)
            Splits of the cache.

        Returns
        -------
        list of (int, int)
            For each such picture its first row in train and its first row in another
            split, in the order of the former.
        """
        if not self.pictures:
            return []
        trained = splits[self.rows] == TRAIN
        beyond = np.int64(len(splits))  # a row that is none
        inside, outside = (
            np.minimum.reduceat(np.where(chosen, self.rows, beyond), self.starts)
            for chosen in (trained, ~trained)
        )
        both = (inside < beyond) & (outside < beyond)
        return sorted(zip(inside[both].tolist(), outside[both].tolist(), strict=True))

    def describe(
        self, splits: npt.NDArray[np.uint8], labels: npt.NDArray[np.int32]
    ) -> str:
        """Return one line: how many, and how many of them do harm.

        Parameters
        ----------
        splits, labels : ndarray, shape (N,)
            Of the cache.

        Returns
        -------
        str
            For example ``'3 exact duplicates of 2 pictures; pictures in several
            splits: 1, in several classes: 0'``.
        """
        return (
            f"{plural(self.copies, 'exact duplicate')} of "
            f"{plural(self.pictures, 'picture')}; pictures in several splits: "
            f"{self.mixed(splits):,}, in several classes: {self.mixed(labels):,}"
        )


def find_duplicates(
    digests: npt.NDArray[np.uint8], status: npt.NDArray[np.uint8]
) -> Duplicates:
    """Find the pictures that stand more than once.

    Parameters
    ----------
    digests : ndarray of uint8, shape (N, 32)
        sha256 of each image file.
    status : ndarray of uint8, shape (N,)
        Rows that are not OK have no feature and are left out.

    Returns
    -------
    Duplicates
        Exact: all 32 bytes are compared.
    """
    # Sorting N numbers is ten times as fast as sorting N digests, and leaves few rows.
    rows = np.flatnonzero(status == Status.OK)
    for word in range(4):
        keys = np.ascontiguousarray(digests[rows, 8 * word : 8 * word + 8])
        rows = _repeated(rows, keys.view(np.uint64).ravel())
    return _grouped(rows, digests)


def _repeated(rows: Rows, keys: npt.NDArray[np.uint64]) -> Rows:
    """Return the rows, ascending, whose key is also another row's."""
    order = np.argsort(keys)
    same = keys[order][1:] == keys[order][:-1]
    shared = np.zeros(len(rows), np.bool_)
    shared[order[1:][same]] = True
    shared[order[:-1][same]] = True
    return rows[shared]


def _grouped(rows: Rows, digests: npt.NDArray[np.uint8]) -> Duplicates:
    words = np.ascontiguousarray(digests[rows]).view(np.uint64)  # (m, 4)
    order = np.lexsort(words.T)  # stable: rows of one picture stay ascending
    words = words[order]
    fresh = np.ones(len(rows), np.bool_)
    fresh[1:] = (words[1:] != words[:-1]).any(axis=1)
    starts = np.flatnonzero(fresh)
    lengths = np.diff(np.append(starts, len(rows)))
    # A row may share each word with another row, yet its digest with none.
    kept = lengths > 1
    return Duplicates(
        rows[order][np.repeat(kept, lengths)],
        (np.cumsum(lengths[kept]) - lengths[kept]).astype(np.int64),
    )
