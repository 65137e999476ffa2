"""The solvers without epochs behind `fit_head`, and what is told of their heads."""

from dataclasses import replace

from featcache.core.features import Features
from featcache.core.knn import Head
from featcache.core.solver_specs import CentroidSpec, KnnSpec, LogRegSpec, RidgeSpec
from featcache.stages.fitting import Outcome, Splits
from featcache.stages.measuring import measure_head
from featcache.train.solved import Solved

SolverSpec = LogRegSpec | RidgeSpec | KnnSpec | CentroidSpec

NAMES: dict[type[SolverSpec], str] = {
    LogRegSpec: "logreg",
    RidgeSpec: "ridge",
    KnnSpec: "knn",
    CentroidSpec: "centroid",
}


def solve(
    train: Features, val: Features | None, *, classes: int, spec: SolverSpec
) -> Solved[Head]:
    """Fit a head with the solver that a spec is of.

    Parameters
    ----------
    train : Features
        X (n, D), y (n,), a sample of every class.
    val : Features, optional
        For the record; no solver chooses by it.
    classes : int
        C.
    spec : LogRegSpec, RidgeSpec, KnnSpec or CentroidSpec
        Which solver, and its settings.

    Returns
    -------
    Solved
        Head, record, and what was chosen on train.

    Raises
    ------
    TrainingError
        When the solver comes to no result.
    """
    match spec:
        case LogRegSpec():
            from featcache.train.logreg import fit_logreg

            return fit_logreg(train, val, classes=classes, spec=spec)
        case RidgeSpec():
            from featcache.train.ridge import fit_ridge

            return fit_ridge(train, val, classes=classes, spec=spec)
        case KnnSpec():
            from featcache.train.knn import fit_knn

            return fit_knn(train, val, classes=classes, spec=spec)
        case CentroidSpec():
            from featcache.train.centroid import fit_centroid

            return fit_centroid(train, val, classes=classes)


def fit_solved(splits: Splits, spec: SolverSpec) -> Outcome:
    """Fit a head with a solver without epochs.

    Parameters
    ----------
    splits : Splits
        The features.
    spec : LogRegSpec, RidgeSpec, KnnSpec or CentroidSpec
        Which solver, and its settings.

    Returns
    -------
    Outcome
        As of a single epoch.

    Raises
    ------
    TrainingError
        When the solver comes to no result.
    """
    classes, val = splits.classes, None
    solved = solve(splits.train, None, classes=classes, spec=spec)
    record = solved.record
    if splits.val is not None:
        val = measure_head(solved.head, splits.val, classes=classes)
        record = replace(record, val_loss=val.loss, val_accuracy=val.accuracy)
    return Outcome(
        head=solved.head,
        solver=NAMES[type(spec)],
        history=(record,),
        best_epoch=1,
        val_loss=record.val_loss,
        val_accuracy=record.val_accuracy,
        notes=solved.notes,
        settings=solved.chosen,
        told={"chosen": dict(solved.chosen)} if solved.chosen else {},
        train_accuracy=record.train_accuracy,
        val=val,
    )
