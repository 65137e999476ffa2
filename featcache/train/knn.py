"""Nearest neighbours: nothing is trained, the training features are the head."""

import time

import numpy as np

from featcache.core.features import Features
from featcache.core.heads import Floats, unit_rows
from featcache.core.knn import KnnHead
from featcache.core.metrics import Labels
from featcache.core.solver_specs import KnnSpec
from featcache.train.passes import judged_rows, row_blocks, threads_for
from featcache.train.solved import Solved, describe

_JUDGED = 2048  # training samples whose neighbours are sought for the report


def fit_knn(
    train: Features, val: Features | None, *, classes: int, spec: KnnSpec
) -> Solved[KnnHead]:
    """Make a head of weighted nearest neighbours.

    Parameters
    ----------
    train : Features
        X (n, D), y (n,); a copy of X in float32 becomes the head.
    val : Features, optional
        For the report.
    classes : int
        C.
    spec : KnnSpec
        Number of neighbours and temperature.

    Returns
    -------
    Solved
        The head. Its training numbers are those of leaving each sample out, of 2048
        samples at most: with itself among its neighbours every sample is right.
    """
    began = time.perf_counter()
    n, D = train.X.shape
    bank = np.empty((n, D), np.float32)
    for rows in row_blocks(n, D):
        bank[rows] = unit_rows(np.asarray(train.X[rows], np.float32))
    head = KnnHead(bank, train.y, classes, spec.k, spec.temperature)
    with threads_for(n * n * D):
        left_out = _without_itself(head) if n > 1 else None
        record = describe(head, train, val, began=began, left_out=left_out)
    return Solved(head, record)


def _without_itself(head: KnnHead) -> tuple[Floats, Labels]:
    """Return scores and labels of training samples that do not vote for themselves."""
    at = judged_rows(len(head.bank), head.classes, _JUDGED)
    similar, rows = head.neighbours(head.bank[at], head.k + 1)
    itself = rows == at[:, None]
    # Among exact copies it may be missing; then the least similar one goes.
    itself[~itself.any(axis=1), -1] = True
    shape = (len(at), rows.shape[1] - 1)
    others = similar[~itself].reshape(shape), rows[~itself].reshape(shape)
    return head.vote(*others), head.labels[at]
