"""The backbone that a model's head belongs to: inside its file, or found again."""

import os
from typing import TYPE_CHECKING

from featcache.core.errors import ModelError
from featcache.core.progress import Progress
from featcache.core.text import shown
from featcache.stages.sources import find_weights
from featcache.store.artifacts import Model

if TYPE_CHECKING:
    from featcache.vision.backbones import Backbone


def model_backbone(
    model: Model, weights: str | os.PathLike[str] | None, progress: Progress
) -> "Backbone":
    """Return the backbone that a model's head belongs to.

    Parameters
    ----------
    model : Model
        Its own backbone is used if it has one.
    weights : str or path, optional
        Where the weights are; by default where they were when it was trained.
    progress : Progress
        Hears of a download.

    Returns
    -------
    Backbone
        With the very tensors that the model was trained on.

    Raises
    ------
    ModelError
        When the weights are not those that the head belongs to, or are given although
        the model carries its own.
    WeightsError
        When the weights cannot be found.
    """
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
