"""`predict`: images through backbone and head to a class name each."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featcache.core.blocks import Block, plan_blocks
from featcache.core.errors import BadImage, DataError, ModelError, NumericError
from featcache.core.heads import Floats
from featcache.core.machine import cores
from featcache.core.progress import SILENT, Progress
from featcache.core.status import Status
from featcache.core.text import listed, plural, shown
from featcache.stages.sources import find_weights
from featcache.store.artifacts import Model, open_model
from featcache.vision.walk import walk

if TYPE_CHECKING:
    from featcache.vision.backbones import Backbone
    from featcache.vision.pipeline import Extractor

_BATCH = 8


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image."""

    path: str
    label: str  # class name
    probability: float  # of that class, after the softmax


@dataclass(frozen=True)
class Predictions:
    """What the model says of several images, in the order they were given."""

    predictions: tuple[Prediction, ...]
    bad_images: tuple[BadImage, ...]  # that could not be used


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
        Image files, and folders, which are searched for images.
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
    opened = model if isinstance(model, Model) else open_model(Path(model))
    files = _files(images, progress)
    extractor = model_extractor(opened, weights, device, progress)
    features, bad = compute_features(extractor, files, opened, progress)
    good = np.flatnonzero(np.isfinite(features).all(axis=1))
    probabilities = opened.head.probabilities(features[good])
    best = probabilities.argmax(axis=1)
    return Predictions(
        tuple(
            Prediction(
                shown(files[row]),
                opened.classes[label],
                round(float(probabilities[at, label]), 6),
            )
            for at, (row, label) in enumerate(zip(good, best, strict=True))
        ),
        tuple(bad),
    )


def model_extractor(
    model: Model,
    weights: str | os.PathLike[str] | None,
    device: str,
    progress: Progress,
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
        _backbone(model, weights, progress),
        model.view,
        device=device,
        precision=model.precision,
        batch_size=_BATCH,
    )


def _backbone(
    model: Model, weights: str | os.PathLike[str] | None, progress: Progress
) -> "Backbone":
    import torch

    from featcache.vision.backbones import Backbone

    if model.state is not None:
        if weights is not None:
            raise ModelError(
                "this model carries a fine-tuned backbone of its own; leave out "
                "--weights"
            )
        tensors = {k: torch.from_numpy(v.copy()) for k, v in model.state.items()}
        return Backbone(model.backbone, tensors)
    source = find_weights(
        model.backbone, model.weights if weights is None else weights, progress=progress
    )
    backbone = Backbone(model.backbone, source.load())
    if backbone.weights_sha256 != model.weights_sha256:
        raise ModelError(
            f"the model belongs to {model.backbone} with the weights of "
            f"{shown(model.weights)} (sha256 {model.weights_sha256[:12]}...), but "
            f"{shown(source.name)} holds others "
            f"(sha256 {backbone.weights_sha256[:12]}...); pass the right ones with "
            "--weights"
        )
    return backbone


def compute_features(
    extractor: "Extractor", files: Sequence[Path], model: Model, progress: Progress
) -> tuple[Floats, list[BadImage]]:
    """Return the features of image files, without a cache.

    Parameters
    ----------
    extractor : Extractor
        See `model_extractor`.
    files : sequence of Path
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
    from featcache.vision.pipeline import run_blocks
    from featcache.vision.rows import BlockRows

    dim = model.head.embed_dim
    features = np.full((len(files), dim), np.nan, np.float32)
    reasons: dict[int, str] = {}

    def work(block: Block, alive: object) -> None:
        del alive
        rows = BlockRows.pending(block.size, dim, "float32")
        extractor.fill(rows, files[block.start : block.stop])
        finite = np.isfinite(rows.features).all(axis=1) | (rows.status != Status.OK)
        if not finite.all():
            name = shown(files[block.start + int(finite.argmin())])
            raise NumericError(f"the features of {name} are not finite")
        features[block.rows] = rows.features
        reasons.update({block.start + row: r for row, r in rows.reasons.items()})
        progress.advance(block.size)

    progress.begin("forward", len(files), unit="image")
    try:
        run_blocks(plan_blocks(len(files), _BATCH), work, min(cores(), len(files)))
    finally:
        progress.end()
    bad = [BadImage(shown(files[row]), reasons[row]) for row in sorted(reasons)]
    return features, bad


def _files(images: Iterable[str | os.PathLike[str]], progress: Progress) -> list[Path]:
    """Return the image files named, those of folders in the order of their paths."""
    files: list[Path] = []
    for given in images:
        path = Path(given)
        if path.is_dir():
            ignored: Counter[str] = Counter()
            found = walk(os.fsencode(path), b".", set(), ignored).paths.tolist()
            if ignored:
                others = listed(plural(n, kind) for kind, n in ignored.items())
                progress.say(f"{shown(path)}: ignored {others}")
            if not found:
                raise DataError(f"{shown(path)} holds no image")
            files += [path / os.fsdecode(name) for name in found]
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"no image or folder {shown(path)}")
    if not files:
        raise DataError("no image was given")
    return files
