"""Blocks: contiguous rows, the unit of work and of the journal."""

from collections.abc import Iterator
from dataclasses import dataclass

_FEWEST, _MOST = 8, 256
_BLOCKS_WANTED = 64  # so that the last blocks leave no worker idle for long
_LARGEST = 64 << 20  # bytes: each worker has a block in memory; 8 rows may be more


@dataclass(frozen=True)
class Block:
    """Rows ``start`` to ``stop`` (exclusive) of a cache."""

    index: int
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """The rows as a slice."""
        return slice(self.start, self.stop)

    @property
    def size(self) -> int:
        """How many rows."""
        return self.stop - self.start


def block_rows(n: int, row_bytes: int = 1) -> int:
    """Return how many rows one block of an n-row cache has.

    Parameters
    ----------
    n : int
        Rows of the cache.
    row_bytes : int
        Of the features of one row.

    Returns
    -------
    int
        A power of two from 8 to 256: small caches get small blocks, so that all
        workers stay busy to the end; large ones get a short journal, as far as a
        block of maps stays small beside the memory.
    """
    rows = _FEWEST
    most = min(_MOST, _LARGEST // row_bytes)
    while 2 * rows <= most and rows * _BLOCKS_WANTED < n:
        rows *= 2
    return rows


def plan_blocks(n: int, rows: int) -> Iterator[Block]:
    """Cut n rows into blocks.

    Parameters
    ----------
    n : int
        Rows in all.
    rows : int
        Rows of a block.

    Yields
    ------
    Block
        Together they cover each row once, in order; the last may be short.
    """
    for index, start in enumerate(range(0, n, rows)):
        yield Block(index, start, min(start + rows, n))
