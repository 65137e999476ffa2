"""Confident learning: labels that out-of-fold probabilities contradict.

Northcutt, Jiang and Chuang 2021, Confident Learning: Estimating Uncertainty in Dataset
Labels, section 3.1. A class's threshold is the mean probability that its own samples
are given of it. A sample counts, with confidence, for the most probable class that
reaches its threshold; where that is not its label, the label is likely to be wrong
(the off-diagonal of the confident joint), unless the label is more probable still.

Letters: P (n, C) probabilities of samples by heads that were not fitted to them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.core.heads import Floats
from featcache.core.metrics import Labels

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Suspects:
    """What confident learning says of n labels.

    Parameters
    ----------
    likely : ndarray of int32, shape (n,)
        The class that a sample counts for; its label where it counts for none.
    margin : ndarray of float32, shape (n,)
        Probability of that class less that of the label, 0 for labels not doubted.
    """

    likely: Labels
    margin: Floats


def class_thresholds(own: Floats, y: Labels, classes: int) -> Doubles:
    """Return each class's mean probability of itself.

    Parameters
    ----------
    own : ndarray of float32, shape (n,)
        Probability of each sample's label.
    y : ndarray of int32, shape (n,)
        Labels in [0, C).
    classes : int
        C.

    Returns
    -------
    ndarray of float64, shape (C,)
        Infinite for a class without samples, which nothing counts for.
    """
    counts = np.bincount(y, minlength=classes)
    sums = np.bincount(y, own, minlength=classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def suspects(P: Floats, y: Labels, thresholds: Doubles) -> Suspects:
    """Find labels that are likely to be wrong.

    Parameters
    ----------
    P : ndarray of float32, shape (n, C)
        Out-of-fold probabilities.
    y : ndarray of int32, shape (n,)
        Labels.
    thresholds : ndarray of float64, shape (C,)
        Of `class_thresholds`.

    Returns
    -------
    Suspects
        Of these samples; each stands for itself, so blocks may be asked in turn.
    """
    at = np.arange(len(y))
    counted = np.where(thresholds <= P, P, -1)
    likely = counted.argmax(axis=1)
    likely = np.where(counted[at, likely] < 0, y, likely)
    likely = np.where(P.argmax(axis=1) == y, y, likely)
    margin = np.where(likely == y, 0, P[at, likely] - P[at, y])
    return Suspects(likely.astype(np.int32), margin.astype(np.float32))
