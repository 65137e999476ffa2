"""Blocks: contiguous rows, the unit of work and of the journal."""

from collections.abc import Iterator
from dataclasses import dataclass

_FEWEST, _MOST = 8, 256
_BLOCKS_WANTED = 64  # so that the last blocks leave no worker idle for long


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


def block_rows(n: int) -> int:
    """Return how many rows one block of an n-row cache has.

    Parameters
    ----------
    n : int
        Rows of the cache.

    Returns
    -------
    int
        A power of two from 8 to 256: small caches get small blocks, so that all
        workers stay busy to the end; large ones get a short journal.
    """
    rows = _FEWEST
    while rows < _MOST and rows * _BLOCKS_WANTED < n:
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
