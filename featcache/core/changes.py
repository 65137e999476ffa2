"""Changes: what became of a folder since a cache was made of it."""

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.status import Status

Columns = Mapping[str, npt.NDArray[Any]]  # as `Manifest.columns` gives them
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Digests = npt.NDArray[np.uint8]  # (n, 32); zeros where a file could not be read


@dataclass(frozen=True, eq=False)
class Changes:
    """Rows of a cache (old) and of today's manifest (new), by what became of them.

    Each row of either side is in exactly one of these, or unchanged.

    Parameters
    ----------
    added : ndarray of int64
        New rows: their content was not here, or its file is still where it was.
    changed : ndarray of int64
        New rows: the path was here with other content.
    removed : ndarray of int64
        Old rows.
    renamed : ndarray of int64, shape (k, 2)
        Old row and new row: the content of a path that is gone.
    relabelled : ndarray of int64
        New rows: path and content as before, but of another class or split.
    unchanged : int
        How many rows are as before, whatever their time.
    """

    added: Rows
    changed: Rows
    removed: Rows
    renamed: Rows
    relabelled: Rows
    unchanged: int

    def fresh(self, digests: Digests, known: Digests) -> int:
        """Count the images whose content is not known yet.

        Parameters
        ----------
        digests : ndarray of uint8, shape (n, 32)
            Of the new rows.
        known : ndarray of uint8, shape (k, 32)
            Of everything computed before.

        Returns
        -------
        int
            What `extract` computes, if every new image can be decoded.
        """
        asked = digests[np.concatenate([self.added, self.changed])]
        asked = asked[asked.any(axis=1)]  # what cannot be read is not computed
        return int((~among(asked, known)).sum())


def among(asked: Digests, known: Digests) -> npt.NDArray[np.bool_]:
    """Tell which digests are known.

    Parameters
    ----------
    asked : ndarray of uint8, shape (n, 32)
        Of some images.
    known : ndarray of uint8, shape (k, 32)
        Of others.

    Returns
    -------
    ndarray of bool, shape (n,)
        True where one of the others has the same.
    """
    return np.isin(_keys(asked), _keys(known))


def rows_by_path(old: Columns, new: Columns) -> Rows:
    """Find each new row's path among the old ones.

    Parameters
    ----------
    old, new : mapping of str to ndarray
        With ``paths``.

    Returns
    -------
    ndarray of int64, shape (n,)
        Old row of each new one; -1 where there is none.
    """
    order = np.argsort(old["paths"])
    ordered = old["paths"][order]
    at = np.searchsorted(ordered, new["paths"])
    at[at == len(ordered)] = 0
    return np.where(ordered[at] == new["paths"], order[at], -1)


def trusted(old: Columns, new: Columns, rows: Rows, before_ns: int) -> Mask:
    """Tell which new rows are what they were by path, size and time alone.

    Parameters
    ----------
    old, new : mapping of str to ndarray
        With ``sizes`` and ``mtimes_ns``; old also with ``status``.
    rows : ndarray of int64, shape (n,)
        See `rows_by_path`.
    before_ns : int
        Files that changed at this time or later may have changed twice within a tick
        of the clock; nanoseconds.

    Returns
    -------
    ndarray of bool, shape (n,)
        False where only the bytes can tell.
    """
    same: Mask = (
        (rows >= 0)
        & (old["sizes"][rows] == new["sizes"])
        & (old["mtimes_ns"][rows] == new["mtimes_ns"])
        & (new["mtimes_ns"] < before_ns)
        # A permission leaves size and time alone.
        & (old["status"][rows] != Status.UNREADABLE)
    )
    return same


def compare(old: Columns, new: Columns, rows: Rows, digests: Digests) -> Changes:
    """Say what became of every row.

    Parameters
    ----------
    old, new : mapping of str to ndarray
        Columns of the cache, with ``digests``, and of today's manifest.
    rows : ndarray of int64, shape (n,)
        See `rows_by_path`.
    digests : ndarray of uint8, shape (n, 32)
        Of the new rows.

    Returns
    -------
    Changes
        The path decides first, then the content.
    """
    here = rows >= 0
    same = here & (old["digests"][rows] == digests).all(axis=1)
    kept = np.zeros(len(old["paths"]), np.bool_)
    kept[rows[here]] = True
    relabelled = same & _other_place(old, new, rows)
    gone, come = np.flatnonzero(~kept), np.flatnonzero(~here)
    renamed = _pairs(gone, old["digests"], come, digests)
    return Changes(
        added=np.setdiff1d(come, renamed[:, 1]),
        changed=np.flatnonzero(here & ~same),
        removed=np.setdiff1d(gone, renamed[:, 0]),
        renamed=renamed,
        relabelled=np.flatnonzero(relabelled),
        unchanged=int((same & ~relabelled).sum()),
    )


def _other_place(old: Columns, new: Columns, rows: Rows) -> Mask:
    """Tell where class or split differ; a class is its name, not its number."""
    classes = old["classes"][old["labels"][rows]] != new["classes"][new["labels"]]
    differs: Mask = classes | (old["splits"][rows] != new["splits"])
    return differs


def _pairs(gone: Rows, old: Digests, come: Rows, new: Digests) -> Rows:
    """Pair rows of equal content, each at most once, in their order."""
    waiting: dict[bytes, deque[int]] = defaultdict(deque)
    for row, key in zip(gone.tolist(), map(bytes, old[gone]), strict=True):
        waiting[key].append(row)
    waiting.pop(bytes(32), None)  # of files that could not be read nothing is known
    pairs = [
        (waiting[key].popleft(), row)
        for row, key in zip(come.tolist(), map(bytes, new[come]), strict=True)
        if waiting.get(key)
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _keys(digests: Digests) -> npt.NDArray[np.bytes_]:
    # Equal width, so the zeros that S32 drops at the end make no two digests equal.
    return np.ascontiguousarray(digests).view("S32").ravel()
