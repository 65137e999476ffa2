"""`predict`: images through backbone and head to a class name each."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featcache.core.blocks import Block, block_rows
from featcache.core.displays import NAMED, Displayed, Told, percent, some, worded
from featcache.core.errors import BadImage, SpecError
from featcache.core.heads import Floats
from featcache.core.locations import Location
from featcache.core.predictions import Entry, ImageFile, Prediction
from featcache.core.progress import SILENT, Progress
from featcache.core.text import shown
from featcache.stages.image_files import list_images
from featcache.stages.model_backbones import model_backbone
from featcache.stages.predictor import Predictor, stream_images
from featcache.store.artifacts import Model, open_model

if TYPE_CHECKING:
    from featcache.vision.pipeline import Extractor
    from featcache.vision.rows import BlockRows


@dataclass(frozen=True)
class Predictions(Displayed):
    """What the model says of several images, in the order they were given."""

    predictions: tuple[Prediction, ...]
    bad_images: tuple[BadImage, ...]  # that could not be used

    def _told(self) -> Told:
        labels = Counter(told.label for told in self.predictions)
        yield "images", len(self.predictions)
        yield (
            "classes",
            some((f"{k} ({n:,})" for k, n in labels.most_common()), len(labels)),
        )
        for told in self.predictions[:NAMED]:
            yield told.path, f"{told.label}, {percent(told.probability)}"
        if len(self.predictions) > NAMED:
            yield "...", f"and {len(self.predictions) - NAMED:,} more"
        yield "bad images", worded("bad_images", self.bad_images)


def predict(
    model: str | os.PathLike[str] | Model,
    images: Iterable[str | os.PathLike[str]],
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> Predictions:
    """Classify images.

    Parameters
    ----------
    model : str, path or Model
        A model file, the folder of a run, or an opened model.
    images : iterable of str or path
        Image files, patterns such as ``photos/*.jpg``, and folders, which are searched
        for images.
    weights : str or path, optional
        Where the backbone's weights are now, if not where the model was trained.
    device : str
        ``auto``, ``cpu``, ``cuda``.
    progress : Progress
        Hears how far the work is.

    Returns
    -------
    Predictions
        One for every usable image, in order, and the images that are not usable.

    Raises
    ------
    ModelError
        When the weights found are not those that the model belongs to.
    DataError
        When a path is not there or a folder holds no image.
    """
    told = list(
        iter_predictions(
            model, images, weights=weights, device=device, progress=progress
        )
    )
    return Predictions(
        tuple(t for t in told if isinstance(t, Prediction)),
        tuple(t for t in told if isinstance(t, BadImage)),
    )


def iter_predictions(
    model: str | os.PathLike[str] | Model,
    images: Iterable[str | os.PathLike[str]],
    *,
    top: int = 1,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> Iterator[Prediction | BadImage]:
    """Classify images one after the other, for folders of any size.

    The work is done on threads a little ahead of what is taken: a few hundred images
    are in memory, whatever their number. Until the last is taken, or the iterator is
    closed, torch runs on one core in each thread.

    Parameters
    ----------
    model : str, path or Model
        See `predict`.
    images : iterable of str or path
        See `predict`; listed at once, opened when their turn comes.
    top : int
        K, how many of the most probable classes each prediction has.
    weights : str or path, optional
        See `predict`.
    device : str
        See `predict`.
    progress : Progress
        Hears how far the work is.

    Returns
    -------
    iterator of Prediction and BadImage
        One for each image, in order.

    Raises
    ------
    ModelError
        When the weights found are not those that the model belongs to.
    DataError
        When a path is not there or a folder holds no image.
    SpecError
        When K is below 1.
    """
    opened = model if isinstance(model, Model) else open_model(Path(model))
    require_top(top)
    files = list_images(images, progress)
    extractor = model_extractor(opened, weights, device, progress, len(files))
    return _told(Predictor(extractor, opened, top), files, progress)


def require_top(top: int) -> None:
    """Refuse a number of classes below one.

    Parameters
    ----------
    top : int
        As the user gave it.

    Raises
    ------
    SpecError
        Naming it.
    """
    if top < 1:
        raise SpecError(f"top must be at least 1, got {top}")


def _told(
    predictor: Predictor, files: Sequence[ImageFile], progress: Progress
) -> Iterator[Prediction | BadImage]:
    progress.begin("predict", len(files), unit="image")
    try:
        for entries in predictor.stream(files):
            progress.advance(len(entries))
            yield from map(_as_told, entries)
    finally:
        progress.end()


def _as_told(entry: Entry) -> Prediction | BadImage:
    if not entry.ranked:
        return BadImage(entry.path, entry.error)
    return Prediction(entry.path, *entry.ranked[0], entry.ranked)


def model_extractor(
    model: Model,
    weights: str | os.PathLike[str] | None,
    device: str,
    progress: Progress,
    expected: int | None = None,
) -> "Extractor":
    """Return what computes the features that a model's head takes.

    Parameters
    ----------
    model : Model
        Its own backbone is used if it has one.
    weights : str or path, optional
        Where the weights are; by default where they were when it was trained.
    device : str
        Where the network runs.
    progress : Progress
        Hears of a download.
    expected : int, optional
        Images to come, for what pays in long runs only.

    Returns
    -------
    Extractor
        With the model's view and precision.

    Raises
    ------
    ModelError
        When the weights are not those that the head belongs to.
    """
    from featcache.vision.assembly import assemble

    return assemble(
        model_backbone(model, weights, progress),
        model.view,
        device=device,
        precision=model.precision,
        expected=expected,
    )


def compute_features(
    extractor: "Extractor",
    files: Sequence[Location],
    model: Model,
    progress: Progress,
) -> tuple[Floats, list[BadImage]]:
    """Return the features of image files, without a cache.

    Parameters
    ----------
    extractor : Extractor
        See `model_extractor`.
    files : sequence of Path or Member
        n images.
    model : Model
        For D.
    progress : Progress
        Hears how far the work is.

    Returns
    -------
    ndarray of float32, shape (n, D), and list of BadImage
        NaN in the rows of images that cannot be used.
    """
    dim = model.head.embed_dim
    features = np.full((len(files), dim), np.nan, np.float32)
    reasons: dict[int, str] = {}
    listed = [ImageFile(os.fspath(file), 0, 0) for file in files]

    def told(block: Block, rows: "BlockRows") -> int:
        features[block.rows] = rows.features
        reasons.update({block.start + row: r for row, r in rows.reasons.items()})
        return block.size

    progress.begin("forward", len(files), unit="image")
    try:
        for count in stream_images(
            extractor, listed, dim, block_rows(len(files)), told, places=files
        ):
            progress.advance(count)
    finally:
        progress.end()
    bad = [BadImage(shown(files[row]), reasons[row]) for row in sorted(reasons)]
    return features, bad
