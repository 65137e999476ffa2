"""The copies in a data set: the same bytes, or features that point the same way."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featcache.core.audits import Finding
from featcache.core.duplicates import find_duplicates
from featcache.core.features import Features
from featcache.core.manifest import TRAIN
from featcache.core.near import Nearest, Pairs, Rows, near_pairs
from featcache.core.progress import Progress
from featcache.stages.audited import Audited, Found
from featcache.train.near import WORTH_COMPILING, compiled_pairs
from featcache.train.near_kernel import comparison_here


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
    copies = Copies(np.full(n, -1, np.int64), Nearest(n), Nearest(n), np.zeros(n, bool))
    for rows in _groups(audited):
        copies.first[rows[1:]] = rows[0]
        trained = rows[splits[rows] == TRAIN]
        if len(trained):
            outside = rows[splits[rows] != TRAIN]
            first = np.broadcast_to(trained[0], len(outside))
            copies.leaked.hear(outside, first, np.ones(len(outside), np.float32))
            copies.exactly[outside] = True
    search = _search(audited.features, near, progress)
    progress.begin("comparing", n, unit="image")
    try:
        for pairs in search:
            _take_up(copies, pairs, splits, digests)
    finally:
        progress.end()
    return copies


def _search(features: Features, near: float, progress: Progress) -> Iterator[Pairs]:
    """Choose who finds the near pairs: compiled code, where it works, or numpy."""
    if len(features) < WORTH_COMPILING:
        return near_pairs(features, near, progress.advance)
    compare, reason = comparison_here()
    if compare is None:
        progress.say(f"comparing with numpy, which takes ten times as long: {reason}")
        return near_pairs(features, near, progress.advance)
    return compiled_pairs(features, near, compare, progress.advance)


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


def copy_findings(audited: Audited, copies: Copies) -> list[Found]:
    """Tell of copies, each pair once, and of those that leak.

    Parameters
    ----------
    audited : Audited
        The rows.
    copies : Copies
        Of them.

    Returns
    -------
    list of Found
        Leaks, near duplicates and duplicates; the most similar of each first.
    """
    partner, every = copies.near.partner, np.arange(len(copies.first))
    # A pair that names each other is told once, of the later one.
    told = (partner >= 0) & ((partner[partner] != every) | (partner < every))
    repeated = copies.first >= 0
    exact = (copies.first, np.ones(len(every), np.float32))
    leaked = (copies.leaked.partner, copies.leaked.cosine)
    return [
        _copies(audited, "leak", leaked[0] >= 0, leaked),
        _copies(audited, "near_duplicate", told, (partner, copies.near.cosine)),
        _copies(audited, "duplicate", repeated, exact),
    ]


def _copies(
    audited: Audited,
    kind: str,
    told: npt.NDArray[np.bool_],
    nearest: tuple[Rows, npt.NDArray[np.float32]],
) -> Found:
    partner, cosine = nearest
    rows = np.flatnonzero(told)

    def tell(row: int) -> Finding:
        return _copy_finding(audited, kind, row, int(partner[row]), float(cosine[row]))

    return Found(kind, rows[np.argsort(-cosine[rows], kind="stable")], tell)


def _copy_finding(
    audited: Audited, kind: str, row: int, other: int, cosine: float
) -> Finding:
    exact = bool((audited.digests[row] == audited.digests[other]).all())
    how = "the same bytes as" if exact else f"cosine {cosine:.3f} with"
    reason = f"{how} {audited.path(other)}"
    label = int(audited.features.y[other])
    if label != audited.features.y[row]:
        reason += f", which is labelled {audited.class_name(label)}"
    return audited.finding(kind, row, cosine, reason, other=other)
