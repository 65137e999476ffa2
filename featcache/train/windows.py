"""Epochs over features larger than memory: a shuffled window of them at a time.

The rows are cut into blocks and dealt out to windows; a window is read into memory and
shuffled, and its batches are drawn, while the next one is read.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

import numpy as np

from featcache.core.features import Features, Matrix, Rows
from featcache.core.metrics import Labels
from featcache.core.seeds import epoch_order, generator
from featcache.core.text import plural
from featcache.core.training_specs import SgdSpec

Visit = tuple[Matrix, Labels, Rows]
"""Features (m, D), their labels (m,), and the order in which to visit them."""

_SHARE = 0.4  # of the memory, for a window: two are there, one of them being read
_LEAST_BLOCKS, _BLOCKS_PER_CLASS = 256, 8  # of a window, so that each class is in it
_FEW_BLOCKS = 32  # of a window too small for blocks that a disk likes
_SMALL, _LARGE = 64 << 10, 1 << 20  # bytes of a block
_AT_ONCE = 8  # blocks that a thread reads: handing it one takes as long as reading it
_READERS = 8  # threads: a disk gives small blocks 2 to 3 times as fast as to one


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


class Feed(AbstractContextManager["Feed"]):
    """Whoever gives the features of an epoch, in one piece.

    Parameters
    ----------
    features : Features
        Of n samples.
    seed : int
        Of the order.
    """

    def __init__(self, features: Features, seed: int) -> None:
        self._features, self._seed = features, seed

    def __exit__(self, *_: object) -> None:
        """End what is being read."""

    def __enter__(self) -> Self:
        return self

    def epoch(self, epoch: int) -> Iterator[Visit]:
        """Return what an epoch visits.

        Parameters
        ----------
        epoch : int
            From 0.

        Yields
        ------
        (ndarray, ndarray, ndarray)
            All features, their labels, and the order of `epoch_order`.
        """
        features = self._features.of_epoch(self._seed, epoch)
        order = epoch_order(len(features), seed=self._seed, epoch=epoch)
        yield features.X, features.y, order


class _Window:
    """Memory for the rows of a window, those carried over in front of the others."""

    def __init__(self, features: Features, reserved: int, capacity: int) -> None:
        self._reserved = reserved
        rows = reserved + capacity
        self._X: Matrix = np.empty((rows, features.embed_dim), features.dtype)
        self._y: Labels = np.empty(rows, np.int32)
        self._start = self._stop = reserved
        self._reading: list[Future[None]] = []

    def fill(
        self, features: Features, starts: Rows, block: int, readers: ThreadPoolExecutor
    ) -> None:
        """Begin to read blocks; what was there is gone."""
        self._start = self._stop = self._reserved
        self._reading, some = [], []
        for start in starts.tolist():
            end = min(start + block, len(features))
            place = slice(self._stop, self._stop + end - start)
            self._stop = place.stop
            self._y[place] = features.y[start:end]
            some.append((start, self._X[place]))
            if len(some) == _AT_ONCE:
                self._reading.append(readers.submit(_read, features, some))
                some = []
        self._reading.append(readers.submit(_read, features, some))

    def rows(self) -> tuple[Matrix, Labels]:
        """Return all rows, once they are there."""
        for read in self._reading:
            read.result()
        place = slice(self._start, self._stop)
        return self._X[place], self._y[place]

    def carry(self, X: Matrix, y: Labels) -> None:
        """Put the rest of another window in front."""
        place = slice(self._start - len(y), self._start)
        self._X[place], self._y[place] = X, y
        self._start = place.start


def _read(features: Features, blocks: Sequence[tuple[int, Matrix]]) -> None:
    for start, out in blocks:
        features.read(start, out)


class WindowFeed(Feed):
    """Features of an epoch, window by window; the next one is read meanwhile.

    Only the last batch of an epoch may be smaller, as without windows: what is left of
    a window goes into the next one.

    Parameters
    ----------
    features : Features
        As planned for.
    plan : Plan
        The windows.
    spec : SgdSpec
        Seed, batch size and number of epochs.
    """

    def __init__(self, features: Features, plan: Plan, spec: SgdSpec) -> None:
        super().__init__(features, spec.seed)
        self._plan, self._spec = plan, spec
        self._two = [
            _Window(features, spec.batch_size, plan.capacity) for _ in range(2)
        ]
        self._readers = ThreadPoolExecutor(_READERS, "windows")
        self._fill(self._two[0], 0, plan.deal(spec.seed, 0)[0])

    def __exit__(self, *_: object) -> None:
        """Read no more."""
        self._readers.shutdown(cancel_futures=True)

    def _fill(self, window: _Window, epoch: int, starts: Rows) -> None:
        features = self._features.of_epoch(self._seed, epoch)
        window.fill(features, starts, self._plan.block, self._readers)

    def epoch(self, epoch: int) -> Iterator[Visit]:
        """Return what an epoch visits.

        Parameters
        ----------
        epoch : int
            From 0; each once, in order.

        Yields
        ------
        (ndarray, ndarray, ndarray)
            Features of a window, good until the next is asked for, their labels, and
            the order in which to visit them.
        """
        seed, b, last = self._spec.seed, self._spec.batch_size, self._plan.windows - 1
        dealt = self._plan.deal(seed, epoch)
        if epoch + 1 < self._spec.epochs:
            dealt.append(self._plan.deal(seed, epoch + 1)[0])
        for number in range(self._plan.windows):
            now, then = self._two
            X, y = now.rows()
            if number + 1 < len(dealt):
                self._fill(then, epoch + (number == last), dealt[number + 1])
            order = generator(seed, "window", epoch, number).permutation(len(y))
            rest = order[len(y) - len(y) % b :] if number < last else order[:0]
            yield X, y, order[: len(y) - len(rest)]
            then.carry(X[rest], y[rest])
            self._two = [then, now]
