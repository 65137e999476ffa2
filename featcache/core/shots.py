"""Few of many training images: so many of each class, or a share of it; seeded."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.core.metrics import Labels
from featcache.core.seeds import generator

Rows = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]

_NEAR = 1.4  # all images say nothing new where they are no more times as many


@dataclass(frozen=True)
class Level:
    """How many of the training images are used; all where neither is given."""

    shots: int | None = None  # of each class
    share: float | None = None  # of each class, in (0, 1)

    @property
    def whole(self) -> bool:
        """Whether these are all images."""
        return self.shots is None and self.share is None

    def draw(self, y: Labels, *, seed: int) -> Rows:
        """Draw as many samples.

        Parameters
        ----------
        y : ndarray of int32, shape (n,)
            Labels of all.
        seed : int
            Of the draw.

        Returns
        -------
        ndarray of int64, shape (m,)
            Rising.
        """
        if self.shots is not None:
            return draw_shots(y, self.shots, seed=seed)
        return draw_share(y, 1.0 if self.share is None else self.share, seed=seed)

    def least(self, counts: Counts) -> int:
        """Return how many samples the smallest class gives.

        Parameters
        ----------
        counts : ndarray of int, shape (C,)
            Samples of each class.

        Returns
        -------
        int
            At least 1, if every class has one.
        """
        smallest = int(counts.min())
        if self.shots is not None:
            return min(self.shots, smallest)
        return _part(1.0 if self.share is None else self.share, smallest)


def doubling(counts: Counts, least: int = 1) -> tuple[Level, ...]:
    """Return 1, 2, 4, 8, ... images of each class as far as they go, then all.

    Parameters
    ----------
    counts : ndarray of int, shape (C,)
        Samples of each class.
    least : int
        The first number, at least.

    Returns
    -------
    tuple of Level
        At least the last, all.
    """
    most = min(int(counts.min()), counts.mean() / _NEAR)
    powers = (2**k for k in range(64))
    numbers = [n for n in powers if least <= n <= most]
    return (*(Level(shots=n) for n in numbers), Level())


def draw_shots(y: Labels, shots: int, *, seed: int) -> Rows:
    """Draw as many samples of each class.

    Parameters
    ----------
    y : ndarray of int32, shape (n,)
        Labels.
    shots : int
        How many of each class; all of a class that has fewer.
    seed : int
        Of the draw. With one seed, more shots are the fewer ones and some more.

    Returns
    -------
    ndarray of int64, shape (m,)
        Rising.
    """
    return _draw(y, lambda count: min(shots, count), seed)


def draw_share(y: Labels, share: float, *, seed: int) -> Rows:
    """Draw a share of the samples of each class.

    Parameters
    ----------
    y : ndarray of int32, shape (n,)
        Labels.
    share : float
        In (0, 1]; at least one sample of each class is drawn.
    seed : int
        Of the draw. With one seed, a larger share is the smaller one and some more.

    Returns
    -------
    ndarray of int64, shape (m,)
        Rising.
    """
    return _draw(y, lambda count: _part(share, count), seed)


def _part(share: float, count: int) -> int:
    return max(1, round(share * count))


def _draw(y: Labels, number: Callable[[int], int], seed: int) -> Rows:
    drawn = []
    for label in np.unique(y).tolist():
        rows = np.flatnonzero(y == label)
        order = generator(seed, "shots", label).permutation(len(rows))
        drawn.append(rows[order[: number(len(rows))]])
    return np.sort(np.concatenate(drawn))
