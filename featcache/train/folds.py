"""Parts of train that are held out to choose a setting; stratified and seeded."""

import numpy as np
import numpy.typing as npt

from featcache.core.errors import TrainingError
from featcache.core.metrics import Labels
from featcache.core.seeds import generator

Mask = npt.NDArray[np.bool_]


def held_out(y: Labels, *, holdout: float, cv: int, seed: int) -> list[Mask]:
    """Return which samples are held out, each time.

    Parameters
    ----------
    y : ndarray of int32, shape (n,)
        Labels.
    holdout : float
        Share of every class that is held out once; one sample of it at least, and one
        stays.
    cv : int
        Number of folds instead; 0 for none.
    seed : int
        Of the choice.

    Returns
    -------
    list of ndarray of bool, shape (n,)
        One mask, or one a fold: these hold every sample once. Folds that would be
        empty, since there are more of them than samples, are left out.

    Raises
    ------
    TrainingError
        When a class has a single sample.
    """
    labels, counts = np.unique(y, return_counts=True)
    if counts.min() < 2:
        raise TrainingError(
            f"class number {labels[counts.argmin()]} has a single training image: none "
            "can be held out to choose C; give one value of C or add images"
        )
    if not cv:
        return [_share(y, holdout, seed)]
    fold = _folds(y, cv, seed)
    return [fold == k for k in range(cv) if (fold == k).any()]


def _share(y: Labels, holdout: float, seed: int) -> Mask:
    held = np.zeros(len(y), bool)
    random = generator(seed, "holdout")
    for label in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == label))
        count = max(1, round(holdout * len(rows)))
        held[rows[: min(count, len(rows) - 1)]] = True
    return held


def _folds(y: Labels, cv: int, seed: int) -> npt.NDArray[np.int64]:
    """Return each sample's fold; a class's samples are dealt out in turn."""
    fold = np.empty(len(y), np.int64)
    random = generator(seed, "folds")
    dealt = 0  # goes on from class to class, so that the folds are of equal size
    for label in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == label))
        fold[rows] = (dealt + np.arange(len(rows))) % cv
        dealt += len(rows)
    return fold
