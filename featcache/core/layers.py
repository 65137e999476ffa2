"""Layers: where in a ResNet features are taken, and what comes out there."""

from typing import Literal, get_args

from featcache.core.catalog import architecture
from featcache.core.errors import SpecError
from featcache.core.finetune_spec import SHALLOWEST_FIRST
from featcache.core.text import closest

Layer = Literal["avgpool", "layer3", "layer2", "layer1", "stem"]
MapShape = tuple[int, int, int]  # (c, h, w)

LAYERS: tuple[Layer, ...] = get_args(Layer)
POOLED: Layer = "avgpool"
"""Features after global average pooling; the other layers are stages, whose maps are
kept so that the stages behind them can be trained."""

_STEM_CHANNELS = 64


def require_layer(layer: str) -> None:
    """Refuse a layer that features are not taken at.

    Parameters
    ----------
    layer : str
        As the user gave it.

    Raises
    ------
    SpecError
        Naming those there are.
    """
    if layer not in LAYERS:
        known = ", ".join(LAYERS)
        raise SpecError(
            f"unknown layer {layer!r}{closest(layer, LAYERS)} (known: {known})"
        )


def default_dtype(layer: Layer) -> Literal["float32", "float16"]:
    """Return how features are stored if nobody says otherwise.

    Parameters
    ----------
    layer : str
        One of `LAYERS`.

    Returns
    -------
    {"float32", "float16"}
        float16 of maps, which are hundreds of times larger.
    """
    return "float32" if layer == POOLED else "float16"


def stages_up_to(layer: Layer) -> tuple[str, ...]:
    """Return the stages that an image passes up to a layer.

    Parameters
    ----------
    layer : str
        One of `LAYERS`.

    Returns
    -------
    tuple of str
        The first ones of `SHALLOWEST_FIRST`.

    Examples
    --------
    >>> stages_up_to("layer1")
    ('stem', 'layer1')
    """
    if layer == POOLED:
        return SHALLOWEST_FIRST
    return SHALLOWEST_FIRST[: SHALLOWEST_FIRST.index(layer) + 1]


def unfrozen_behind(layer: Layer) -> str:
    """Return what can be trained from a layer: the first stage behind it.

    Parameters
    ----------
    layer : str
        One of `LAYERS`.

    Returns
    -------
    str
        One of `featcache.core.finetune_spec.UNFREEZE`; of features, the head.

    Examples
    --------
    >>> unfrozen_behind("layer3")
    'layer4'
    """
    behind = SHALLOWEST_FIRST[len(stages_up_to(layer)) :]
    return behind[0] if behind else "head"


def map_shape(backbone: str, layer: Layer, crop: int) -> MapShape | None:
    """Return the shape of the maps that come out of a stage.

    Parameters
    ----------
    backbone : str
        Name in the catalog.
    layer : str
        One of `LAYERS`.
    crop : int
        Side of the images, pixels.

    Returns
    -------
    tuple of int, or None
        (c, h, w); None of features.

    Raises
    ------
    SpecError
        When there is no such backbone.

    Examples
    --------
    >>> map_shape("resnet18", "layer3", 224)
    (256, 14, 14)
    """
    embed_dim = architecture(backbone).embed_dim
    if layer == POOLED:
        return None
    # Halved, rounded up: by the first convolution, by the pooling behind it, and by
    # every stage from layer2 on. Channels double with each stage.
    stage = SHALLOWEST_FIRST.index(layer)
    side = -(-crop // 2 ** (2 + max(0, stage - 1)))
    channels = embed_dim >> (4 - stage) if stage else _STEM_CHANNELS
    return channels, side, side


def row_size(backbone: str, layer: Layer, crop: int) -> int:
    """Return how many numbers one view of one image makes.

    Parameters
    ----------
    backbone : str
        Name in the catalog.
    layer : str
        One of `LAYERS`.
    crop : int
        Side of the images, pixels.

    Returns
    -------
    int
        D of features, ``c * h * w`` of maps.

    Raises
    ------
    SpecError
        When there is no such backbone.
    """
    shape = map_shape(backbone, layer, crop)
    if shape is None:
        return architecture(backbone).embed_dim
    c, h, w = shape
    return c * h * w
