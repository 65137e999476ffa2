"""Logistic regression by scikit-learn, C chosen on held-out training data."""

import time
import warnings
from collections.abc import Sequence

import numpy as np

from featcache.core.errors import TrainingError
from featcache.core.features import Features
from featcache.core.heads import Floats, LinearHead
from featcache.core.metrics import Labels, cross_entropy
from featcache.core.solver_specs import LogRegSpec
from featcache.train.folds import Mask, held_out
from featcache.train.passes import threads_for
from featcache.train.solved import Solved, describe, edge_note
from featcache.train.standardize import fit_scaling

_PASSES = 100  # over the features, of one L-BFGS
_PATIENCE = 2  # values of C in a row that may be worse than the best


def fit_logreg(
    train: Features, val: Features | None, *, classes: int, spec: LogRegSpec
) -> Solved[LinearHead]:
    """Fit a logistic regression.

    C is the value with the lowest log loss on a stratified held-out part of train, or
    over `cv` folds; the head is then fitted on all of train. `val` is only looked at
    to report. The grid is walked from small to large C, each fit going on from the
    last one's weights, and left where two values in a row are worse than the best:
    held-out loss falls and then rises along C.

    With ``standardize="zscore"`` each feature is scaled to mean 0 and variance 1 on the
    part that is fitted, and the scaling is then folded into the weights, so that the
    head takes features as they are. L-BFGS needs a hundredth of the time for it. C then
    weighs the weights of scaled features: that is another penalty, as a feature of
    small variance may have a large weight, and another scale of C.

    Parameters
    ----------
    train : Features
        X (n, D), y (n,).
    val : Features, optional
        For the report.
    classes : int
        C, the number of classes.
    spec : LogRegSpec
        Grid of C, how it is chosen.

    Returns
    -------
    Solved
        ``chosen_C``, and notes of values that did not converge and of a best value on
        the edge of the grid.

    Raises
    ------
    TrainingError
        When there is one class only, a class is too small to hold a part out, or
        L-BFGS does not converge.
    """
    began = time.perf_counter()
    if classes < 2:
        raise TrainingError("logistic regression needs at least two classes, got 1")
    X, y = np.asarray(train.X, np.float32), train.y
    with threads_for(_PASSES * X.size * classes):
        chosen, notes = _choose(X, y, classes, spec)
        head = _Path(X, y, classes, spec).fit(chosen)
    if head is None:
        raise TrainingError(
            f"logistic regression with C = {chosen:g} did not converge in "
            f"{spec.max_iter} iterations; try a smaller C or more iterations"
        )
    record = describe(head, train, val, began=began)
    return Solved(head, record, {"chosen_C": chosen}, notes)


def _choose(
    X: Floats, y: Labels, classes: int, spec: LogRegSpec
) -> tuple[float, tuple[str, ...]]:
    """Return the C of the lowest held-out log loss, and what to know about it."""
    grid = sorted(set(spec.C))
    if len(grid) == 1:
        return grid[0], ()
    masks = held_out(y, holdout=spec.holdout, cv=spec.cv, seed=spec.seed)
    paths = [_Path(X[~held], y[~held], classes, spec) for held in masks]
    losses: dict[float, float] = {}
    lost = ""
    for C in grid:
        loss = _loss(paths, masks, X, y, C)
        if loss is None:  # larger values are harder still
            more = " and above" if grid[-1] > C else ""
            lost = (
                f"did not converge in {spec.max_iter} iterations, left out: "
                f"C = {C:g}{more}"
            )
            break
        losses[C] = loss
        if min(list(losses.values())[-_PATIENCE:]) > min(losses.values()):
            break
    if not losses:
        raise TrainingError(
            f"logistic regression converged for no C in {spec.max_iter} iterations; "
            "give smaller values of C or more iterations"
        )
    chosen = min(losses, key=losses.__getitem__)
    edge = edge_note("C", "--C", chosen, grid)
    return chosen, tuple(note for note in (lost, edge) if note)


def _loss(
    paths: "Sequence[_Path]", masks: Sequence[Mask], X: Floats, y: Labels, C: float
) -> float | None:
    """Return the log loss of all that is held out; None if a fit did not converge."""
    total, count = 0.0, 0
    for path, held in zip(paths, masks, strict=True):
        head = path.fit(C)
        if head is None:
            return None
        number = int(held.sum())
        total += number * cross_entropy(head.scores(X[held]), y[held])
        count += number
    return total / count


class _Path:
    """Fits to one part of train; each goes on from the weights of the last."""

    def __init__(self, X: Floats, y: Labels, classes: int, spec: LogRegSpec) -> None:
        from sklearn.linear_model import LogisticRegression

        self.classes, self.y = classes, y
        self.scaling = fit_scaling(X, spec.standardize)
        self.X = self.scaling(X)
        self.model = LogisticRegression(max_iter=spec.max_iter, warm_start=True)

    def fit(self, C: float) -> LinearHead | None:
        """Return the head for features as they are; None without convergence."""
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                self.model.set_params(C=C).fit(self.X, self.y)
            except ConvergenceWarning:
                return None
        head = _as_head(self.model.coef_, self.model.intercept_, self.classes)
        return self.scaling.export(head)


def _as_head(coef: Floats, intercept: Floats, classes: int) -> LinearHead:
    """Return softmax weights; scikit-learn gives one row for two classes."""
    if classes == 2:
        # softmax([-z/2, z/2]) = [1 - sigmoid(z), sigmoid(z)]
        coef = np.vstack([-coef / 2, coef / 2])
        intercept = np.concatenate([-intercept / 2, intercept / 2])
    return LinearHead(coef.astype(np.float32), intercept.astype(np.float32))
