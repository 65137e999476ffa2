"""The checks of `audit`: each looks at usable rows of a cache and returns findings."""

import numpy as np
import numpy.typing as npt

from featcache.core.audits import Finding, SplitAccuracy
from featcache.core.confident import class_thresholds, suspects
from featcache.core.features import Features
from featcache.core.heads import LinearHead
from featcache.core.intervals import wilson
from featcache.core.manifest import SPLITS, TRAIN
from featcache.core.outliers import FAR, outlier_scores
from featcache.core.solver_specs import RidgeSpec
from featcache.stages.audit_copies import Copies
from featcache.stages.audited import Audited, Found
from featcache.train.left_out import LeftOut
from featcache.train.passes import threads_for
from featcache.train.ridge import fit_ridge

_KEPT = 1 << 25  # probabilities that are kept: 128 MiB; more are computed twice
LEAST = 5  # images of a class without which a cross-validated head knows too little


def outlier_findings(audited: Audited) -> Found:
    """Tell of images far from all others of their class.

    Parameters
    ----------
    audited : Audited
        The rows.

    Returns
    -------
    Found
        The farthest first.
    """
    features = audited.features
    scores = outlier_scores(features, len(audited.cache.classes))
    rows = np.flatnonzero(scores > FAR)  # not NaN

    def tell(row: int) -> Finding:
        reason = "far from the nearest others of its class"
        return audited.finding("outlier", row, scores[row], reason)

    return Found("outlier", rows[np.argsort(-scores[rows], kind="stable")], tell)


def label_findings(audited: Audited) -> Found:
    """Tell of labels that cross-validated heads contradict with confidence.

    Classes of fewer than five images are not judged.

    Parameters
    ----------
    audited : Audited
        Rows of two classes at least.

    Returns
    -------
    Found
        The most certain first.
    """
    features, C = audited.features, len(audited.cache.classes)
    y, heads = features.y, LeftOut(features, C)
    own, twice = np.empty(len(y), np.float32), heads.probabilities
    if len(y) * C <= _KEPT:
        kept = list(heads.probabilities())
        twice = kept.__iter__
    for rows, P in twice():
        own[rows] = P[np.arange(len(P)), y[rows]]
    thresholds = class_thresholds(own, y, C)
    thresholds[np.bincount(y, minlength=C) < LEAST] = np.inf
    likely, margin = y.copy(), np.zeros(len(y), np.float32)
    for rows, P in twice():  # n x C of them may have no room
        found = suspects(P, y[rows], thresholds)
        likely[rows], margin[rows] = found.likely, found.margin
    doubted = np.flatnonzero((likely != y) & np.isfinite(thresholds[y]))
    order = doubted[np.lexsort((own[doubted], -margin[doubted]))]

    def tell(row: int) -> Finding:
        return _label_finding(audited, row, likely, margin, own)

    return Found("label", order, tell)


def _label_finding(
    audited: Audited,
    row: int,
    likely: npt.NDArray[np.int32],
    margin: npt.NDArray[np.float32],
    own: npt.NDArray[np.float32],
) -> Finding:
    label, other = int(audited.features.y[row]), int(likely[row])
    sure = 100 * float(own[row] + margin[row])
    reason = (
        f"labelled {audited.class_name(label)} ({100 * float(own[row]):.0f} %), looks "
        f"like {audited.class_name(other)} ({sure:.0f} %)"
    )
    return audited.finding("label", row, margin[row], reason, likely=other)


def split_accuracies(audited: Audited, copies: Copies) -> list[SplitAccuracy]:
    """Measure a ridge regression head on val and test, with and without leaks.

    Parameters
    ----------
    audited : Audited
        With rows of two classes in train.
    copies : Copies
        Of them.

    Returns
    -------
    list of SplitAccuracy
        Of the splits that have images.
    """
    features, splits = audited.features, audited.splits
    C = len(audited.cache.classes)
    train = features.subset(np.flatnonzero(splits == TRAIN))
    head = fit_ridge(train, None, classes=C, spec=RidgeSpec()).head
    measured = []
    for number, name in enumerate(SPLITS):
        rows = np.flatnonzero(splits == number)
        if number == TRAIN or not len(rows):
            continue
        right = _right(head, features.subset(rows))
        clean = right[copies.leaked.partner[rows] < 0]
        accuracy, interval = _share(right)
        measured.append(
            SplitAccuracy(
                name,
                len(rows),
                accuracy,
                interval,
                len(right) - len(clean),
                *(_share(clean) if len(clean) else (None, None)),
            )
        )
    return measured


def _right(head: LinearHead, features: Features) -> npt.NDArray[np.bool_]:
    right = np.empty(len(features), np.bool_)
    C, D = head.weight.shape
    with threads_for(len(features) * C * D):
        for rows, X in features.blocks(max(1, (1 << 20) // C)):
            right[rows] = head.scores(X).argmax(axis=1) == features.y[rows]
    return right


def _share(right: npt.NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
    return float(right.mean()), wilson(int(right.sum()), len(right))
