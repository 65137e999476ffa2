"""What a model says of the labelled images of a folder or a cache."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.core.errors import BadImage, CacheMismatchError, DataError, ModelError
from featcache.core.fingerprint import differences
from featcache.core.heads import Floats
from featcache.core.locations import Location
from featcache.core.manifest import SPLITS
from featcache.core.metrics import Labels
from featcache.core.progress import Progress
from featcache.core.text import listed, shown
from featcache.stages.datasets import data_source
from featcache.stages.prediction import compute_features, model_extractor
from featcache.store.artifacts import Model
from featcache.store.opening import is_pattern
from featcache.store.table import FeatureTable
from featcache.vision.sources.opening import is_no_folder

Place = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of the n usable images of a split.

    Parameters
    ----------
    source : str
        Cache or folder; for messages.
    scores : ndarray of float32, shape (n, C)
        In the order of the model's classes.
    y : ndarray of int32, shape (n,)
        The model's labels.
    paths : ndarray of bytes, shape (n,)
        Relative to the data folder.
    digests : ndarray of uint8, shape (n, 32), optional
        sha256 of each image; None where the images were read from a folder.
    places : list of Path or Member, optional
        Where each image lies; None where the features were in a cache.
    address : str, optional
        Of the folder or other source that the images were read from.
    skipped : int
        Images of the split that could not be used.
    bad_images : list of BadImage
        These, where they were read from a folder.
    """

    source: str
    scores: Floats
    y: Labels
    paths: npt.NDArray[np.bytes_]
    digests: npt.NDArray[np.uint8] | None
    places: list[Location] | None
    skipped: int
    bad_images: list[BadImage]
    address: str | None = None

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each image is predicted as what it is, (n,)."""
        right: npt.NDArray[np.bool_] = self.scores.argmax(axis=1) == self.y
        return right


def warn_of_fitted_on(model: Model, split: str, progress: Progress) -> None:
    """Warn when a model is measured on what it was fitted on.

    Parameters
    ----------
    model : Model
        Its report says on what.
    split : {"train", "val", "test"}
        What is measured.
    progress : Progress
        Hears the warning.
    """
    fitted_on = str(model.report.get("fitted_on") or "train")
    if split != "train" and split in fitted_on.split():
        progress.say(
            f"warning: the model was fitted on {fitted_on}: its accuracy on {split} "
            "promises too much"
        )


def require_split(split: str) -> None:
    """Refuse a name that is none of a split.

    Parameters
    ----------
    split : str
        As the user gave it.

    Raises
    ------
    DataError
        Naming those there are.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; expected {', '.join(SPLITS)}")


def is_cache(data: Place) -> bool:
    """Tell whether a place is a cache, or a pattern of several.

    Parameters
    ----------
    data : str or path
        As the user gave it.

    Returns
    -------
    bool
        False for folders, lists, shards, tables and names of data sets.
    """
    if is_no_folder(data):
        return False
    return Path(data).is_file() or is_pattern(data)


def score_cache(model: Model, cache: FeatureTable, split: str) -> Scored:
    """Score the features of a cache.

    Parameters
    ----------
    model : Model
        Of the same backbone, weights, view and precision.
    cache : FeatureTable
        One file, or several as one.
    split : {"train", "val", "test"}
        Which part.

    Returns
    -------
    Scored
        One row for every usable image.

    Raises
    ------
    CacheMismatchError
        When the cache was made by another backbone, other weights or another view.
    DataError
        When the split is empty, or its classes are not the model's.
    """
    require_same_backbone(model, cache)
    labels = _labels_of(model, cache.classes, shown(cache.path))
    found = cache.features(split)
    _require_some(len(found), split)
    rows = found.sample_index
    return Scored(
        source=shown(cache.path),
        scores=model.head.scores(found.X),
        y=labels[found.y],
        paths=cache.paths[rows],
        digests=cache.columns["digests"][rows],
        places=None,
        skipped=int((cache.splits == SPLITS.index(split)).sum()) - len(found),
        bad_images=[],
    )


def score_folder(
    model: Model,
    data: Place,
    split: str,
    *,
    weights: Place | None,
    device: str,
    progress: Progress,
) -> Scored:
    """Score the images of a folder: backbone and head.

    Parameters
    ----------
    model : Model
        Its own backbone is used if it has one.
    data : str or path
        A folder, or a known data set.
    split : {"train", "val", "test"}
        Which part.
    weights : str or path, optional
        Where the backbone's weights are now.
    device : str
        Where the network runs.
    progress : Progress
        Hears how far the work is.

    Returns
    -------
    Scored
        One row for every usable image.

    Raises
    ------
    DataError
        When the split is empty, or its classes are not the model's.
    ModelError
        When the weights found are not those that the model belongs to.
    """
    extractor = model_extractor(model, weights, device, progress)
    source = data_source(data, progress=progress)
    manifest = source.scan()
    labels = _labels_of(model, manifest.classes, shown(source.address))
    rows = np.flatnonzero(manifest.splits == SPLITS.index(split))
    if not len(rows):
        raise DataError(
            f"{shown(source.address)} has no image in split {split}; it has "
            f"{manifest.describe()}"
        )
    files = [manifest.file(row) for row in rows.tolist()]
    X, bad = compute_features(extractor, files, model, progress)
    good = np.isfinite(X).all(axis=1)
    _require_some(int(good.sum()), split)
    return Scored(
        source=shown(source.address),
        scores=model.head.scores(X[good]),
        y=labels[manifest.labels[rows[good]]],
        paths=manifest.paths[rows[good]],
        digests=None,
        places=[files[at] for at in np.flatnonzero(good).tolist()],
        skipped=len(bad),
        bad_images=bad,
        address=source.address,
    )


def _require_some(images: int, split: str) -> None:
    if not images:
        raise DataError(f"split {split} has no usable image to evaluate on")


def mismatches(model: Model, cache: FeatureTable) -> list[tuple[str, object, object]]:
    """Return in what a cache differs from what a model takes.

    Parameters
    ----------
    model : Model
        Without a backbone of its own.
    cache : FeatureTable
        One file, or several as one.

    Returns
    -------
    list of (str, object, object)
        Field, value in the cache, value in the model; empty where they fit.
    """
    wanted, found = (
        {
            "backbone": of.backbone,
            "weights_sha256": of.weights_sha256,
            "precision": of.precision,
            "view": asdict(of.view),
        }
        for of in (model, cache.spec)
    )
    return differences(found, wanted)


def require_same_backbone(model: Model, cache: FeatureTable) -> None:
    """Refuse a cache whose features are not those that a model takes.

    Parameters
    ----------
    model : Model
        What was trained.
    cache : FeatureTable
        One file, or several as one.

    Raises
    ------
    CacheMismatchError
        Naming the first field that differs, and both values.
    ModelError
        When the model has a backbone of its own, of which no cache is made.
    """
    if model.fine_tuned:
        raise ModelError(
            "this model carries a fine-tuned backbone, so a cache of another's "
            "features says nothing about it; name the image folder instead"
        )
    for name, there, needed in mismatches(model, cache):
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
