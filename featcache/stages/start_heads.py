"""The head that a training starts from: drawn from the seed, or a model's own."""

from pathlib import Path
from typing import Any

from featcache.core.catalog import architecture
from featcache.core.errors import ModelError
from featcache.core.fingerprint import differences
from featcache.core.heads import LinearHead, initial_head
from featcache.core.specs import ViewSpec
from featcache.core.text import listed, shown
from featcache.stages.recipe import Request
from featcache.stages.sources import WeightsSource
from featcache.store.artifacts import Model, open_model


def start_head(
    request: Request,
    source: WeightsSource,
    weights_sha256: str,
    classes: tuple[str, ...],
) -> LinearHead:
    """Return the head that a training starts from.

    Parameters
    ----------
    request : Request
        Names a model, or none.
    source : WeightsSource
        The backbone.
    weights_sha256 : str
        Of its tensors.
    classes : tuple of str
        Of the images, in label order.

    Returns
    -------
    LinearHead
        One row per class, in their order.

    Raises
    ------
    ModelError
        When the model's head is none for this backbone and these classes.
    """
    dim = architecture(source.backbone).embed_dim
    if request.init_head is None:
        return initial_head(len(classes), dim, seed=request.spec.seed)
    model = open_model(Path(request.init_head))
    name = shown(request.init_head)
    head = _linear(model, name)
    if model.fine_tuned:
        raise ModelError(
            f"{name} was fine-tuned, and its head belongs to the backbone that was "
            "trained with it; begin with a head of 'featcache fit-head'"
        )
    for field, there, here in differences(
        _identity(model.backbone, model.weights_sha256, model.view),
        _identity(source.backbone, weights_sha256, source.view),
    ):
        raise ModelError(
            f"the head of {name} belongs to another network: {field} is "
            f"{str(there)[:12]} there and {str(here)[:12]} here; fit a head on a "
            "cache of this backbone"
        )
    if set(model.classes) != set(classes):
        raise ModelError(
            f"the head of {name} knows {listed(map(shown, model.classes), 3)}; the "
            f"images are of {listed(map(shown, classes), 3)}"
        )
    rows = [model.classes.index(label) for label in classes]
    return LinearHead(head.weight[rows], head.bias[rows])


def _identity(backbone: str, weights_sha256: str, view: ViewSpec) -> dict[str, Any]:
    return {
        "backbone": backbone,
        "weights_sha256": weights_sha256,
        "view": view.to_json(),
    }


def _linear(model: Model, name: str) -> LinearHead:
    head = model.head
    if not isinstance(head, LinearHead):
        raise ModelError(f"{name} holds no linear head, which fine-tuning starts from")
    if head.normalize:
        raise ModelError(
            f"the head of {name} takes features of length 1 (standardize l2), which "
            "the network does not give; fit it with --standardize none or zscore"
        )
    return head
