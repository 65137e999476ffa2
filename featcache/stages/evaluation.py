"""`evaluate`: a model against the labels of a folder or a cache."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featcache.core.errors import BadImage, CacheMismatchError, DataError, ModelError
from featcache.core.features import Features
from featcache.core.fingerprint import differences
from featcache.core.manifest import SPLITS, Manifest
from featcache.core.metrics import measure
from featcache.core.progress import SILENT, Progress
from featcache.core.reports import Report
from featcache.core.text import listed, shown
from featcache.stages.datasets import resolve_data
from featcache.stages.prediction import compute_features, model_extractor
from featcache.store.artifacts import Model, open_model
from featcache.store.opening import is_pattern, open_cache
from featcache.store.table import FeatureTable
from featcache.vision.scan import scan

if TYPE_CHECKING:
    from featcache.vision.pipeline import Extractor


@dataclass(frozen=True, kw_only=True)
class EvaluationReport(Report):
    """How good a model is on one split.

    ``confusion[t][p]`` counts the images of class t that were predicted as p, in the
    order of ``classes``.
    """

    accuracy: float
    mean_per_class_recall: float
    log_loss: float  # nats
    confusion: list[list[int]]
    classes: list[str]
    split: str
    images: int  # that were used
    skipped: int  # that could not be used
    bad_images: tuple[BadImage, ...] = ()


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
        Accuracy, mean per-class recall, log loss, confusion matrix.

    Raises
    ------
    CacheMismatchError
        When the cache was made by another backbone, other weights or another view.
    DataError
        When the split is empty, or its classes are not the model's.
    ModelError
        When the weights found are not those that the model belongs to.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; expected {', '.join(SPLITS)}")
    opened = model if isinstance(model, Model) else open_model(Path(model))
    bad: list[BadImage] = []
    if isinstance(data, FeatureTable) or _is_cache(data):
        cache = data if isinstance(data, FeatureTable) else open_cache(data)
        features, skipped = _cached(opened, cache, split)
    else:
        extractor = model_extractor(opened, weights, device, progress)
        manifest = scan(resolve_data(data, progress=progress))
        features, bad = _computed(opened, manifest, split, extractor, progress)
        skipped = len(bad)
    if not len(features):
        raise DataError(f"split {split} has no usable image to evaluate on")
    scores = measure(opened.head.scores(features.X), features.y)
    return EvaluationReport(
        accuracy=scores.accuracy,
        mean_per_class_recall=scores.mean_per_class_recall,
        log_loss=scores.log_loss,
        confusion=scores.confusion,
        classes=[shown(name) for name in opened.classes],
        split=split,
        images=len(features),
        skipped=skipped,
        bad_images=tuple(bad),
    )


def _is_cache(data: str | os.PathLike[str]) -> bool:
    return Path(data).is_file() or is_pattern(data)


def _cached(model: Model, cache: FeatureTable, split: str) -> tuple[Features, int]:
    """Return a split's features with the model's labels, and how many it lacks."""
    _require_same_backbone(model, cache)
    labels = _labels_of(model, cache.classes, shown(cache.path))
    found = cache.features(split)
    of_split = int((cache.splits == SPLITS.index(split)).sum())
    return replace(found, y=labels[found.y]), of_split - len(found)


def _computed(
    model: Model,
    manifest: Manifest,
    split: str,
    extractor: "Extractor",
    progress: Progress,
) -> tuple[Features, list[BadImage]]:
    labels = _labels_of(model, manifest.classes, shown(manifest.root))
    rows = np.flatnonzero(manifest.splits == SPLITS.index(split))
    if not len(rows):
        raise DataError(
            f"{shown(manifest.root)} has no image in split {split}; it has "
            f"{manifest.describe()}"
        )
    files = [manifest.file(row) for row in rows.tolist()]
    X, bad = compute_features(extractor, files, model, progress)
    good = np.isfinite(X).all(axis=1)
    y = labels[manifest.labels[rows]]
    return Features(X[good], y[good], rows[good]), bad


def _require_same_backbone(model: Model, cache: FeatureTable) -> None:
    if model.fine_tuned:
        raise ModelError(
            "this model carries a fine-tuned backbone, so a cache of another's "
            "features says nothing about it; name the image folder instead"
        )
    wanted = {
        "backbone": model.backbone,
        "weights_sha256": model.weights_sha256,
        "precision": model.precision,
        "view": asdict(model.view),
    }
    found = {
        "backbone": cache.spec.backbone,
        "weights_sha256": cache.spec.weights_sha256,
        "precision": cache.spec.precision,
        "view": asdict(cache.spec.view),
    }
    for name, there, needed in differences(found, wanted):
        raise CacheMismatchError(
            f"the model belongs to another cache than {shown(cache.path)}: {name} is "
            f"{there!r} in the cache, {needed!r} in the model"
        )


def _labels_of(
    model: Model, classes: tuple[str, ...], place: str
) -> npt.NDArray[np.int32]:
    """Return the model's label of each of the data's classes, by name."""
    unknown = [shown(name) for name in classes if name not in model.classes]
    if unknown:
        raise DataError(
            f"{place} has classes that the model does not know: {listed(unknown)}; "
            f"it knows {listed(shown(c) for c in model.classes)}"
        )
    return np.array([model.classes.index(name) for name in classes], np.int32)
