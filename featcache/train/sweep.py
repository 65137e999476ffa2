"""Many heads compared, the best one chosen, and what to know about the choice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featcache.core.features import Features
from featcache.core.reports import HeadRecord
from featcache.core.resources import Resources
from featcache.core.text import plural
from featcache.core.training_specs import AXES, SgdSpec, SweepSpec
from featcache.train.folds import held_out
from featcache.train.judging import selection_key
from featcache.train.sgd import Diverged, Fitted, fit_sgd_many
from featcache.train.solved import edge_note


@dataclass(frozen=True, eq=False)
class Choice:
    """The best of some heads.

    Parameters
    ----------
    spec : SgdSpec
        The chosen settings.
    fitted : Fitted
        The head that won, as fitted for the comparison.
    heads : tuple of HeadRecord
        All that were compared, best first, those that diverged last.
    notes : tuple of str
        Worth telling the user.
    """

    spec: SgdSpec
    fitted: Fitted
    heads: tuple[HeadRecord, ...]
    notes: tuple[str, ...]


def choose(
    train: Features,
    judged: Features,
    *,
    classes: int,
    spec: SweepSpec,
    resources: Resources,
) -> Choice:
    """Fit every head of a grid and choose settings and epoch.

    Parameters
    ----------
    train : Features
        X (n, D), y (n,).
    judged : Features
        What the choice is made on: highest accuracy, then lowest loss; no sample of
        train.
    classes : int
        C.
    spec : SweepSpec
        The grid.
    resources : Resources
        Memory and device.

    Returns
    -------
    Choice
        The best head.

    Raises
    ------
    TrainingError
        When every head diverges.
    """
    specs = spec.specs()
    results = fit_sgd_many(
        train, judged, classes=classes, specs=specs, resources=resources
    )
    fitted = {i: r for i, r in enumerate(results) if isinstance(r, Fitted)}
    order = sorted(
        fitted, key=lambda i: selection_key(fitted[i].best), reverse=True
    )  # sorted keeps the grid's order among equals
    lost = [r for r in results if isinstance(r, Diverged)]
    heads = [_record(specs[i], fitted[i]) for i in order]
    best = specs[order[0]]
    notes = (_lost_note(lost), *_edges(best, spec), _tie_note(heads, len(judged)))
    notes = (*notes, *fitted[order[0]].notes)
    return Choice(
        best,
        fitted[order[0]],
        (*heads, *(_record(d.spec, d) for d in lost)),
        tuple(note for note in notes if note),
    )


def split_train(
    train: Features, *, share: float, seed: int
) -> tuple[Features, Features]:
    """Hold out a stratified part of the training samples.

    Parameters
    ----------
    train : Features
        Two samples or more of every class.
    share : float
        Of each class, at least one sample.
    seed : int
        Of the choice.

    Returns
    -------
    rest, held : Features
        Copies of the rows.

    Raises
    ------
    TrainingError
        When a class has a single sample.
    """
    (held,) = held_out(train.y, holdout=share, cv=0, seed=seed)
    return train.subset(np.flatnonzero(~held)), train.subset(np.flatnonzero(held))


def _record(spec: SgdSpec, result: Fitted | Diverged) -> HeadRecord:
    settings = {name: getattr(spec, name) for name in AXES}
    if isinstance(result, Diverged):
        return HeadRecord(
            **settings,
            best_epoch=None,
            accuracy=None,
            loss=None,
            diverged=result.epoch,
        )
    best = result.best
    return HeadRecord(
        **settings,
        best_epoch=best.epoch,
        accuracy=best.val_accuracy,
        loss=best.val_loss,
    )


def _lost_note(lost: Sequence[Diverged]) -> str:
    if not lost:
        return ""
    first = lost[0]
    return (
        f"{plural(len(lost), 'head')} given up: lr {first.spec.lr:g}, weight decay "
        f"{first.spec.weight_decay:g}, standardize {first.spec.standardize}"
        f"{' and others' if len(lost) > 1 else ''}: the loss stopped being finite in "
        f"epoch {first.epoch}; try a smaller --lr"
    )


def _edges(best: SgdSpec, spec: SweepSpec) -> list[str]:
    """Return a warning for each axis whose first or last value won."""
    notes = []
    for name in ("lr", "momentum", "weight_decay", "step_size", "gamma"):
        factor = spec.lr_mult(best.standardize) if name == "lr" else 1
        grid = sorted({v * factor for v in getattr(spec, name)})
        value = getattr(best, name)
        if len(grid) >= 3 and value != 0:  # below 0 there is nothing to try
            words, option = name.replace("_", " "), f"--{name.replace('_', '-')}"
            notes.append(edge_note(words, option, value, grid))
    return notes


def _tie_note(heads: Sequence[HeadRecord], n: int) -> str:
    """Say how many heads n samples cannot tell from the best."""
    best = heads[0].accuracy or 0.0
    # One more hit and one more miss: n of n hits do not make an error of zero.
    share = (best * n + 1) / (n + 2)
    error = (share * (1 - share) / n) ** 0.5
    equal = sum((h.accuracy or 0.0) >= best - error for h in heads)
    if equal == 1:
        return ""
    return (
        f"{equal} of {len(heads)} heads are within one standard error "
        f"({100 * error:.1f} points on {plural(n, 'image')}) of the best: these images "
        "do not tell them apart"
    )
