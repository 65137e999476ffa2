"""How good a head is on labelled features, in bounded memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from featcache.core.features import Features
from featcache.core.heads import Floats
from featcache.core.intervals import Interval, wilson
from featcache.core.knn import Head
from featcache.core.metrics import (
    Labels,
    calibration_error,
    confidences,
    cross_entropy,
    mean_recall,
)
from featcache.core.shares import ALONE, Share
from featcache.train.passes import threads_for

_SCORES = 1 << 20  # that exist at once


@dataclass(frozen=True)
class Measured:
    """The numbers of one split."""

    accuracy: float
    accuracy_interval: Interval  # 95 %, Wilson's
    mean_per_class_recall: float
    loss: float  # nats
    ece: float

    def told(self, split: str) -> dict[str, Any]:
        """Return the fields of a report that are further than accuracy and loss.

        Parameters
        ----------
        split : {"val", "test"}
            With which their names begin.

        Returns
        -------
        dict
            Of `TrainReport`.
        """
        return {
            f"{split}_accuracy_interval": self.accuracy_interval,
            f"{split}_mean_per_class_recall": self.mean_per_class_recall,
            f"{split}_ece": self.ece,
        }


def measure_scores(scores: Floats, y: Labels) -> Measured:
    """Measure what was said of some samples.

    Parameters
    ----------
    scores : ndarray of float32, shape (n, C)
        Of each class, n at least 1.
    y : ndarray of int32, shape (n,)
        Labels.

    Returns
    -------
    Measured
        The numbers of a head that gave these scores.
    """
    right = scores.argmax(axis=1) == y
    return Measured(
        accuracy=float(right.mean()),
        accuracy_interval=wilson(int(right.sum()), len(y)),
        mean_per_class_recall=mean_recall(right, y),
        loss=cross_entropy(scores, y),
        ece=calibration_error(confidences(scores), right),
    )


def measure_head(
    head: Head, features: Features, *, classes: int, share: Share = ALONE
) -> Measured:
    """Measure a head.

    Parameters
    ----------
    head : LinearHead or KnnHead
        As it is now.
    features : Features
        X (n, D), y (n,), n at least 1; read in blocks.
    classes : int
        C.
    share : Share
        What of them this process looks at.

    Returns
    -------
    Measured
        Accuracy with its interval, recall, log loss and calibration error.
    """
    held = share.holding(features).of(features)
    n = len(held)
    right, confidence, loss = np.empty(n, bool), np.empty(n), 0.0
    with threads_for(n * head.embed_dim * classes):
        for rows, X in held.blocks(max(1, _SCORES // classes)):
            scores, y = head.scores(X), held.y[rows]
            right[rows] = scores.argmax(axis=1) == y
            confidence[rows] = confidences(scores)
            loss += len(y) * cross_entropy(scores, y)
    right, confidence = share.together(right), share.together(confidence)
    labels, n = share.together(held.y), len(features)
    loss = float(share.total(np.array([loss]))[0])
    return Measured(
        accuracy=float(right.mean()),
        accuracy_interval=wilson(int(right.sum()), n),
        mean_per_class_recall=mean_recall(right, labels),
        loss=loss / n,
        ece=calibration_error(confidence, right),
    )
