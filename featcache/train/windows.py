"""Epochs over features larger than memory: a shuffled window of them at a time.

The rows are cut into blocks and dealt out to windows; a window is read into memory and
shuffled, and its batches are drawn, while the next one is read.
"""

from dataclasses import dataclass

import numpy as np

from featcache.core.features import Features, Rows
from featcache.core.seeds import generator
from featcache.core.shares import Holding
from featcache.core.text import plural

_SHARE = 0.4  # of the memory, for a window: two are there, one of them being read
_LEAST_BLOCKS, _BLOCKS_PER_CLASS = 256, 8  # of a window, so that each class is in it
_FEW_BLOCKS = 32  # of a window too small for blocks that a disk likes
_SMALL, _LARGE = 64 << 10, 1 << 20  # bytes of a block


@dataclass(frozen=True)
class Plan:
    """How the rows are dealt out to windows.

    Letters: n rows, W windows. Of every W successive blocks each window gets one, at
    random: wherever a class lies in the file, each window has its share of it.

    Parameters
    ----------
    n : int
        Rows in all.
    windows : int
        W.
    block : int
        Rows of a block; the last may have fewer.
    """

    n: int
    windows: int
    block: int

    @property
    def capacity(self) -> int:
        """How many rows a window has at most."""
        return -(-self.n // (self.block * self.windows)) * self.block

    def most(self, holding: Holding) -> int:
        """Return how many of the rows of a window one process holds at most.

        Parameters
        ----------
        holding : Holding
            Which of all rows it has.

        Returns
        -------
        int
            At most `capacity`, and that where it holds all.
        """
        edges = np.append(np.arange(0, self.n, self.block), self.n)
        held = np.diff(holding.before(edges))
        groups = -(-len(held) // self.windows)
        held.resize(groups * self.windows)  # with zeros
        return int(held.reshape(groups, self.windows).max(axis=1).sum())

    def note(self, features: Features) -> str:
        """Say that there were windows.

        Parameters
        ----------
        features : Features
            The features.

        Returns
        -------
        str
            A line for the user.
        """
        return (
            f"the {features.nbytes / 1e9:.1f} GB of training features exceed the "
            f"memory allowed for them: each epoch read them in {self.windows} shuffled "
            f"windows of random blocks of {plural(self.block, 'row')}"
        )

    def deal(self, seed: int, epoch: int) -> list[Rows]:
        """Return the first row of each block of each window.

        Parameters
        ----------
        seed : int
            The user's.
        epoch : int
            From 0.

        Returns
        -------
        list of ndarray of int64
            One per window; rising, so that the file is read from front to back.
        """
        starts = np.arange(0, self.n, self.block)
        groups = -(-len(starts) // self.windows)
        dealt = np.tile(np.arange(self.windows), (groups, 1))
        generator(seed, "windows", epoch).permuted(dealt, axis=1, out=dealt)
        window = dealt.ravel()[: len(starts)]
        order = np.argsort(window, kind="stable")
        counts = np.bincount(window, minlength=self.windows)
        return np.split(starts[order], np.cumsum(counts)[:-1])


def plan_windows(
    features: Features,
    *,
    classes: int,
    batch_size: int,
    memory: int,
    resident: int | None = None,
) -> Plan | None:
    """Decide whether and how features are visited in windows.

    Parameters
    ----------
    features : Features
        Of n samples.
    classes : int
        C: the more there are, the smaller are the blocks.
    batch_size : int
        b; a window has four batches at least.
    memory : int
        Bytes that may be taken.
    resident : int, optional
        Bytes from which on there are windows; more than `memory` without it.

    Returns
    -------
    Plan or None
        None where the features fit. The number of windows is a power of two: that as
        much memory as last time is free, to the byte, does not matter to the order.
    """
    if features.nbytes <= (memory if resident is None else resident):
        return None
    n, row_bytes = len(features), features.embed_dim * features.dtype.itemsize
    most = max(4 * batch_size, int(memory * _SHARE) // row_bytes - batch_size)
    windows = 1 << max(0, -(-n // most) - 1).bit_length()
    wanted = n // windows // max(_LEAST_BLOCKS, _BLOCKS_PER_CLASS * classes)
    few = n // windows // max(_FEW_BLOCKS, 2 * classes)
    small = min(_SMALL // row_bytes, few)
    block = max(1, small, min(wanted, _LARGE // row_bytes))
    plan = Plan(n, windows, block)
    return plan if windows > 1 else None
