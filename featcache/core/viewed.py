"""Samples with several views: who has how many, how they are drawn, and used."""

from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.features import Features, Rows, RowSource, StoredFeatures
from featcache.core.manifest import TRAIN
from featcache.core.metrics import Labels
from featcache.core.seeds import generator
from featcache.core.view_specs import AugmentSpec


def view_random(how: AugmentSpec, digest: bytes, view: int) -> np.random.Generator:
    """Return the random numbers of one view of one image.

    Parameters
    ----------
    how : AugmentSpec
        Its seed is taken.
    digest : bytes
        sha256 of the image file.
    view : int
        From 1; view 0 is not drawn.

    Returns
    -------
    numpy.random.Generator
        Equal streams for equal bytes, whatever row, name or machine.
    """
    return generator(how.seed, "views", int.from_bytes(digest), view)


def view_counts(splits: npt.NDArray[np.uint8], views: int) -> npt.NDArray[np.int64]:
    """Return how many views each row of a cache has.

    Parameters
    ----------
    splits : ndarray of uint8, shape (n,)
        Number of each row's split.
    views : int
        V of the cache.

    Returns
    -------
    ndarray of int64, shape (n,)
        V in train; 1 elsewhere, where nothing is drawn.
    """
    return np.where(splits == TRAIN, views, 1)


def adopt(into: npt.NDArray[Any], known: npt.NDArray[Any], count: int) -> bool:
    """Take over the views of a row that are known, if all that are wanted are.

    Parameters
    ----------
    into : ndarray, shape (D,) or (V, D)
        One row; its first views are filled in place.
    known : ndarray, of the same shape
        The same image's features in another row, maybe of another split.
    count : int
        How many views are wanted.

    Returns
    -------
    bool
        False where the known row lacks one; nothing is filled then.
    """
    if into.ndim == 1:
        into[:] = known
        return True
    if np.isnan(known[count - 1, 0]):  # of an image that was not in train
        return False
    into[:count] = known[:count]
    return True


def epoch_views(counts: Rows, *, seed: int, epoch: int) -> Rows:
    """Return which view of each sample an epoch sees.

    Parameters
    ----------
    counts : ndarray of int64, shape (n,)
        How many views each sample has.
    seed : int
        The user's seed.
    epoch : int
        Epoch, from 0.

    Returns
    -------
    ndarray of int64, shape (n,)
        From 0 to ``counts - 1``, each as likely; the draw of a sample follows from
        seed, epoch and its number among the n.
    """
    draws = generator(seed, "view", epoch).random(len(counts))
    views: Rows = (draws * counts).astype(np.int64)
    return views


class ViewedFeatures(StoredFeatures):
    """Features in files; X is view 0, and an epoch may have others.

    Parameters
    ----------
    source : RowSource
        The files.
    y : ndarray of int32, shape (n,)
        Labels in [0, C).
    sample_index : ndarray of int64, shape (n,)
        Rows of the source.
    counts : ndarray of int64, shape (n,)
        How many of its views each sample is trained on: the first ones.
    """

    def __init__(
        self, source: RowSource, y: Labels, sample_index: Rows, counts: Rows
    ) -> None:
        super().__init__(source, y, sample_index)
        object.__setattr__(self, "counts", counts)

    counts: Rows

    def of_epoch(self, seed: int, epoch: int) -> Features:
        """Return the features that an epoch sees.

        Parameters
        ----------
        seed : int
            The user's.
        epoch : int
            From 0.

        Returns
        -------
        Features
            One view of each sample, by `epoch_views`; not read yet.
        """
        view = epoch_views(self.counts, seed=seed, epoch=epoch)
        flat = self._source.flat()
        return StoredFeatures(
            flat, self.y, self.sample_index * self._source.views + view
        )

    def subset(self, rows: Rows) -> Features:
        """Return some of the samples.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Which of the n, rising.

        Returns
        -------
        Features
            With their views; none of them is read yet.
        """
        index, counts = self.sample_index[rows], self.counts[rows]
        return ViewedFeatures(self._source, self.y[rows], index, counts)
