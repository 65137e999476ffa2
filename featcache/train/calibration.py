"""One temperature, so that probabilities mean something."""

import numpy as np
import numpy.typing as npt

from featcache.core.metrics import Labels
from featcache.train.passes import Doubles

_LEAST = 1e-3  # scale of scores with variance 1 that tell nothing
_STEPS = 100


def fit_scale(scores: npt.NDArray[np.floating], y: Labels) -> float:
    """Return the factor that makes logits of scores: one over the temperature.

    It minimises the mean cross-entropy of ``softmax(factor * scores)``, which is convex
    in the factor (temperature scaling; Guo et al. 2017, On Calibration of Modern Neural
    Networks). The targets are smoothed by Laplace's rule, n + 1 of n + C for the true
    class, as Platt (1999, Probabilistic Outputs for Support Vector Machines) does for
    two: else scores that are right on all n samples would ask for certainty.

    Parameters
    ----------
    scores : ndarray, shape (n, C)
        Of samples that the scores were not fitted to; n at least 1.
    y : ndarray of int32, shape (n,)
        True classes.

    Returns
    -------
    float
        Positive, so that no prediction changes; nearly 0 where the scores mislead.
    """
    n, C = scores.shape
    X = scores.astype(np.float64)
    X -= X.mean(axis=1, keepdims=True)
    deviation = float(np.sqrt(np.mean(X**2)))
    if deviation == 0:
        return 1.0
    X /= deviation
    # X sums to zero in each row, so its mean under the targets is a share of its true
    # column: (n + 1) / (n + C) - 1 / (n + C).
    wanted = float(X[np.arange(n), y].mean()) * n / (n + C)
    return _root(X, wanted) / deviation


def _root(X: Doubles, wanted: float) -> float:
    """Solve mean(E_p[X]) = wanted by Newton's method, kept inside a bracket."""
    low, high, s = _LEAST, np.inf, 1.0
    if _slope(X, low)[0] >= wanted:
        return low
    for _ in range(_STEPS):
        mean, variance = _slope(X, s)
        low, high = (s, high) if mean < wanted else (low, s)
        step = s + (wanted - mean) / max(variance, 1e-300)
        if not low < step < min(high, 4 * s):
            step = 2 * s if np.isinf(high) else (low + high) / 2
        if abs(step - s) <= 1e-9 * s:
            break
        s = step
    return float(s)


def _slope(X: Doubles, s: float) -> tuple[float, float]:
    """Return mean and variance of X under softmax(s X), averaged over the rows."""
    P = np.exp(s * (X - X.max(axis=1, keepdims=True)))
    P /= P.sum(axis=1, keepdims=True)
    mean = (P * X).sum(axis=1)
    variance = (P * X**2).sum(axis=1) - mean**2
    return float(mean.mean()), float(variance.mean())
