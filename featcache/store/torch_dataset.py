"""Rows of a cache as a torch data set, for whoever trains with a loop of their own."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from featcache.core.metrics import Labels


class Rows(Protocol):
    """Something that gives the features of rows: a `FeatureTable`."""

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the features of rows.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Row numbers, in any order.

        Returns
        -------
        ndarray, shape (n, D)
            In the order asked for.
        """


class FeatureDataset(Dataset[tuple[Tensor, int]]):
    """n pairs of a feature and its label, read from the mapped file when asked for.

    A `torch.utils.data.DataLoader` may use it with any number of workers, forked or
    spawned: a spawned one opens the file itself, and no row is sent to it. A loader
    asks for a whole batch at once.

    Parameters
    ----------
    table : FeatureTable
        Gives the features; it must stay open.
    rows : ndarray of int64, shape (n,)
        Rows of the table.
    labels : ndarray of int32, shape (n,)
        Of these rows.

    Examples
    --------
    >>> data = cache.dataset("train")  # doctest: +SKIP
    >>> loader = torch.utils.data.DataLoader(data, 256, True)  # doctest: +SKIP
    """

    def __init__(
        self, table: Rows, rows: npt.NDArray[np.int64], labels: Labels
    ) -> None:
        self._table = table
        self._rows = rows
        self._labels = labels

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = self._rows[index]  # its IndexError ends ``for feature, label in data``
        feature = self._table.take(np.array([row]))[0]
        return _tensor(feature), int(self._labels[index])

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        """Return a batch in one read: a loader asks for this where there is it."""
        features = _tensor(self._table.take(self._rows[indices]))
        labels = self._labels[indices].tolist()
        return list(zip(features.unbind(), labels, strict=True))


def _tensor(features: npt.NDArray[Any]) -> Tensor:
    # A copy: torch would hand out the read-only file as if it could be written.
    return torch.from_numpy(np.array(features, np.float32))
