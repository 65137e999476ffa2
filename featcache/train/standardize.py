"""Standardisation of features, and how it ends up in the exported weights."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featcache.core.features import Features
from featcache.core.heads import Floats, LinearHead, unit_rows
from featcache.core.shares import ALONE, Share
from featcache.core.training_specs import Standardize

Doubles = npt.NDArray[np.float64]

_ROWS = 4096  # at a time, so that a large cache is never in memory as float64

# A spread this far below the values themselves is their rounding in float32.
_ROUNDING = 1e-7


@dataclass(frozen=True, eq=False)
class Scaling:
    """What is done to features before a head sees them.

    Parameters
    ----------
    kind : {"none", "zscore", "l2"}
        zscore: every feature minus its mean, over its standard deviation, both of
        the training features; l2: every sample divided by its Euclidean norm.
    mean : ndarray of float32, shape (D,), optional
        Of zscore.
    std : ndarray of float32, shape (D,), optional
        Of zscore; 1 where a feature is constant, so that it becomes zero.
    """

    kind: Standardize = "none"
    mean: Floats | None = None
    std: Floats | None = None

    def __call__(self, X: npt.NDArray[np.floating]) -> Floats:
        """Return standardised features.

        Parameters
        ----------
        X : ndarray of float32 or float16, shape (n, D)
            As in the cache.

        Returns
        -------
        ndarray of float32, shape (n, D)
            With "none" the same array, if it is float32.
        """
        X = np.asarray(X, np.float32)
        if self.kind == "l2":
            return unit_rows(X)
        if self.mean is None or self.std is None:
            return X
        X = X - self.mean
        X /= self.std
        return X

    def export(self, head: LinearHead) -> LinearHead:
        """Return a head for raw features that scores as this one on standardised.

        Parameters
        ----------
        head : LinearHead
            As trained.

        Returns
        -------
        LinearHead
            Plainly linear, mean and standard deviation folded into its weights; equal
            to 1e-5, less where a mean is thousands of deviations from zero. With l2,
            which no weights can hold, a head that normalises.
        """
        if self.kind == "l2":
            return replace(head, normalize=True)
        if self.mean is None or self.std is None:
            return head
        # W (x - mean) / std + b = (W / std) x + (b - (W / std) mean)
        weight = head.weight / self.std.astype(np.float64)
        bias = head.bias - weight @ self.mean.astype(np.float64)
        return LinearHead(weight.astype(np.float32), bias.astype(np.float32))


def fit_scaling(X: npt.NDArray[np.floating], kind: Standardize) -> Scaling:
    """Learn a standardisation from the training features.

    Parameters
    ----------
    X : ndarray of float32 or float16, shape (n, D)
        Features, n at least 1.
    kind : {"none", "zscore", "l2"}
        Which.

    Returns
    -------
    Scaling
        Mean and standard deviation summed in float64; a constant feature has 1.
    """
    return scaling_of(Features(X, np.zeros(len(X), np.int32), np.arange(len(X))), kind)


def scaling_of(features: Features, kind: Standardize, share: Share = ALONE) -> Scaling:
    """Learn a standardisation from features that may be larger than memory.

    Parameters
    ----------
    features : Features
        n at least 1.
    kind : {"none", "zscore", "l2"}
        Which.
    share : Share
        What of them this process looks at.

    Returns
    -------
    Scaling
        As `fit_scaling`'s, of the features of all processes.
    """
    if kind != "zscore":
        return Scaling(kind)
    n, D = len(features), features.embed_dim
    mean: Doubles = np.zeros(D)
    largest: Floats = np.zeros(D, np.float32)
    held = share.holding(features).of(features)
    for _, block in held.blocks(_ROWS):
        mean += block.sum(axis=0, dtype=np.float64) / n
        np.maximum(largest, np.abs(block).max(axis=0), out=largest)
    mean = share.total(mean)
    largest = share.together(largest[None]).max(axis=0)
    variance: Doubles = np.zeros(D)
    for _, block in held.blocks(_ROWS):  # a second pass: E[x^2] - E[x]^2 would cancel
        variance += ((block - mean) ** 2).sum(axis=0) / n
    std = np.sqrt(share.total(variance))
    std[std <= _ROUNDING * largest] = 1
    return Scaling(kind, mean.astype(np.float32), std.astype(np.float32))
