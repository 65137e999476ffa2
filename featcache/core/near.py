"""Near duplicates: features that point the same way, by blocked matrix products.

Letters: x, y unit features (D,); V (D, r) orthonormal directions;
z = [V'x, |x - VV'x|]. By Cauchy and Schwarz x'y <= z_x'z_y, so pairs whose short
product is below a threshold need not be looked at: all pairs cost r + 1 multiplications
each instead of D, and the few that are left are computed exactly. No pair is lost.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
_DENSE = 64  # above one in so many pairs a full product costs less than gathering

Rows = npt.NDArray[np.int64]
Pairs = tuple[Rows, Rows, Floats]


@dataclass(frozen=True, eq=False)
class Nearest:
    """The most similar row of each, as far as it is near.

    Parameters
    ----------
    partner : ndarray of int64, shape (n,)
        Its number; -1 where none is near.
    cosine : ndarray of float32, shape (n,)
        Of the two; meaningless without a partner.
    """

    partner: Rows
    cosine: Floats

    @classmethod
    def none(cls, n: int) -> "Nearest":
        """Return n rows without a partner.

        Parameters
        ----------
        n : int
            How many.

        Returns
        -------
        Nearest
            To be filled by `hear`.
        """
        return cls(np.full(n, -1, np.int64), np.full(n, -np.inf, np.float32))

    def hear(self, rows: Rows, partners: Rows, cosines: Floats) -> None:
        """Take up pairs, where they are nearer than what a row has.

        Parameters
        ----------
        rows, partners : ndarray of int64, shape (m,)
            Numbers; a row may stand several times.
        cosines : ndarray of float32, shape (m,)
            Of the pairs. Of equal ones the lower partner is kept.
        """
        order = np.lexsort((-partners, cosines, rows))
        rows, partners, cosines = rows[order], partners[order], cosines[order]
        last = np.append(rows[1:] != rows[:-1], True)[: len(rows)]
        rows, partners, cosines = rows[last], partners[last], cosines[last]
        equal = (cosines == self.cosine[rows]) & (partners < self.partner[rows])
        nearer = (cosines > self.cosine[rows]) | equal
        self.partner[rows[nearer]] = partners[nearer]
        self.cosine[rows[nearer]] = cosines[nearer]


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
            i, j = i + top, j + left
            later = i < j
            exact = _cosines(features, i[later], j[later], rows, keys)
            kept = exact >= threshold
            if kept.any():
                yield i[later][kept], j[later][kept], exact[kept]
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


def _cosines(features: Features, i: Rows, j: Rows, rows: slice, keys: slice) -> Floats:
    """Return the exact cosine of each pair of a block."""
    if len(i) * _DENSE > (rows.stop - rows.start) * (keys.stop - keys.start):
        whole = np.arange(rows.start, rows.stop), np.arange(keys.start, keys.stop)
        full = _units(features, whole[0]) @ _units(features, whole[1]).T
        result: Floats = full[i - rows.start, j - keys.start]
        return result.clip(max=1)
    result = np.empty(len(i), np.float32)
    size = max(1, _CONFIRMED // features.embed_dim)
    for start in range(0, len(i), size):
        part = slice(start, start + size)
        result[part] = np.einsum(
            "ij,ij->i", _units(features, i[part]), _units(features, j[part])
        )
    return result.clip(max=1)


def _units(features: Features, rows: Rows) -> Floats:
    return unit_rows(np.asarray(features.subset(rows).X, np.float32))
