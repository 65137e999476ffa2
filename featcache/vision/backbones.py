"""Backbones: torchvision ResNets without their classifier, frozen."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from featcache.core.catalog import architecture
from featcache.core.layers import POOLED, Layer, row_size, stages_up_to
from featcache.vision.stages import part
from featcache.vision.weights import State, backbone_state, random_state, state_sha256


class Backbone(nn.Module):
    """Frozen feature extractor: (b, 3, h, w) float32 to (b, D) float32.

    Parameters
    ----------
    name : str
        Name in the catalog.
    state : mapping of str to tensor of float32
        The backbone's tensors, of all stages.
    layer : str
        Where features are taken; behind a stage these are its maps, flattened.

    Attributes
    ----------
    name : str
        Name in the catalog.
    layer : str
        As given.
    body : torch.nn.Module
        The network up to there; maps are not flattened yet.
    weights_sha256 : str
        Identity of the tensors.
    """

    def __init__(
        self, name: str, state: Mapping[str, Tensor], layer: Layer = POOLED
    ) -> None:
        super().__init__()
        self.name, self.layer = name, layer
        self.weights_sha256 = state_sha256(state)
        body = network_of(name, state)
        if layer != POOLED:
            body = part(body, stages_up_to(layer), pooled=False)
        self.body = body.requires_grad_(False)
        self.eval()

    def row_size(self, crop: int) -> int:
        """Return how many numbers an image makes.

        Parameters
        ----------
        crop : int
            Side of the images, pixels.

        Returns
        -------
        int
            D.
        """
        return row_size(self.name, self.layer, crop)

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode, whatever a parent module asks for.

        Parameters
        ----------
        mode : bool
            Ignored: running statistics stay as pretrained.

        Returns
        -------
        Backbone
            Itself.
        """
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of normalised images.

        Parameters
        ----------
        images : tensor, shape (b, 3, h, w)
            In the precision of the weights.

        Returns
        -------
        tensor, shape (b, D)
            After global average pooling; of maps D is ``c * h * w``.
        """
        features: Tensor = self.body(images)
        return features.flatten(1)


def network_of(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Return the torchvision network of a backbone with these weights.

    Parameters
    ----------
    name : str
        Name in the catalog.
    state : mapping of str to tensor
        The backbone's tensors, which the network shares.

    Returns
    -------
    torch.nn.Module
        A ``torchvision.models.ResNet`` whose ``fc`` is the identity, in training
        mode as torch makes it.
    """
    network = _empty_network(name)
    network.fc = nn.Identity()
    counters = {
        key: torch.zeros((), dtype=torch.int64)
        for key in network.state_dict()
        if key.endswith("num_batches_tracked")
    }
    network.load_state_dict({**counters, **state}, strict=True, assign=True)
    return network


def checked_state(name: str, state: Mapping[str, object], source: str) -> State:
    """Return the tensors of a backbone out of a state dict.

    Parameters
    ----------
    name : str
        Name in the catalog.
    state : mapping of str to object
        As read from a file.
    source : str
        Where it came from, for messages.

    Returns
    -------
    dict of str to tensor of float32
        See `featcache.vision.weights.backbone_state`.

    Raises
    ------
    WeightsError
        When the state belongs to another network.
    """
    return backbone_state(state, _empty_network(name), f"{source} is no {name}")


def random_weights(name: str, seed: int) -> State:
    """Return randomly initialised weights of a backbone.

    Parameters
    ----------
    name : str
        Name in the catalog.
    seed : int
        See `featcache.vision.weights.random_state`.

    Returns
    -------
    dict of str to tensor of float32
        Equal for equal seeds.
    """
    return random_state(_empty_network(name), seed)


def _empty_network(name: str) -> nn.Module:
    architecture(name)
    with torch.device("meta"):  # no memory and no random draw for what is replaced
        network: nn.Module = get_model(name, weights=None)
    return network
