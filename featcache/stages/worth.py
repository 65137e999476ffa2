"""What a model cost to train, and whether fine-tuning was worth it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from featcache.core.intervals import Interval
from featcache.core.text import plural
from featcache.store.artifacts import Model

Kind = Literal["fine-tuned", "from scratch", "head-only", "cached head"]

_HEAD_ONLY = "finetune-head-only"


@dataclass(frozen=True)
class ModelResult:
    """How good one of the models is on the images that all were given."""

    model: str
    data: str  # cache or folder
    accuracy: float
    accuracy_interval: Interval  # 95 %, Wilson's
    skipped: int  # images of the split that could not be used
    kind: Kind
    backbone: str
    seconds: float | None  # of a cached head those of its fit, without the extraction
    images_per_second: float | None  # through the network, in training


@dataclass(frozen=True)
class PairResult:
    """Two of the models on the same images; they are called by their letters."""

    a: str
    b: str
    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    difference: float  # accuracy of a minus that of b
    difference_interval: Interval  # 95 %, paired bootstrap
    p_value: float | None  # exact McNemar test, two-sided; None for one file twice
    adjusted_p_value: float | None  # Holm's, over all pairs
    distinguishable: bool  # adjusted p below 0.05
    smallest_visible: float | None  # difference of accuracy; None with too few images
    verdict: str  # all of this in a sentence


def kind_of(model: Model) -> Kind:
    """Tell how a model was trained.

    Parameters
    ----------
    model : Model
        Its report says how; without one, whether it carries a backbone of its own.

    Returns
    -------
    str
        ``head-only`` also where the statistics of its frozen backbone have drifted.
    """
    settings = model.report.get("settings")
    if isinstance(settings, dict) and settings.get("from_scratch") is True:
        return "from scratch"
    if model.report.get("solver") == _HEAD_ONLY:
        return "head-only"
    return "fine-tuned" if model.fine_tuned else "cached head"


def number(report: Mapping[str, Any], name: str) -> float | None:
    """Return a positive number of a report.

    Parameters
    ----------
    report : mapping
        JSON data, from whoever wrote the file.
    name : str
        Its key.

    Returns
    -------
    float or None
        None where there is none.
    """
    value = report.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < math.inf else None


def worth(models: Mapping[str, ModelResult], pairs: Sequence[PairResult]) -> str | None:
    """Say in a sentence whether fine-tuning was worth it.

    The best fine-tuned model is held against the best head, on the same backbone if
    there is one; that they were picked is what Holm's correction allows for.

    Parameters
    ----------
    models : mapping of str to ModelResult
        By their letters.
    pairs : sequence of PairResult
        All of them.

    Returns
    -------
    str or None
        What the test supports and no more; None unless there is a model of each kind.
    """
    tuned = [m for m in models if models[m].kind == "fine-tuned"]
    heads = [m for m in models if models[m].kind in ("head-only", "cached head")]
    if not tuned or not heads:
        return None
    best = max(tuned, key=lambda m: models[m].accuracy)
    alike = [m for m in heads if models[m].backbone == models[best].backbone]
    head = max(alike or heads, key=lambda m: models[m].accuracy)
    (pair,) = (p for p in pairs if {p.a, p.b} == {best, head})
    sentence = _sentence(_Side(best, models[best]), _Side(head, models[head]), pair)
    if alike:
        return sentence
    return (
        f"{sentence} (their backbones differ: {models[best].backbone} and "
        f"{models[head].backbone})"
    )


@dataclass(frozen=True)
class _Side:
    """A model, and what a sentence calls it."""

    letter: str
    result: ModelResult

    def __str__(self) -> str:
        seconds = self.result.seconds
        took = "" if seconds is None else f" in {seconds_text(seconds)}"
        return {
            "fine-tuned": f"{self.letter}, fine-tuned{took}",
            "head-only": f"the head {self.letter}, trained online{took}",
            "cached head": f"the cached head {self.letter}, fitted{took} after one "
            "extraction",
        }[self.result.kind]


def _sentence(tuned: _Side, head: _Side, pair: PairResult) -> str:
    if not pair.distinguishable:
        return (
            f"nothing here shows that fine-tuning is worth it: {tuned}, is not "
            f"distinguishable from {head}: {unseen(pair)}"
        )
    gain, (low, high) = pair.difference, pair.difference_interval
    if pair.a != tuned.letter:
        gain, low, high = -gain, -high, -low
    if gain < 0:
        return (
            f"fine-tuning hurts here: {tuned}, is {-100 * gain:.1f} points below "
            f"{head} (95 % interval: {-100 * high:.1f} to {-100 * low:.1f})"
        )
    return (
        f"fine-tuning gains {100 * gain:.1f} points here (95 % interval: "
        f"{100 * low:.1f} to {100 * high:.1f}): {tuned}, against {head}"
        f"{_times(tuned.result, head.result)}"
    )


def _times(tuned: ModelResult, head: ModelResult) -> str:
    """Return how many times the seconds it took, where both are of a whole training."""
    if head.kind == "cached head" or not (tuned.seconds and head.seconds):
        return ""
    return f", {tuned.seconds / head.seconds:.1f} times the seconds"


def unseen(pair: PairResult) -> str:
    """Say which difference a comparison could not have seen.

    Parameters
    ----------
    pair : PairResult
        That is not distinguishable.

    Returns
    -------
    str
        A clause.
    """
    n = pair.both_right + pair.only_a_right + pair.only_b_right + pair.both_wrong
    images = plural(n, "image")
    if pair.smallest_visible is None:
        return f"with {images} no difference can be seen"
    points = 100 * pair.smallest_visible
    about = f"{points:.1f}" if points < 10 else f"{points:.0f}"
    return (
        f"with {images}, of which {pair.only_a_right + pair.only_b_right} are right in "
        f"one model only, a difference under about {about} points cannot be seen"
    )


def seconds_text(seconds: float) -> str:
    """Return seconds with the digits that matter.

    Parameters
    ----------
    seconds : float
        Not negative.

    Returns
    -------
    str
        For example ``'0.08 s'`` or ``'1,210 s'``.
    """
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:,.0f} s"
