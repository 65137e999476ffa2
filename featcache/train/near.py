"""Near duplicates among very many features: codes of one byte a direction first.

Letters: x, y unit features (D,), t the threshold, R = sqrt(2 - 2 t), so that x and y
are near if |x - y| <= R; V (D, r) orthonormal directions; z = [V'x, |x - VV'x|] less a
constant, a map that lengthens no distance; s a, a of whole numbers, is z but for an
error of length e. So near rows have s |a - b| <= R + e_a + e_b, which is said of a'b
with the squares of a and b, in whole numbers. Codes of 63 directions pass over nearly
all pairs, those of 255 over nearly all others, and what is left is computed exactly.
No pair is lost. Distances do not know where zero is, so the direction that all features
share, which are never negative, is none of the r.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from featcache.core.features import Features
from featcache.core.heads import Floats, unit_rows
from featcache.core.machine import cores
from featcache.core.near import Pairs, exact_pairs, full_pairs
from featcache.train.near_code import LANES, LONG, WIDTHS
from featcache.train.near_kernel import Comparison, Table
from featcache.train.passes import threads_for

WORTH_COMPILING = 4096  # rows: numpy compares fewer in the time that codes take
_SAMPLE = 8192  # rows that the directions are chosen by
_QUERIES, _KEYS = 2048, 8192  # rows of a tile: 2 MiB of bits, 2 MiB of long codes
_ROOM = _QUERIES * _KEYS // 64  # pairs; of more, a full product costs less
_LARGEST = 127  # of a code
_NARROW = 0.01  # z below it has coarse codes: squares of finer ones have no room
_SLACK = 1e-4  # rounding of lengths; of cosines a tenth of that

Tile = tuple[slice, slice]


def compiled_pairs(
    features: Features,
    threshold: float,
    compare: Comparison,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[Pairs]:
    """Find the pairs of rows whose cosine is at least a threshold, by codes.

    As `featcache.core.near.near_pairs`, in a fraction of its time: n**2 / 2 products of
    64 bytes, on all cores. Memory is 336 bytes a row and blocks of fixed size.

    Parameters
    ----------
    features : Features
        X (n, D).
    threshold : float
        Cosine in (0, 1].
    compare : Comparison
        Of `featcache.train.near_kernel.comparison_here`.
    advance : callable
        Told how many more rows' share of the work is done.

    Yields
    ------
    (ndarray of int64, ndarray of int64, ndarray of float32)
        Some pairs i < j with their cosines; each pair once.
    """
    n = len(features)
    with threads_for(2 * n * features.embed_dim * LONG):
        table = encoded(features, threshold)
    tiles = list(_tiles(len(table)))
    shares = iter(_shares(n, tiles))

    def look(tile: Tile) -> tuple[Tile, Pairs | None]:
        found = compare(table, *tile, _ROOM)
        if found is None:
            return tile, None
        i, j = found.T.astype(np.int64)
        return tile, exact_pairs(features, i, j, threshold)

    for (rows, keys), pairs in _in_turn(look, tiles):
        if pairs is None:
            inside = slice(rows.start, min(rows.stop, n))
            yield from full_pairs(
                features, inside, slice(keys.start, min(keys.stop, n)), threshold
            )
        elif len(pairs[0]):
            yield pairs
        advance(next(shares))


def _tiles(padded: int) -> Iterator[Tile]:
    for top in range(0, padded, _QUERIES):
        for left in range(top, padded, _KEYS):
            yield (
                slice(top, min(top + _QUERIES, padded)),
                slice(left, min(left + _KEYS, padded)),
            )


def _shares(n: int, tiles: list[Tile]) -> list[int]:
    """Return how many of n rows each tile stands for, by its pairs."""
    pairs = [(r.stop - r.start) * (k.stop - k.start) for r, k in tiles]
    done = np.cumsum(pairs, dtype=np.float64)
    counts: list[int] = np.diff(np.rint(n * done / done[-1]), prepend=0).astype(int)
    return list(counts)


def _in_turn(
    look: Callable[[Tile], tuple[Tile, Pairs | None]], tiles: list[Tile]
) -> Iterator[tuple[Tile, Pairs | None]]:
    """Look at all tiles, one on each core; a few results wait at most."""
    todo = iter(tiles)
    with ThreadPoolExecutor(cores()) as pool:
        waiting: deque[Future[tuple[Tile, Pairs | None]]] = deque()
        try:
            waiting.extend(
                pool.submit(look, tile) for tile in islice(todo, 4 * cores())
            )
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(look, tile) for tile in islice(todo, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, eq=False)
class _Map:
    """What makes z of features, for short and for long codes."""

    middle: Floats  # (D,)
    V: Floats  # (D, r), the directions in which features vary most first
    lengths: tuple[float, ...]  # of what directions leave, usually

    @classmethod
    def of(cls, features: Features) -> "_Map":
        n = len(features)
        chosen = np.linspace(0, n - 1, min(n, _SAMPLE)).round().astype(np.int64)
        sample = unit_rows(np.asarray(features.fetch(chosen), np.float32))
        middle = sample.mean(axis=0)
        centred = sample - middle
        _, axes = np.linalg.eigh(centred.T @ centred)
        V = np.ascontiguousarray(axes[:, ::-1][:, : LONG - 1])
        blank = cls(middle, V, (0.0, 0.0))
        return cls(middle, V, tuple(float(z[:, -1].mean()) for z in blank(sample)))

    def __call__(self, units: Floats) -> list[Floats]:
        """Return z of unit features (m, D): (m, 64) and (m, 256)."""
        D, r = self.V.shape
        centred: Floats = units - self.middle
        along: Floats = centred @ self.V
        # Where V spans everything, nothing is left but rounding.
        rest: Floats = centred - along @ self.V.T if r < D else centred[:, :0]
        made = []
        for width, usual in zip(WIDTHS, self.lengths, strict=True):
            first = min(width - 1, r)
            z = np.zeros((len(units), width), np.float32)
            z[:, :first] = along[:, :first]
            left = _squares(rest) + _squares(along[:, first:])
            z[:, -1] = np.sqrt(left) - usual
            made.append(z)
        return made

    def blocks(self, features: Features) -> Iterator[tuple[slice, list[Floats]]]:
        """Yield rows, from multiples of 16 on, with their z."""
        most = (4 << 20) // (features.embed_dim * features.dtype.itemsize)
        for rows, X in features.blocks(max(LANES, most // LANES * LANES)):
            yield rows, self(unit_rows(np.asarray(X, np.float32)))


def encoded(features: Features, threshold: float) -> Table:
    """Return codes of all rows.

    Parameters
    ----------
    features : Features
        X (n, D).
    threshold : float
        Cosine in (0, 1].

    Returns
    -------
    Table
        With limits that all pairs above the threshold pass.
    """
    n, mapped = len(features), _Map.of(features)
    largest = max(
        float(np.abs(z).max()) for _, both in mapped.blocks(features) for z in both
    )
    scale = max(largest, _NARROW) / _LARGEST
    table = Table(n)
    squares, errors = np.empty((2, 2, n), np.float32)
    for rows, both in mapped.blocks(features):
        whole = [np.rint(z / scale) for z in both]
        table.put(rows.start, [codes.astype(np.int8) for codes in whole])
        for k in range(2):
            squares[k, rows] = _squares(whole[k])
            errors[k, rows] = np.sqrt(_squares(both[k] - scale * whole[k]))
    radius = np.sqrt(2 - 2 * threshold + 0.1 * _SLACK) + _SLACK
    # |a - b|**2 <= T means a'b - |b|**2 / 2 >= (|a|**2 - T) / 2. Two less, since
    # halves of whole numbers are rounded down and the limit itself does not pass.
    T = ((radius + errors + errors.max(axis=1, keepdims=True)) / scale) ** 2
    table.limit(np.floor((squares - T) / 2 - 2).astype(np.int32))
    return table


def _squares(rows: Floats) -> Floats:
    result: Floats = np.einsum("ij,ij->i", rows, rows)
    return result
