"""`evaluate`: a model against the labels of a folder or a cache."""

import os
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path

from featcache.core.displays import NAMED, Told, some
from featcache.core.errors import BadImage
from featcache.core.intervals import Interval, bootstrap_recall, wilson
from featcache.core.metrics import measure
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import Report
from featcache.core.text import plural, shown
from featcache.stages.scoring import (
    Scored,
    is_cache,
    require_split,
    score_cache,
    score_folder,
    warn_of_fitted_on,
)
from featcache.store.artifacts import Model, open_model
from featcache.store.opening import open_cache
from featcache.store.table import FeatureTable


@dataclass(frozen=True, kw_only=True)
class EvaluationReport(Report):
    """How good a model is on one split.

    ``confusion[t][p]`` counts the images of class t that were predicted as p, in the
    order of ``classes``.
    """

    _SHOWN = (
        *("split", "images", "skipped", "accuracy", "mean_per_class_recall"),
        *("top5_accuracy", "log_loss", "ece"),
    )

    accuracy: float
    mean_per_class_recall: float
    log_loss: float  # nats
    confusion: list[list[int]]
    classes: list[str]
    split: str
    accuracy_interval: Interval  # 95 %, Wilson's
    mean_per_class_recall_interval: Interval  # 95 %, bootstrap
    top5_accuracy: float | None  # None up to five classes
    ece: float  # expected calibration error, 15 bins
    images: int  # that were used
    skipped: int  # that could not be used
    bad_images: tuple[BadImage, ...] = ()

    def _told(self) -> Told:
        yield from super()._told()
        yield "classes", some(self.classes, len(self.classes))
        mistakes = [
            (count, -true, -predicted)
            for true, row in enumerate(self.confusion)
            for predicted, count in enumerate(row)
            if count and true != predicted
        ]
        for count, true, predicted in nlargest(NAMED, mistakes):
            taken_for = self.classes[-predicted]
            yield self.classes[-true], f"{plural(count, 'image')} taken for {taken_for}"


def evaluate(
    model: str | os.PathLike[str] | Model,
    data: str | os.PathLike[str] | FeatureTable,
    *,
    split: str = "val",
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> EvaluationReport:
    """Measure a model on the images of a folder, or on the features of a cache.

    Parameters
    ----------
    model : str, path or Model
        A model file, the folder of a run, or an opened model.
    data : str, path or FeatureCache
        A folder, a known data set, a cache that the same backbone made, or a pattern
        of several such as ``cache/part-*.h5``.
    split : {"train", "val", "test"}
        Which part.
    weights : str or path, optional
        Where the backbone's weights are now; for folders only.
    device : str
        ``auto``, ``cpu``, ``cuda``.
    progress : Progress
        Hears how far the work is.

    Returns
    -------
    EvaluationReport
        Accuracy and mean per-class recall with 95 % intervals, log loss, calibration
        error, confusion matrix.

    Raises
    ------
    CacheMismatchError
        When the cache was made by another backbone, other weights or another view.
    DataError
        When the split is empty, or its classes are not the model's.
    ModelError
        When the weights found are not those that the model belongs to.
    """
    require_split(split)
    opened = model if isinstance(model, Model) else open_model(Path(model))
    if isinstance(data, FeatureTable):
        scored = score_cache(opened, data, split)
    elif is_cache(data):
        scored = score_cache(opened, open_cache(data), split)
    else:
        scored = score_folder(
            opened, data, split, weights=weights, device=device, progress=progress
        )
    warn_of_fitted_on(opened, split, progress)
    return _report(opened, scored, split)


def _report(model: Model, scored: Scored, split: str) -> EvaluationReport:
    found = measure(scored.scores, scored.y)
    images = len(scored.y)
    return EvaluationReport(
        accuracy=found.accuracy,
        mean_per_class_recall=found.mean_per_class_recall,
        log_loss=found.log_loss,
        confusion=found.confusion,
        classes=[shown(name) for name in model.classes],
        split=split,
        accuracy_interval=wilson(int(scored.right.sum()), images),
        mean_per_class_recall_interval=bootstrap_recall(found.confusion),
        top5_accuracy=found.top5_accuracy,
        ece=found.ece,
        images=images,
        skipped=scored.skipped,
        bad_images=tuple(scored.bad_images),
    )
