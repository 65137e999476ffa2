"""Nearest class mean by cosine, in one pass over the features."""

import time

import numpy as np
import numpy.typing as npt

from featcache.core.features import Features
from featcache.core.heads import Floats, LinearHead, unit_rows
from featcache.core.metrics import Labels
from featcache.train.calibration import fit_scale
from featcache.train.passes import (
    Doubles,
    class_sums,
    judged_rows,
    row_blocks,
)
from featcache.train.solved import Solved, describe

_DEFAULT_SCALE = 1 / 0.07  # where no class has a second sample: that of k-NN


def fit_centroid(
    train: Features, val: Features | None, *, classes: int
) -> Solved[LinearHead]:
    """Fit the nearest class mean.

    Features are brought to length one; a class's centroid is the direction of their
    mean; the score is the cosine with it, times a scale. The scale makes the softmax
    of the cosines probabilities: it minimises the log loss of training samples against
    centroids that they have no part in (leave-one-out, in closed form).

    Parameters
    ----------
    train : Features
        X (n, D), y (n,), a sample of every class.
    val : Features, optional
        For the report.
    classes : int
        C.

    Returns
    -------
    Solved
        A head that normalises its input; ``chosen_temperature`` is one over the scale.
    """
    began = time.perf_counter()
    sums = np.zeros((classes, train.X.shape[1]))
    for rows in row_blocks(*train.X.shape):
        sums += class_sums(_unit(train.X[rows]), train.y[rows], classes)
    counts = np.bincount(train.y, minlength=classes)
    scale = _scale(train, sums, counts)
    weight = scale * _directions(sums)
    bias = np.zeros(classes, np.float32)
    head = LinearHead(weight.astype(np.float32), bias, normalize=True)
    record = describe(head, train, val, began=began)
    return Solved(head, record, {"chosen_temperature": 1 / scale})


def _scale(train: Features, sums: Doubles, counts: npt.NDArray[np.intp]) -> float:
    """Return one over the temperature, from samples of classes with two or more."""
    at = judged_rows(len(train.y), len(sums))
    at = at[counts[train.y[at]] > 1]
    if not len(at):
        return _DEFAULT_SCALE
    return fit_scale(leave_one_out(train.X[at], train.y[at], sums), train.y[at])


def leave_one_out(X: Floats, y: Labels, sums: Doubles) -> Doubles:
    """Return cosines with centroids, each sample's own without the sample.

    Parameters
    ----------
    X : ndarray, shape (n, D)
        Some of the training features.
    y : ndarray of int32, shape (n,)
        Their classes.
    sums : ndarray of float64, shape (C, D)
        Sum of all unit training features of each class.

    Returns
    -------
    ndarray of float64, shape (n, C)
        With a = x.S of a unit x and its class's sum S, the sum without x has the length
        sqrt(S.S - 2 a + 1), and the cosine with it is (a - 1) over that length.
    """
    unit, rows = _unit(X), np.arange(len(y))
    cosines = unit @ _directions(sums).T
    own = np.einsum("ij,ij->i", unit, sums[y])
    squared = (sums**2).sum(axis=1)[y] - 2 * own + (unit**2).sum(axis=1)
    length = np.sqrt(np.maximum(squared, np.finfo(np.float64).tiny))
    cosines[rows, y] = np.clip((own - (unit**2).sum(axis=1)) / length, -1, 1)
    return cosines


def _unit(X: Floats) -> Doubles:
    return unit_rows(np.asarray(X, np.float32)).astype(np.float64)


def _directions(sums: Doubles) -> Doubles:
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return sums / np.where(lengths > 0, lengths, 1)
