"""Shares: what of some features a process holds, of several that train together.

A batch is then spread over the processes: each has some of its samples, and their
gradients are added up. A process on its own holds everything.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from featcache.core.features import Features, Rows
from featcache.core.heads import Floats

Doubles = npt.NDArray[np.float64]
_Scalar = TypeVar("_Scalar", bound=np.generic)


class Holding:
    """Which of n samples a process holds: all of them."""

    def of(self, features: Features) -> Features:
        """Return those of the features that are held.

        Parameters
        ----------
        features : Features
            All n.

        Returns
        -------
        Features
            In their order.
        """
        return features

    def before(self, samples: Rows) -> Rows:
        """Return how many of those that are held lie before some samples.

        Parameters
        ----------
        samples : ndarray of int64, shape (m,)
            Among all n, from 0 to n.

        Returns
        -------
        ndarray of int64, shape (m,)
            Where they are, or would be, among those held.
        """
        return samples

    def places(self, samples: Rows) -> Rows:
        """Return the numbers of samples among those held.

        Parameters
        ----------
        samples : ndarray of int64, shape (m,)
            Among all n.

        Returns
        -------
        ndarray of int64, shape (m,)
            -1 for those that another process holds.
        """
        return samples


EVERYTHING = Holding()


class PartHolding(Holding):
    """Which of n samples a process holds: some of them.

    Parameters
    ----------
    held : ndarray of bool, shape (n,)
        Which.
    """

    def __init__(self, held: npt.NDArray[np.bool_]) -> None:
        self._rows = np.flatnonzero(held)
        self._places = np.where(held, np.cumsum(held) - 1, -1)

    def of(self, features: Features) -> Features:
        """Return those of the features that are held.

        Parameters
        ----------
        features : Features
            All n.

        Returns
        -------
        Features
            In their order; none of them is read yet.
        """
        return features.subset(self._rows)

    def before(self, samples: Rows) -> Rows:
        """Return how many of those that are held lie before some samples.

        Parameters
        ----------
        samples : ndarray of int64, shape (m,)
            Among all n, from 0 to n.

        Returns
        -------
        ndarray of int64, shape (m,)
            Where they are, or would be, among those held.
        """
        return np.searchsorted(self._rows, samples)

    def places(self, samples: Rows) -> Rows:
        """Return the numbers of samples among those held.

        Parameters
        ----------
        samples : ndarray of int64, shape (m,)
            Among all n.

        Returns
        -------
        ndarray of int64, shape (m,)
            -1 for those that another process holds.
        """
        return self._places[samples]


class Share:
    """A process's share of a training: all of it."""

    count = 1
    """Of processes."""

    def holding(self, features: Features) -> Holding:
        """Return which of some features this process holds.

        Parameters
        ----------
        features : Features
            Of n samples.

        Returns
        -------
        Holding
            All of them.
        """
        del features
        return EVERYTHING

    def budget(self, features: Features, memory: int) -> int:
        """Return how large features may be so that each process's part fits.

        Parameters
        ----------
        features : Features
            Of n samples.
        memory : int
            Bytes that this process may take.

        Returns
        -------
        int
            Bytes of all n; the same in every process.
        """
        del features
        return memory

    def total(self, values: Doubles) -> Doubles:
        """Return sums over the processes.

        Parameters
        ----------
        values : ndarray of float64
            Of one shape in every process.

        Returns
        -------
        ndarray of float64
            The same in every process, to the bit.
        """
        return values

    def add_up(self, values: Floats) -> None:
        """Put sums over the processes in place of values.

        Parameters
        ----------
        values : ndarray of float32
            Contiguous, of one shape in every process.
        """

    def together(self, values: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        """Return the values of all processes, one process after the other.

        Parameters
        ----------
        values : ndarray, shape (m, ...)
            Alike in every process but for m.

        Returns
        -------
        ndarray
            The same in every process.
        """
        return values


ALONE = Share()
