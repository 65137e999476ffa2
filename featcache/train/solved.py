"""What a solver without epochs gives."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from featcache.core.features import Features
from featcache.core.heads import Floats
from featcache.core.knn import Head
from featcache.core.metrics import Labels, accuracy, cross_entropy
from featcache.core.reports import EpochRecord

HeadT_co = TypeVar("HeadT_co", bound=Head, covariant=True)


@dataclass(frozen=True, eq=False)
class Solved(Generic[HeadT_co]):
    """A head that was computed, not trained in steps.

    Parameters
    ----------
    head : LinearHead or KnnHead
        The result.
    record : EpochRecord
        Its numbers, as those of a single epoch.
    chosen : mapping of str to float
        What was chosen on training data, such as ``chosen_lambda``; JSON data.
    notes : tuple of str
        Worth telling the user.
    """

    head: HeadT_co
    record: EpochRecord
    chosen: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def describe(
    head: Head,
    train: Features,
    val: Features | None,
    *,
    began: float,
    left_out: tuple[Floats, Labels] | None = None,
) -> EpochRecord:
    """Return a head's numbers as one epoch's.

    Parameters
    ----------
    head : Head
        What was fitted.
    train : Features
        X (n, D), y (n,).
    val : Features, optional
        For the report.
    began : float
        `time.perf_counter` when the work began.
    left_out : tuple of ndarray, optional
        Scores (m, C) of training samples that took no part in their own score, and
        their labels (m,); for a head that has learnt its samples by heart.

    Returns
    -------
    EpochRecord
        Epoch 1, with a learning rate of 0.
    """
    if left_out is None:
        loss, right = _measure(head, train)
    else:
        loss, right = cross_entropy(*left_out), accuracy(*left_out)
    val_loss, val_right = (None, None) if val is None else _measure(head, val)
    return EpochRecord(
        epoch=1,
        lr=0.0,
        train_loss=loss,
        train_accuracy=right,
        val_loss=val_loss,
        val_accuracy=val_right,
        seconds=time.perf_counter() - began,
    )


def _measure(head: Head, features: Features) -> tuple[float, float]:
    """Return log loss and accuracy; in blocks, since features may not fit in memory."""
    n, loss, right = len(features), 0.0, 0.0
    for rows, X in features.blocks():
        scores, y = head.scores(X), features.y[rows]
        loss += len(y) * cross_entropy(scores, y)
        right += len(y) * accuracy(scores, y)
    return loss / n, right / n


def edge_note(name: str, option: str, chosen: float, grid: Sequence[float]) -> str:
    """Return a warning where the best value of a grid is its first or last.

    Parameters
    ----------
    name : str
        What the values are.
    option : str
        Where the user sets them.
    chosen : float
        The best.
    grid : sequence of float
        All values that were compared, at least one, ascending.

    Returns
    -------
    str
        A line; empty where the best lies inside, or there is nothing to compare.
    """
    if len(grid) == 1 or chosen not in (grid[0], grid[-1]):
        return ""
    most, more = ("smallest", "smaller") if chosen == grid[0] else ("largest", "larger")
    return (
        f"the best {name}, {chosen:g}, is the {most} that was tried; {more} ones may "
        f"be better ({option})"
    )
