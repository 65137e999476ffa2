"""Feeding epochs: all features at once, or a window of them while the next is read."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

from featcache.core.features import Features, Matrix, Rows
from featcache.core.metrics import Labels
from featcache.core.seeds import epoch_order, generator
from featcache.core.shares import EVERYTHING, Holding
from featcache.core.training_specs import SgdSpec
from featcache.train.windows import Plan

Visit = tuple[Matrix, Labels, Rows]
"""Features (m, D), their labels (m,), and the order in which to visit them.

Of several processes, the order has -1 in the places of samples that another one has."""

_AT_ONCE = 8  # blocks that a thread reads: of several files a block has few rows each
_READERS = 8  # threads: a disk gives small blocks 2 to 3 times as fast as to one


class Feed(AbstractContextManager["Feed"]):
    """Whoever gives the features of an epoch, in one piece.

    Parameters
    ----------
    features : Features
        Of n samples.
    seed : int
        Of the order.
    holding : Holding
        Which of the n this process has; the order names the others -1.
    """

    def __init__(
        self, features: Features, seed: int, holding: Holding = EVERYTHING
    ) -> None:
        self._features, self._seed, self._holding = features, seed, holding
        self._held = holding.of(features)

    def __exit__(self, *_: object) -> None:
        """End what is being read."""

    def __enter__(self) -> Self:
        return self

    def _of_epoch(self, epoch: int) -> Features:
        """Return what this process has of the features that an epoch sees."""
        features = self._features.of_epoch(self._seed, epoch)
        # Of the same ones, what is held was read before.
        same = features is self._features
        return self._held if same else self._holding.of(features)

    def epoch(self, epoch: int) -> Iterator[Visit]:
        """Return what an epoch visits.

        Parameters
        ----------
        epoch : int
            From 0.

        Yields
        ------
        (ndarray, ndarray, ndarray)
            All features that are held, their labels, and the order of `epoch_order`.
        """
        held = self._of_epoch(epoch)
        order = epoch_order(len(self._features), seed=self._seed, epoch=epoch)
        yield held.X, held.y, self._holding.places(order)


class _Window:
    """Memory for what is held of a window's rows, those carried over in front.

    Letters: m rows of the window, wherever they are held; k of them are held here.
    """

    def __init__(
        self, features: Features, reserved: int, plan: Plan, most: int
    ) -> None:
        self._reserved = reserved
        rows = reserved + most
        self._X: Matrix = np.empty((rows, features.embed_dim), features.dtype)
        self._y: Labels = np.empty(rows, np.int32)
        # Where each of the m rows lies among the k; -1: another process has it.
        self._at: Rows = np.empty(reserved + plan.capacity, np.int64)
        self._start = self._stop = reserved
        self._first = self._last = reserved
        self._reading: list[Future[None]] = []

    def fill(
        self,
        features: Features,
        starts: Rows,
        stops: Rows,
        holding: Holding,
        readers: ThreadPoolExecutor,
    ) -> None:
        """Begin to read blocks; what was there is gone."""
        self._start = self._first = self._reserved
        sizes = stops - starts
        ends = np.cumsum(sizes)
        rows = np.arange(sizes.sum()) + np.repeat(starts - ends + sizes, sizes)
        places = holding.places(rows)
        held = places >= 0
        self._place(held)
        own = places[held]
        self._stop = self._start + len(own)
        self._y[self._start : self._stop] = features.y[own]
        # Those of successive blocks lie together in the window: one read gets them.
        groups = np.append(np.append(0, ends)[:-1:_AT_ONCE], len(rows))
        edges = np.append(0, np.cumsum(held))[groups] + self._start
        self._reading = [
            readers.submit(
                features.gather,
                own[low - self._start : high - self._start],
                self._X[low:high],
            )
            for low, high in pairwise(edges.tolist())
        ]

    def _place(self, held: npt.NDArray[np.bool_]) -> None:
        """Note where rows lie of which those that are held have been put in order."""
        self._last = self._first + len(held)
        at = np.where(held, self._start + np.cumsum(held) - 1, -1)
        self._at[self._first : self._last] = at

    def rows(self) -> tuple[Matrix, Labels, Rows]:
        """Return the k rows, once they are there, and where the m are among them."""
        for read in self._reading:
            read.result()
        place, at = slice(self._start, self._stop), self._at[self._first : self._last]
        return self._X[place], self._y[place], np.where(at < 0, -1, at - self._start)

    def carry(self, X: Matrix, y: Labels, rest: Rows) -> None:
        """Put the rest of another window in front."""
        held = rest >= 0
        count = int(held.sum())
        self._start -= count
        place = slice(self._start, self._start + count)
        self._X[place], self._y[place] = X[rest[held]], y[rest[held]]
        self._first -= len(rest)
        last = self._last
        self._place(held)
        self._last = last


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
    holding : Holding
        Which of the samples this process has; the order names the others -1.
    """

    def __init__(
        self,
        features: Features,
        plan: Plan,
        spec: SgdSpec,
        holding: Holding = EVERYTHING,
    ) -> None:
        super().__init__(features, spec.seed, holding)
        self._plan, self._spec = plan, spec
        most = plan.most(holding)
        self._two = [_Window(features, spec.batch_size, plan, most) for _ in range(2)]
        self._readers = ThreadPoolExecutor(_READERS, "windows")
        self._fill(self._two[0], 0, plan.deal(spec.seed, 0)[0])

    def __exit__(self, *_: object) -> None:
        """Read no more."""
        self._readers.shutdown(cancel_futures=True)

    def _fill(self, window: _Window, epoch: int, starts: Rows) -> None:
        stops = np.minimum(starts + self._plan.block, self._plan.n)
        held = self._of_epoch(epoch)
        window.fill(held, starts, stops, self._holding, self._readers)

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
            X, y, at = now.rows()
            if number + 1 < len(dealt):
                self._fill(then, epoch + (number == last), dealt[number + 1])
            order = at[generator(seed, "window", epoch, number).permutation(len(at))]
            rest = order[len(at) - len(at) % b :] if number < last else order[:0]
            yield X, y, order[: len(at) - len(rest)]
            then.carry(X, y, rest)
            self._two = [then, now]
