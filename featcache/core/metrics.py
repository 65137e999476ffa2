"""Metrics of predictions against labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.core.heads import Floats

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Scores:
    """How good the scores of n samples are.

    ``confusion[t][p]`` counts the samples of class t that were predicted as p.
    """

    accuracy: float
    mean_per_class_recall: float  # over the classes that have a sample
    log_loss: float  # mean cross-entropy, in nats
    confusion: list[list[int]]


def cross_entropy(scores: Floats, labels: Labels) -> float:
    """Return the mean cross-entropy.

    Parameters
    ----------
    scores : ndarray of float32, shape (n, C)
        Class scores before the softmax.
    labels : ndarray of int32, shape (n,)
        True classes.

    Returns
    -------
    float
        In nats.
    """
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sum - shifted[np.arange(len(labels)), labels]).mean())


def accuracy(scores: Floats, labels: Labels) -> float:
    """Return the share of samples whose highest score is their class's.

    Parameters
    ----------
    scores : ndarray of float32, shape (n, C)
        Class scores or probabilities.
    labels : ndarray of int32, shape (n,)
        True classes.

    Returns
    -------
    float
        In [0, 1].
    """
    return float((scores.argmax(axis=1) == labels).mean())


def measure(scores: Floats, labels: Labels) -> Scores:
    """Return every metric of one set of scores.

    Parameters
    ----------
    scores : ndarray of float32, shape (n, C)
        Class scores before the softmax, n at least 1.
    labels : ndarray of int32, shape (n,)
        True classes.

    Returns
    -------
    Scores
        Accuracy, mean per-class recall, log loss and the confusion matrix.
    """
    C = scores.shape[1]
    predictions = scores.argmax(axis=1)
    cells = np.bincount(labels.astype(np.int64) * C + predictions, minlength=C * C)
    confusion = cells.reshape(C, C)
    present = confusion.sum(axis=1) > 0
    recall = confusion.diagonal()[present] / confusion.sum(axis=1)[present]
    return Scores(
        accuracy=accuracy(scores, labels),
        mean_per_class_recall=float(recall.mean()),
        log_loss=cross_entropy(scores, labels),
        confusion=confusion.tolist(),
    )
