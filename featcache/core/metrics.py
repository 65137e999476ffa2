"""Metrics of predictions against labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.core.heads import Floats

Labels = npt.NDArray[np.int32]
Right = npt.NDArray[np.bool_]

ECE_BINS = 15  # of Guo et al.


@dataclass(frozen=True)
class Scores:
    """How good the scores of n samples are.

    ``confusion[t][p]`` counts the samples of class t that were predicted as p.
    """

    accuracy: float
    mean_per_class_recall: float  # over the classes that have a sample
    log_loss: float  # mean cross-entropy, in nats
    confusion: list[list[int]]
    top5_accuracy: float | None  # None up to five classes, where it says nothing
    ece: float  # expected calibration error, in [0, 1]


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


def mean_recall(right: Right, labels: Labels) -> float:
    """Return the mean over the classes of the share that is found.

    Without a confusion matrix, for which 20,000 classes have no room.

    Parameters
    ----------
    right : ndarray of bool, shape (n,)
        Whether each prediction is right, n at least 1.
    labels : ndarray of int32, shape (n,)
        True classes.

    Returns
    -------
    float
        In [0, 1]; over the classes that have a sample.
    """
    counts = np.bincount(labels)
    present = counts > 0
    return float((np.bincount(labels, right)[present] / counts[present]).mean())


def top_accuracy(scores: Floats, labels: Labels, k: int) -> float:
    """Return the share of samples whose class has one of the k highest scores.

    Parameters
    ----------
    scores : ndarray of float32, shape (n, C)
        Class scores or probabilities.
    labels : ndarray of int32, shape (n,)
        True classes.
    k : int
        At least 1.

    Returns
    -------
    float
        In [0, 1]. Of equal scores the lower class number counts as the higher score,
        as `argmax` has it, so that k = 1 gives `accuracy`.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    ahead = (scores > own) | ((scores == own) & earlier)
    return float((ahead.sum(axis=1) < k).mean())


def expected_calibration_error(scores: Floats, labels: Labels) -> float:
    """Return how far confidence lies from accuracy.

    The samples go into 15 bins of equal width by their confidence, the probability of
    the predicted class; the error is the mean over the samples of the difference
    between the bin's accuracy and its mean confidence (Guo et al. 2017, On Calibration
    of Modern Neural Networks, equation 3). With few samples it is never zero.

    Parameters
    ----------
    scores : ndarray of float32, shape (n, C)
        Class scores before the softmax.
    labels : ndarray of int32, shape (n,)
        True classes.

    Returns
    -------
    float
        In [0, 1]; 0 where confidence is accuracy in every bin.
    """
    return calibration_error(confidences(scores), scores.argmax(axis=1) == labels)


def confidences(scores: Floats) -> npt.NDArray[np.float64]:
    """Return the probability of each predicted class.

    Parameters
    ----------
    scores : ndarray of float32, shape (n, C)
        Class scores before the softmax.

    Returns
    -------
    ndarray of float64, shape (n,)
        The largest of each row's softmax.
    """
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = 1 / np.exp(shifted).sum(axis=1)  # largest: e**0
    return result


def calibration_error(confidence: npt.NDArray[np.float64], right: Right) -> float:
    """Return the expected calibration error of given confidences.

    Parameters
    ----------
    confidence : ndarray of float64, shape (n,)
        Probability of each predicted class, n at least 1.
    right : ndarray of bool, shape (n,)
        Whether each prediction is right.

    Returns
    -------
    float
        See `expected_calibration_error`.
    """
    # Bin m holds the confidences in ((m - 1) / 15, m / 15].
    bins = np.ceil(confidence * ECE_BINS).astype(np.int64) - 1
    gaps = np.bincount(bins, right - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(right))


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
        Accuracy, mean per-class recall, log loss, confusion matrix, top-5 accuracy and
        calibration error.
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
        top5_accuracy=top_accuracy(scores, labels, 5) if C > 5 else None,
        ece=expected_calibration_error(scores, labels),
    )
