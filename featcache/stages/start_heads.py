"""The head that a training starts from: drawn from the seed, or a model's own."""

from pathlib import Path

from featcache.core.catalog import architecture
from featcache.core.errors import ModelError
from featcache.core.heads import LinearHead, initial_head
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
    for field, there, here in (
        ("backbone", model.backbone, source.backbone),
        ("weights_sha256", model.weights_sha256, weights_sha256),
        ("view", model.view, source.view),
    ):
        if there != here:
            raise ModelError(
                f"the head of {name} belongs to another network: {field} is {there} "
                f"there and {here} here; fit a head on a cache of this backbone"
            )
    if set(model.classes) != set(classes):
        raise ModelError(
            f"the head of {name} knows {listed(map(shown, model.classes), 3)}; the "
            f"images are of {listed(map(shown, classes), 3)}"
        )
    rows = [model.classes.index(label) for label in classes]
    return LinearHead(head.weight[rows], head.bias[rows])


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
