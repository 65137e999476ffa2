"""Checking digests: many blocks at once, since sha256 lets go of the interpreter."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from featcache.core.blocks import Block
from featcache.core.machine import cores

_AT_ONCE = 512  # blocks queued: a Ctrl-C waits for no more than these


def unsound(
    blocks: Iterable[Block],
    sound: Callable[[Block], bool],
    advance: Callable[[int], None] = lambda _: None,
) -> list[Block]:
    """Return the blocks whose bytes do not match their digest.

    Parameters
    ----------
    blocks : iterable of Block
        Checked on one thread per core.
    sound : callable
        Tells whether a block matches.
    advance : callable
        Told how many more rows are checked, by the calling thread.

    Returns
    -------
    list of Block
        In their order.
    """
    wrong: list[Block] = []
    with ThreadPoolExecutor(cores()) as pool:
        for group in _groups(blocks):
            for block, matches in zip(group, pool.map(sound, group), strict=True):
                if not matches:
                    wrong.append(block)
                advance(block.size)
    return wrong


def _groups(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    rest = iter(blocks)
    while group := list(islice(rest, _AT_ONCE)):
        yield group
