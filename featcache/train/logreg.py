"""Logistic regression by scikit-learn, C chosen on held-out training data."""

import time
import warnings

import numpy as np
import numpy.typing as npt

from featcache.core.errors import TrainingError
from featcache.core.features import Features
from featcache.core.heads import Floats, LinearHead
from featcache.core.metrics import Labels, accuracy, cross_entropy
from featcache.core.reports import EpochRecord
from featcache.core.seeds import generator
from featcache.core.specs import LogRegSpec
from featcache.core.text import listed
from featcache.train.sgd import Fitted, judge

_WORTH_THREADS = 50_000_000  # multiplications in one pass over the samples


def fit_logreg(
    train: Features, val: Features | None, *, classes: int, spec: LogRegSpec
) -> tuple[Fitted, float]:
    """Fit a logistic regression.

    C is the value with the lowest log loss on a stratified held-out part of train;
    the head is then fitted on all of train. `val` is only looked at to report.

    Parameters
    ----------
    train : Features
        X (n, D), y (n,).
    val : Features, optional
        For the report.
    classes : int
        C, the number of classes.
    spec : LogRegSpec
        Grid of C, share held out.

    Returns
    -------
    Fitted, float
        The head with a history of one epoch, and the chosen C.

    Raises
    ------
    TrainingError
        When a class is too small to hold a part out, or L-BFGS does not converge.
    """
    began = time.perf_counter()
    X, y = np.asarray(train.X, np.float32), train.y
    chosen, notes = (
        (spec.C[0], ()) if len(spec.C) == 1 else _choose(X, y, classes, spec)
    )
    head = _fit(X, y, classes, chosen, spec)
    if head is None:
        raise TrainingError(
            f"logistic regression with C = {chosen:g} did not converge in "
            f"{spec.max_iter} iterations; try a smaller C or more iterations"
        )
    scores = head.scores(X)
    val_loss, val_accuracy = judge(head, val)
    record = EpochRecord(
        epoch=1,
        lr=0.0,
        train_loss=cross_entropy(scores, y),
        train_accuracy=accuracy(scores, y),
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        seconds=time.perf_counter() - began,
    )
    return Fitted(head, (record,), 1, notes), chosen


def _choose(
    X: Floats, y: Labels, classes: int, spec: LogRegSpec
) -> tuple[float, tuple[str, ...]]:
    """Return the C of the lowest held-out log loss, and what to know about it."""
    held = _held_out(y, spec)
    fits = {C: _fit(X[~held], y[~held], classes, C, spec) for C in sorted(spec.C)}
    losses = {
        C: cross_entropy(head.scores(X[held]), y[held])
        for C, head in fits.items()
        if head is not None
    }
    if not losses:
        raise TrainingError(
            f"logistic regression converged for no C in {spec.max_iter} iterations; "
            "give smaller values of C or more iterations"
        )
    lost = [f"{C:g}" for C, head in fits.items() if head is None]
    notes = (f"did not converge, left out: C = {listed(lost)}",) if lost else ()
    return min(losses, key=losses.__getitem__), notes


def _held_out(y: Labels, spec: LogRegSpec) -> npt.NDArray[np.bool_]:
    """Return a mask (n,) of the same share of every class, one sample at least."""
    held = np.zeros(len(y), bool)
    random = generator(spec.seed, "holdout")
    for label in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == label))
        if len(rows) < 2:
            raise TrainingError(
                f"class number {label} has a single training image: none can be held "
                "out to choose C; give one value of C or add images"
            )
        held[rows[: max(1, round(spec.holdout * len(rows)))]] = True
    return held


def _fit(
    X: Floats, y: Labels, classes: int, C: float, spec: LogRegSpec
) -> LinearHead | None:
    """Return the head, or None where L-BFGS did not converge."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # Several BLAS threads on a small problem wait for each other: measured 15 times
    # longer on 195 x 512 with a busy second core.
    threads = 1 if X.size * classes < _WORTH_THREADS else None
    with warnings.catch_warnings(), threadpool_limits(threads):
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model = LogisticRegression(C=C, max_iter=spec.max_iter).fit(X, y)
        except ConvergenceWarning:
            return None
    return _as_head(model.coef_, model.intercept_, classes)


def _as_head(coef: Floats, intercept: Floats, classes: int) -> LinearHead:
    """Return softmax weights; scikit-learn gives one row for two classes."""
    if classes == 2:
        # softmax([-z/2, z/2]) = [1 - sigmoid(z), sigmoid(z)]
        coef = np.vstack([-coef / 2, coef / 2])
        intercept = np.concatenate([-intercept / 2, intercept / 2])
    return LinearHead(coef.astype(np.float32), intercept.astype(np.float32))
