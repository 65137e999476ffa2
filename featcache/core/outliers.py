"""Outliers: images that lie far from the nearest others of their class."""

import numpy as np
import numpy.typing as npt

from featcache.core.features import Features
from featcache.core.heads import Floats, unit_rows
from featcache.core.knn import KnnHead

NEIGHBOURS = 10  # their mean distance counts; a few alike foreign images stay alone
FAR = 3.5  # robust z-score from which on a sample is an outlier (Iglewicz, Hoaglin)

_BANK = 16_384  # images of a class that neighbours are sought among
_TO_DEVIATION = 0.6745  # of a normal distribution: median absolute over standard

Doubles = npt.NDArray[np.float64]


def outlier_scores(features: Features, classes: int) -> Doubles:
    """Return how far out each sample lies.

    The distance is the mean of 1 - cosine to the ten nearest samples of the same class,
    divided by the class's median, since some classes vary more than others; the score
    is its robust z-score among all samples, (x - median) 0.6745 / MAD.

    Parameters
    ----------
    features : Features
        X (n, D), y (n,).
    classes : int
        C.

    Returns
    -------
    ndarray of float64, shape (n,)
        Above `FAR`: an outlier. NaN for classes of fewer than three samples, which have
        no middle to be far from.
    """
    relative = np.full(len(features), np.nan)
    for label in range(classes):
        rows = np.flatnonzero(features.y == label)
        if len(rows) < 3:
            continue
        distance = _distances(features.subset(rows))
        middle = np.median(distance)
        relative[rows] = distance / middle if middle > 0 else 1 + distance
    return _robust_z(relative)


def _distances(features: Features) -> Doubles:
    """Return each sample's mean distance to its nearest others, in bounded memory."""
    n = len(features)
    chosen = np.linspace(0, n - 1, min(n, _BANK)).round().astype(np.int64)
    bank = unit_rows(np.asarray(features.fetch(chosen), np.float32))
    head = KnnHead(bank, np.zeros(len(bank), np.int32), 1, NEIGHBOURS, 1.0)
    result = np.empty(n)
    for rows, X in features.blocks():
        cosines, found = head.neighbours(X, min(NEIGHBOURS, n - 1) + 1)
        itself = chosen[found] == np.arange(rows.start, rows.stop)[:, None]
        result[rows] = 1 - _without(cosines, itself).mean(axis=1)
    return np.maximum(result, 0)


def _without(cosines: Floats, itself: npt.NDArray[np.bool_]) -> Floats:
    """Leave out each sample itself; where it is not found, the farthest."""
    itself[~itself.any(axis=1), -1] = True
    result: Floats = cosines[~itself].reshape(len(cosines), -1)
    return result


def _robust_z(values: Doubles) -> Doubles:
    """Return z-scores by median and MAD; zeros where most values are equal."""
    known = values[~np.isnan(values)]
    if not len(known):
        return values
    middle = np.median(known)
    spread = np.median(np.abs(known - middle))
    if spread == 0:
        return np.where(np.isnan(values), np.nan, 0.0)
    result: Doubles = _TO_DEVIATION * (values - middle) / spread
    return result
