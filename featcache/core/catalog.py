"""The backbones that featcache knows: torchvision's ResNets and their weights.

A plain table, so that names, dimensions and views are known without importing torch;
a test holds every row against torchvision itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from featcache.core.errors import SpecError
from featcache.core.text import closest

WEIGHTS_URL = "https://download.pytorch.org/models/"

DEFAULT_BACKBONE = "resnet18"
IMAGENET = "imagenet"  # --weights imagenet: the first published weights of a backbone


@dataclass(frozen=True)
class PublishedWeights:
    """One file of pretrained ImageNet weights."""

    name: str  # torchvision's enum name
    file: str  # carries the first 8 hex digits of its sha256: NAME-XXXXXXXX.pth
    resize: int  # pixels of the shorter side in the weights' own validation view

    @property
    def url(self) -> str:
        """Where torchvision publishes the file."""
        return WEIGHTS_URL + self.file

    @property
    def sha256_prefix(self) -> str:
        """The first 8 hex digits of the file's sha256, as its name states them."""
        return self.file.rsplit("-", 1)[1].removesuffix(".pth")


@dataclass(frozen=True)
class Architecture:
    """One backbone: a network without its classifier."""

    name: str
    embed_dim: int  # D, torchvision's fc.in_features
    weights: Mapping[str, PublishedWeights]

    @property
    def default_weights(self) -> PublishedWeights:
        """What ``imagenet`` means: the first published ones."""
        return next(iter(self.weights.values()))


def _architecture(
    name: str, embed_dim: int, v1: str, v2: str = "", v1_resize: int = 256
) -> Architecture:
    published = [
        PublishedWeights("IMAGENET1K_V1", f"{name}-{v1}.pth", v1_resize),
        *([PublishedWeights("IMAGENET1K_V2", f"{name}-{v2}.pth", 232)] if v2 else []),
    ]
    return Architecture(name, embed_dim, {w.name: w for w in published})


BACKBONES: Mapping[str, Architecture] = {
    a.name: a
    for a in (
        _architecture("resnet18", 512, "f37072fd"),
        _architecture("resnet34", 512, "b627a593"),
        _architecture("resnet50", 2048, "0676ba61", "11ad3fa6"),
        _architecture("resnet101", 2048, "63fe2227", "cd907fc2"),
        _architecture("resnet152", 2048, "394f9c45", "f82ba261"),
        _architecture("resnext50_32x4d", 2048, "7cdf4587", "1a0047aa"),
        _architecture("resnext101_32x8d", 2048, "8ba56ff5", "110c445d"),
        _architecture("resnext101_64x4d", 2048, "173b62eb", v1_resize=232),
        _architecture("wide_resnet50_2", 2048, "95faca4d", "9ba9bcbe"),
        _architecture("wide_resnet101_2", 2048, "32ee1156", "d733dc28"),
    )
}


def architecture(name: str) -> Architecture:
    """Return the backbone of that name.

    Parameters
    ----------
    name : str
        torchvision's name of the network, such as ``resnet50``.

    Returns
    -------
    Architecture
        Its dimension and published weights.

    Raises
    ------
    SpecError
        When the name is unknown; the message lists the known ones.
    """
    try:
        return BACKBONES[name]
    except KeyError:
        known = ", ".join(BACKBONES)
        raise SpecError(
            f"unknown backbone {name!r}{closest(name, BACKBONES)} (known: {known})"
        ) from None
