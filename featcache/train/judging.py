"""How good heads are on validation features, and which epoch is the best."""

import numpy as np

from featcache.core.features import Features
from featcache.core.heads import Floats, LinearHead
from featcache.core.metrics import Labels, accuracy, cross_entropy
from featcache.core.reports import EpochRecord
from featcache.core.shares import ALONE, Share
from featcache.train.steps import Losses

SCORED = 1 << 22  # scores of val computed at once


def judge(
    head: LinearHead, val: Features | None, share: Share = ALONE
) -> tuple[float | None, float | None]:
    """Return a head's loss and accuracy on validation features.

    Parameters
    ----------
    head : LinearHead
        As it is now.
    val : Features, optional
        Without it there is nothing to judge by.
    share : Share
        What of them this process looks at.

    Returns
    -------
    (float, float) or (None, None)
        Mean cross-entropy in nats, and accuracy.
    """
    if val is None:
        return None, None
    loss = right = 0.0
    held = share.holding(val).of(val)
    for rows, X in held.blocks(max(1, SCORED // len(head.bias))):
        scores, y = head.scores(X), held.y[rows]
        loss += len(y) * cross_entropy(scores, y)
        right += len(y) * accuracy(scores, y)
    loss, right = share.total(np.array([loss, right])).tolist()
    return loss / len(val), right / len(val)


def selection_key(record: EpochRecord) -> tuple[float, float]:
    """Return what the best epoch has the most of.

    Parameters
    ----------
    record : EpochRecord
        One epoch.

    Returns
    -------
    (float, float)
        Validation accuracy, then minus the loss; without validation the epoch.
    """
    if record.val_accuracy is None or record.val_loss is None:
        return (float(record.epoch), 0.0)
    return (record.val_accuracy, -record.val_loss)


def cross_entropies(scores: Floats, y: Labels) -> Losses:
    """Return the summed cross-entropy of each of several heads.

    Parameters
    ----------
    scores : ndarray of float32, shape (n, H, C)
        Before the softmax.
    y : ndarray of int32, shape (n,)
        Labels.

    Returns
    -------
    ndarray of float64, shape (H,)
        Nats.
    """
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=2, keepdims=True)
    at_label = shifted[np.arange(len(y)), :, y]
    losses: Losses = (np.log(np.exp(shifted).sum(axis=2)) - at_label).sum(axis=0)
    return losses
