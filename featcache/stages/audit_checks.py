"""The checks of `audit`: each looks at usable rows of a cache and returns findings."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.core.audits import Finding, SplitAccuracy
from featcache.core.confident import class_thresholds, suspects
from featcache.core.duplicates import find_duplicates
from featcache.core.features import Features
from featcache.core.heads import LinearHead
from featcache.core.intervals import wilson
from featcache.core.manifest import SPLITS, TRAIN
from featcache.core.near import Nearest, Pairs, Rows, near_pairs
from featcache.core.outliers import FAR, outlier_scores
from featcache.core.progress import Progress
from featcache.core.solver_specs import RidgeSpec
from featcache.stages.audited import Audited
from featcache.train.left_out import LeftOut
from featcache.train.passes import threads_for
from featcache.train.ridge import fit_ridge

LEAST = 5  # images of a class without which a cross-validated head knows too little


@dataclass(frozen=True, eq=False)
class Copies:
    """Exact and near copies.

    Parameters
    ----------
    first : ndarray of int64, shape (n,)
        The first row with the same bytes; -1 for that row itself.
    near : Nearest
        The most similar other picture.
    leaked : Nearest
        For rows of val and test: the row of train that they repeat.
    exactly : ndarray of bool, shape (n,)
        Whether that one has the same bytes.
    """

    first: Rows
    near: Nearest
    leaked: Nearest
    exactly: npt.NDArray[np.bool_]


def find_copies(audited: Audited, near: float, progress: Progress) -> Copies:
    """Compare every row with every other one.

    Parameters
    ----------
    audited : Audited
        The rows.
    near : float
        Cosine of a near duplicate.
    progress : Progress
        Hears of each row.

    Returns
    -------
    Copies
        Of all rows.
    """
    n, splits, digests = len(audited.features), audited.splits, audited.digests
    copies = Copies(
        np.full(n, -1, np.int64), Nearest.none(n), Nearest.none(n), np.zeros(n, bool)
    )
    for rows in _groups(audited):
        copies.first[rows[1:]] = rows[0]
        trained = rows[splits[rows] == TRAIN]
        if len(trained):
            outside = rows[splits[rows] != TRAIN]
            copies.leaked.partner[outside] = trained[0]
            copies.leaked.cosine[outside] = 1
            copies.exactly[outside] = True
    progress.begin("comparing", n, unit="image")
    try:
        for pairs in near_pairs(audited.features, near, progress.advance):
            _take_up(copies, pairs, splits, digests)
    finally:
        progress.end()
    return copies


def _take_up(
    copies: Copies,
    pairs: Pairs,
    splits: npt.NDArray[np.uint8],
    digests: npt.NDArray[np.uint8],
) -> None:
    """Take up near pairs of different pictures, in both directions."""
    first, second, cosines = pairs
    other = (digests[first] != digests[second]).any(axis=1)
    rows = np.concatenate([first[other], second[other]])
    partners = np.concatenate([second[other], first[other]])
    cosines = np.concatenate([cosines[other], cosines[other]])
    copies.near.hear(rows, partners, cosines)
    leak = (splits[rows] != TRAIN) & (splits[partners] == TRAIN)
    leak &= ~copies.exactly[rows]
    copies.leaked.hear(rows[leak], partners[leak], cosines[leak])


def _groups(audited: Audited) -> Iterator[Rows]:
    """Yield the rows of each picture that stands more than once."""
    n = len(audited.features)
    found = find_duplicates(audited.digests, np.ones(n, np.uint8))
    yield from np.split(found.rows, found.starts)[1:]


def copy_findings(audited: Audited, copies: Copies) -> list[Finding]:
    """Tell of copies, each pair once, and of those that leak.

    Parameters
    ----------
    audited : Audited
        The rows.
    copies : Copies
        Of them.

    Returns
    -------
    list of Finding
        Leaks, near duplicates and duplicates; the most similar of each first.
    """
    near = copies.near
    leaks = _descending(copies.leaked)
    # A pair that names each other is told once, of the later one.
    pairs = [
        row
        for row in _descending(near)
        if near.partner[near.partner[row]] != row or near.partner[row] < row
    ]
    exact = Nearest(copies.first, np.ones(len(copies.first), np.float32))
    repeated = np.flatnonzero(copies.first >= 0).tolist()
    return [
        *(_copy_finding(audited, "leak", row, copies.leaked) for row in leaks),
        *(_copy_finding(audited, "near_duplicate", row, near) for row in pairs),
        *(_copy_finding(audited, "duplicate", row, exact) for row in repeated),
    ]


def _copy_finding(audited: Audited, kind: str, row: int, nearest: Nearest) -> Finding:
    other, cosine = int(nearest.partner[row]), float(nearest.cosine[row])
    exact = bool((audited.digests[row] == audited.digests[other]).all())
    how = "the same bytes as" if exact else f"cosine {cosine:.3f} with"
    reason = f"{how} {audited.path(other)}"
    label = int(audited.features.y[other])
    if label != audited.features.y[row]:
        reason += f", which is labelled {audited.class_name(label)}"
    return audited.finding(kind, row, cosine, reason, other=other)


def _descending(nearest: Nearest) -> list[int]:
    rows = np.flatnonzero(nearest.partner >= 0)
    order: list[int] = rows[np.argsort(-nearest.cosine[rows], kind="stable")].tolist()
    return order


def outlier_findings(audited: Audited) -> list[Finding]:
    """Tell of images far from all others of their class.

    Parameters
    ----------
    audited : Audited
        The rows.

    Returns
    -------
    list of Finding
        The farthest first.
    """
    features = audited.features
    scores = outlier_scores(features, len(audited.cache.classes))
    rows = np.flatnonzero(scores > FAR)  # not NaN
    return [
        audited.finding(
            "outlier", row, scores[row], "far from the nearest others of its class"
        )
        for row in rows[np.argsort(-scores[rows], kind="stable")].tolist()
    ]


def label_findings(audited: Audited) -> list[Finding]:
    """Tell of labels that cross-validated heads contradict with confidence.

    Classes of fewer than five images are not judged.

    Parameters
    ----------
    audited : Audited
        Rows of two classes at least.

    Returns
    -------
    list of Finding
        The most certain first.
    """
    features, C = audited.features, len(audited.cache.classes)
    y, heads = features.y, LeftOut(features, C)
    own = np.empty(len(y), np.float32)
    for rows, P in heads.probabilities():
        own[rows] = P[np.arange(len(P)), y[rows]]
    thresholds = class_thresholds(own, y, C)
    thresholds[np.bincount(y, minlength=C) < LEAST] = np.inf
    likely, margin = y.copy(), np.zeros(len(y), np.float32)
    for rows, P in heads.probabilities():  # again: n x C of them may have no room
        found = suspects(P, y[rows], thresholds)
        likely[rows], margin[rows] = found.likely, found.margin
    doubted = np.flatnonzero((likely != y) & np.isfinite(thresholds[y]))
    order = doubted[np.lexsort((own[doubted], -margin[doubted]))]
    return [_label_finding(audited, row, likely, margin, own) for row in order.tolist()]


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
