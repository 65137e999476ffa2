"""Near duplicates: features that point the same way, by blocked matrix products.

Letters: x, y unit features (D,); V (D, r) orthonormal directions;
z = [V'x, |x - VV'x|]. By Cauchy and Schwarz x'y <= z_x'z_y, so pairs whose short
product is below a threshold need not be looked at: all pairs cost r + 1 multiplications
each instead of D, and the few that are left are computed exactly. No pair is lost.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from featcache.core.features import Features
from featcache.core.heads import Floats, unit_rows
from featcache.core.seeds import generator

_DIRECTIONS = 64  # r; the fewer, the more pairs have to be computed exactly
_SAMPLE = 4096  # rows that the directions are chosen by
_QUERIES = 1024  # rows that are compared at once ...
_KEYS = 8192  # ... with as many: 32 MiB of products
_CONFIRMED = 1 << 22  # numbers of features that are gathered at once: 16 MiB
_SLACK = 1e-5  # rounding of a short product
_FULL = 1 << 20  # full products at once
_DENSE = 64  # above one in so many pairs a full product costs less than gathering

_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)

Rows = npt.NDArray[np.int64]
Pairs = tuple[Rows, Rows, Floats]


class Nearest:
    """The most similar row of each, as far as it is near.

    Parameters
    ----------
    n : int
        How many rows; none has a partner before `hear`.
    """

    def __init__(self, n: int) -> None:
        # Bits of the cosine over those of the partner, turned: the largest is nearest.
        self._best = np.zeros(n, np.uint64)

    @property
    def partner(self) -> Rows:
        """Number of each row's partner (n,); -1 where none is near."""
        return np.where(self._best, _LOW - (self._best & _LOW), -1).astype(np.int64)

    @property
    def cosine(self) -> Floats:
        """Of the two (n,); 0 without a partner."""
        return (self._best >> _HALF).astype(np.uint32).view(np.float32)

    def hear(self, rows: Rows, partners: Rows, cosines: Floats) -> None:
        """Take up pairs, where they are nearer than what a row has.

        Parameters
        ----------
        rows, partners : ndarray of int64, shape (m,)
            Numbers; a row may stand several times.
        cosines : ndarray of float32, shape (m,)
            Of the pairs, above zero. Of equal ones the lower partner is kept.
        """
        bits = np.asarray(cosines, np.float32).view(np.uint32).astype(np.uint64)
        words = (bits << _HALF) | (_LOW - partners.astype(np.uint64))
        np.maximum.at(self._best, rows, words)


def near_pairs(
    features: Features,
    threshold: float,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[Pairs]:
    """Find the pairs of rows whose cosine is at least a threshold.

    Memory is that of 65 numbers a row and of blocks of fixed size; time is n**2 / 2
    short products of 65 multiplications.

    Parameters
    ----------
    features : Features
        X (n, D).
    threshold : float
        Cosine in (0, 1].
    advance : callable
        Told how many more rows have been compared with all behind them.

    Yields
    ------
    (ndarray of int64, ndarray of int64, ndarray of float32)
        Some pairs i < j with their cosines; each pair once.
    """
    n = len(features)
    short = _shortened(features)
    for top in range(0, n, _QUERIES):
        rows = slice(top, min(top + _QUERIES, n))
        for left in range(top, n, _KEYS):
            keys = slice(left, min(left + _KEYS, n))
            bound = short[rows] @ short[keys].T
            near = np.flatnonzero(bound.ravel() >= threshold - _SLACK)
            i, j = np.divmod(near, bound.shape[1])
            if len(near) * _DENSE > bound.size:
                yield from full_pairs(features, rows, keys, threshold)
                continue
            later = i + top < j + left
            pairs = exact_pairs(features, i[later] + top, j[later] + left, threshold)
            if len(pairs[0]):
                yield pairs
        advance(rows.stop - rows.start)


def _shortened(features: Features) -> Floats:
    """Return z of each row (n, r + 1): a product is never below the cosine."""
    n, D = len(features), features.embed_dim
    V = _directions(features)
    short = np.empty((n, V.shape[1] + 1), np.float32)
    for rows, X in features.blocks():
        units = unit_rows(np.asarray(X, np.float32))
        along = units @ V
        short[rows, :-1] = along
        rest = units - along @ V.T if V.shape[1] < D else np.zeros_like(units)
        short[rows, -1] = np.sqrt(np.einsum("ij,ij->i", rest, rest))
    return short


def _directions(features: Features) -> Floats:
    """Return orthonormal directions (D, r) in which the features are longest.

    Three rounds of subspace iteration: any orthonormal basis is right, and one that
    holds most of the length is fast (Halko, Martinsson and Tropp 2011).
    """
    n, D = len(features), features.embed_dim
    if D <= _DIRECTIONS:
        return np.eye(D, dtype=np.float32)
    chosen = np.linspace(0, n - 1, min(n, _SAMPLE)).round().astype(np.int64)
    sample = _units(features, chosen)
    V = generator(0, "near").normal(size=(D, _DIRECTIONS)).astype(np.float32)
    for _ in range(3):
        V = np.linalg.qr(sample.T @ (sample @ V))[0]
    return V


def exact_pairs(features: Features, i: Rows, j: Rows, threshold: float) -> Pairs:
    """Return those of some pairs whose cosine is at least a threshold.

    Parameters
    ----------
    features : Features
        X (n, D).
    i, j : ndarray of int64, shape (m,)
        Rows.
    threshold : float
        Cosine.

    Returns
    -------
    (ndarray of int64, ndarray of int64, ndarray of float32)
        Pairs with their cosines.
    """
    cosines = np.empty(len(i), np.float32)
    size = max(1, _CONFIRMED // features.embed_dim)
    for start in range(0, len(i), size):
        part = slice(start, start + size)
        cosines[part] = np.einsum(
            "ij,ij->i", _units(features, i[part]), _units(features, j[part])
        )
    kept = cosines >= threshold
    return i[kept], j[kept], cosines[kept].clip(max=1)


def full_pairs(
    features: Features, rows: slice, keys: slice, threshold: float
) -> Iterator[Pairs]:
    """Find pairs by the full product, where most may be near.

    Parameters
    ----------
    features : Features
        X (n, D).
    rows, keys : slice
        What is compared with what.
    threshold : float
        Cosine.

    Yields
    ------
    (ndarray of int64, ndarray of int64, ndarray of float32)
        Some pairs i < j with their cosines, at most a million.
    """
    right = _units(features, np.arange(keys.start, keys.stop))
    size = max(1, _FULL // max(1, len(right)))
    for top in range(rows.start, rows.stop, size):
        some = np.arange(top, min(top + size, rows.stop))
        full = _units(features, some) @ right.T
        i, j = np.nonzero(full >= threshold)
        later = i + top < j + keys.start
        i, j = i[later], j[later]
        if len(i):
            yield i + top, j + keys.start, full[i, j].clip(max=1)


def _units(features: Features, rows: Rows) -> Floats:
    return unit_rows(np.asarray(features.fetch(rows), np.float32))
