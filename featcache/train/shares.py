"""The share that each of several processes has of a head's training."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

from featcache.core.features import Features
from featcache.core.heads import Floats
from featcache.core.shares import Doubles, Holding, PartHolding, Share
from featcache.train.ranks import Ranks

_Scalar = TypeVar("_Scalar", bound=np.generic)


class RankShare(Share):
    """What one of the ranks holds: some rows of a cache.

    Parameters
    ----------
    ranks : Ranks
        Joined, on the CPU.
    mine : ndarray of bool, shape (N,)
        Which rows of the cache this process reads; over all ranks, each row once.
    """

    def __init__(self, ranks: Ranks, mine: npt.NDArray[np.bool_]) -> None:
        self.ranks, self._mine = ranks, mine
        self.count = ranks.count

    def holding(self, features: Features) -> Holding:
        """Return which of some features this process holds.

        Parameters
        ----------
        features : Features
            Of n rows of the cache.

        Returns
        -------
        Holding
            Some of them.
        """
        return PartHolding(self._mine[features.sample_index])

    def budget(self, features: Features, memory: int) -> int:
        """Return how large features may be so that each process's part fits.

        Parameters
        ----------
        features : Features
            Of n rows of the cache.
        memory : int
            Bytes that this process may take.

        Returns
        -------
        int
            Bytes of all n; the same in every process.
        """
        held = int(self._mine[features.sample_index].sum())
        whole = memory * len(features) // max(held, 1)
        return int(self.together(np.array([whole])).min())

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
        summed = np.array(values, np.float64)
        distributed.all_reduce(torch.from_numpy(summed))
        return summed

    def add_up(self, values: Floats) -> None:
        """Put sums over the processes in place of values.

        Parameters
        ----------
        values : ndarray of float32
            Contiguous, of one shape in every process.
        """
        distributed.all_reduce(torch.from_numpy(values))

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
        return np.concatenate(self.ranks.gather(values))


def fair_share(
    order: npt.NDArray[np.int64], rank: int, count: int
) -> npt.NDArray[np.int64]:
    """Return the rows of one of several processes: as many for each.

    Parameters
    ----------
    order : ndarray of int64, shape (n,)
        Rows in the order in which files have them.
    rank : int
        From 0.
    count : int
        Of processes.

    Returns
    -------
    ndarray of int64
        Successive ones, so that each process reads few files.
    """
    n = len(order)
    return order[n * rank // count : n * (rank + 1) // count]
