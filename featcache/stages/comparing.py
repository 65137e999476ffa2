"""`compare`: whether one model is really better than another."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.core.errors import BadImage
from featcache.core.intervals import (
    LEVEL,
    Interval,
    bootstrap_difference,
    discordant,
    mcnemar_exact,
    smallest_visible,
    wilson,
)
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import Report
from featcache.core.text import plural, shown
from featcache.stages.pairing import Named, Source, find_sources, pair, score
from featcache.stages.scoring import (
    Place,
    Scored,
    require_split,
    warn_of_fitted_on,
)
from featcache.store.artifacts import Model, open_model


@dataclass(frozen=True)
class ModelResult:
    """How good one of the two models is on the images that both were given."""

    model: str
    data: str  # cache or folder
    accuracy: float
    accuracy_interval: Interval  # 95 %, Wilson's
    skipped: int  # images of the split that could not be used


@dataclass(frozen=True, kw_only=True)
class ComparisonReport(Report):
    """Two models on the same images."""

    a: ModelResult
    b: ModelResult
    split: str
    images: int  # that both models were given
    unpaired: int  # that only one of them was given; left out
    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    difference: float  # accuracy of a minus that of b
    difference_interval: Interval  # 95 %, paired bootstrap
    p_value: float  # exact McNemar test, two-sided
    distinguishable: bool  # p below 0.05
    smallest_visible: float | None  # difference of accuracy; None below six images
    verdict: str  # all of this in a sentence
    bad_images: tuple[BadImage, ...] = ()


def compare(
    model_a: Place | Model,
    model_b: Place | Model,
    data: Source | Iterable[Source] = (),
    *,
    split: str = "val",
    device: str = "auto",
    progress: Progress = SILENT,
) -> ComparisonReport:
    """Tell whether one model is really better than another.

    Parameters
    ----------
    model_a, model_b : str, path or Model
        Model files, folders of runs, or opened models.
    data : str, path, FeatureCache, or several of them
        Caches, patterns of caches, folders, known data sets. Each model takes the
        first cache that its backbone made, else the first folder, whose features are
        then computed. Without any, the newest fitting caches in ``cache/``.
    split : {"train", "val", "test"}
        Which part.
    device : str
        ``auto``, ``cpu``, ``cuda``; for folders.
    progress : Progress
        Hears how far the work is, and of images that only one model was given.

    Returns
    -------
    ComparisonReport
        Both accuracies, their difference with its interval, McNemar's exact test.

    Raises
    ------
    CacheMismatchError
        When no data belongs to a model, or an image is not the same in both data.
    DataError
        When the split is empty, its classes are not a model's, or the two data have no
        image in common.
    ModelError
        When a fine-tuned model has no folder of images.
    """
    require_split(split)
    models = _named(model_a, "model A"), _named(model_b, "model B")
    for named in models:
        warn_of_fitted_on(named.model, split, progress)
    sources = find_sources(data, models)
    a, b = (score(m, sources, split, device=device, progress=progress) for m in models)
    paired, unpaired = pair(models, (a, b))
    if unpaired:
        progress.say(
            f"{plural(unpaired, 'image')} that only one of the models was given left "
            "out"
        )
    return _report(models, paired, split, unpaired)


def _named(model: Place | Model, name: str) -> Named:
    if isinstance(model, Model):
        return Named(model, name)
    return Named(open_model(Path(model)), shown(model))


def _report(
    models: tuple[Named, Named],
    scored: tuple[Scored, Scored],
    split: str,
    unpaired: int,
) -> ComparisonReport:
    right_a, right_b = (s.right for s in scored)
    only_a, only_b = discordant(right_a, right_b)
    n = len(right_a)
    p_value = mcnemar_exact(right_a, right_b)
    a, b = (_result(m, s) for m, s in zip(models, scored, strict=True))
    bad = {image.path: image for s in scored for image in s.bad_images}
    return ComparisonReport(
        a=a,
        b=b,
        split=split,
        images=n,
        unpaired=unpaired,
        both_right=int((right_a & right_b).sum()),
        only_a_right=only_a,
        only_b_right=only_b,
        both_wrong=n - int((right_a | right_b).sum()),
        difference=(only_a - only_b) / n,
        difference_interval=bootstrap_difference(right_a, right_b),
        p_value=p_value,
        distinguishable=p_value < 1 - LEVEL,
        smallest_visible=smallest_visible(only_a + only_b, n),
        verdict=verdict(right_a, right_b),
        bad_images=tuple(bad.values()),
    )


def _result(named: Named, scored: Scored) -> ModelResult:
    right = int(scored.right.sum())
    return ModelResult(
        model=named.name,
        data=scored.source,
        accuracy=right / len(scored.y),
        accuracy_interval=wilson(right, len(scored.y)),
        skipped=scored.skipped,
    )


def verdict(right_a: npt.NDArray[np.bool_], right_b: npt.NDArray[np.bool_]) -> str:
    """Say in a sentence what a comparison has shown.

    Parameters
    ----------
    right_a, right_b : ndarray of bool, shape (n,)
        Whether each prediction was right, n at least 1.

    Returns
    -------
    str
        Which model is better, or what difference could have been seen.
    """
    n, (only_a, only_b) = len(right_a), discordant(right_a, right_b)
    if mcnemar_exact(right_a, right_b) < 1 - LEVEL:
        better, worse = ("A", "B") if only_a > only_b else ("B", "A")
        return f"{better} is better than {worse}"
    least = smallest_visible(only_a + only_b, n)
    images = plural(n, "image")
    if least is None:
        return f"not distinguishable: with {images} no difference can be seen"
    points = f"{100 * least:.1f}" if least < 0.1 else f"{100 * least:.0f}"
    return (
        f"not distinguishable: with {images}, of which {only_a + only_b} are right in "
        f"one model only, a difference under about {points} points cannot be seen"
    )
