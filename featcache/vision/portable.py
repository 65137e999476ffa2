"""A classifier as one network that runs without featcache, and as bytes of a file.

The network is torchvision's ResNet: normalised images (b, 3, crop, crop) float32 in,
scores (b, C) out, whose softmax are the probabilities.
"""

import io
import math
import warnings

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from featcache.core.errors import ModelError
from featcache.core.heads import LinearHead
from featcache.core.knn import Head, KnnHead
from featcache.core.text import size
from featcache.vision.backbones import Backbone

INPUT, OUTPUT = "images", "scores"
METADATA = "featcache.json"
"""Where in a file the text is that says what its network takes and gives."""

# What every runtime of the last years knows, and all that a ResNet needs.
_OPSET = 18
_LARGEST_ONNX = 2**31 - 2**20  # bytes of tensors: protobuf ends at 2 GiB


class UnitRows(nn.Module):
    """Every feature vector divided by its norm; zeros stay zeros."""

    def forward(self, features: Tensor) -> Tensor:
        """Return unit vectors.

        Parameters
        ----------
        features : tensor, shape (b, D)
            Any.

        Returns
        -------
        tensor, shape (b, D)
            As `featcache.core.heads.unit_rows`.
        """
        for norm in (math.inf, 2):  # the largest first: no square overflows
            lengths = torch.linalg.vector_norm(features, norm, dim=1, keepdim=True)
            features = features / torch.where(lengths == 0, 1.0, lengths)
        return features


class Votes(nn.Module):
    """Unit vectors to the logarithm of each class's share of the votes.

    Parameters
    ----------
    head : KnnHead
        Its bank becomes a constant of the network.
    """

    bank: Tensor
    labels: Tensor
    classes: Tensor

    def __init__(self, head: KnnHead) -> None:
        super().__init__()
        self.k = min(head.k, len(head.bank))
        self.temperature = head.temperature
        bank = torch.from_numpy(np.ascontiguousarray(head.bank.T))
        self.register_buffer("bank", bank)  # (D, n)
        self.register_buffer("labels", torch.from_numpy(head.labels.astype(np.int64)))
        self.register_buffer("classes", torch.arange(head.classes))

    def forward(self, units: Tensor) -> Tensor:
        """Return the scores.

        Parameters
        ----------
        units : tensor, shape (b, D)
            See `UnitRows`.

        Returns
        -------
        tensor, shape (b, C)
            As `featcache.core.knn.KnnHead.scores`.
        """
        similar, rows = (units @ self.bank).topk(self.k)
        weights = torch.softmax(similar / self.temperature, dim=1)
        mine = self.labels[rows].unsqueeze(-1) == self.classes  # (b, k, C)
        votes = (weights.unsqueeze(-1) * mine).sum(dim=1)
        return torch.log((self.k * votes + 1 / len(self.classes)) / (self.k + 1))


def portable_network(backbone: Backbone, head: Head) -> nn.Module:
    """Return a classifier as torchvision's network.

    Parameters
    ----------
    backbone : Backbone
        Of the layer ``avgpool``; taken over, not to be used afterwards.
    head : LinearHead or KnnHead
        Becomes ``fc``: a ``torch.nn.Linear``, behind a normalisation where the head
        has one, or votes.

    Returns
    -------
    torch.nn.Module
        A ``torchvision.models.ResNet`` in evaluation mode.
    """
    network = backbone.body
    network.fc = _fc(head)
    return network.requires_grad_(False).eval()


def _fc(head: Head) -> nn.Module:
    if isinstance(head, KnnHead):
        return nn.Sequential(UnitRows(), Votes(head))
    linear = _linear(head)
    return nn.Sequential(UnitRows(), linear) if head.normalize else linear


def _linear(head: LinearHead) -> nn.Linear:
    C, D = head.weight.shape
    # Made without values: torch would draw them from the process's own generator.
    linear = nn.Linear(D, C, device="meta")
    values = {"weight": head.weight, "bias": head.bias}
    state = {name: torch.tensor(value) for name, value in values.items()}
    linear.load_state_dict(state, assign=True)
    return linear


def safetensors_bytes(network: nn.Module, about: str) -> bytes:
    """Return a state dict as a ``.safetensors`` file.

    Parameters
    ----------
    network : torch.nn.Module
        See `portable_network`.
    about : str
        Goes into the file's metadata, as `METADATA`.

    Returns
    -------
    bytes
        Of the file.
    """
    return bytes(save(_state(network), {METADATA: about}))


def torch_bytes(network: nn.Module) -> bytes:
    """Return a state dict as a ``.pth`` file, which has no room for anything else.

    Parameters
    ----------
    network : torch.nn.Module
        See `portable_network`.

    Returns
    -------
    bytes
        Of the file; ``torch.load(weights_only=True)`` reads it.
    """
    file = io.BytesIO()
    torch.save(_state(network), file)
    return file.getvalue()


def pt2_bytes(network: nn.Module, crop: int, about: str) -> bytes:
    """Return a network as a ``.pt2`` file, which ``torch.export.load`` reads.

    Parameters
    ----------
    network : torch.nn.Module
        See `portable_network`.
    crop : int
        Side of the images, pixels.
    about : str
        Goes into the file as the extra file `METADATA`.

    Returns
    -------
    bytes
        Of the file; the network takes any number of images.
    """
    example = (_example(crop),)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own insides
        program = torch.export.export(network, example, dynamic_shapes=_any_number())
        torch.export.save(program, file, extra_files={METADATA: about})
    return file.getvalue()


def onnx_bytes(network: nn.Module, crop: int, about: str) -> bytes:
    """Return a network as an ``.onnx`` file.

    Parameters
    ----------
    network : torch.nn.Module
        See `portable_network`.
    crop : int
        Side of the images, pixels.
    about : str
        Goes into the file's ``metadata_props``, as `METADATA`.

    Returns
    -------
    bytes
        Of the file; the network takes any number of images.

    Raises
    ------
    ModelError
        When the tensors do not fit into one ONNX file.
    """
    length = sum(tensor.nbytes for tensor in network.state_dict().values())
    if length > _LARGEST_ONNX:
        raise ModelError(
            f"the model's tensors are {size(length)}, and one ONNX file holds 2 GiB; "
            "export it with --to pt2"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own insides
        program = torch.onnx.export(
            network,
            (_example(crop),),
            dynamo=True,
            dynamic_shapes=_any_number(),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=_OPSET,
            verbose=False,
        )
    assert program is not None  # only without dynamo
    model = program.model_proto
    model.metadata_props.add(key=METADATA, value=about)
    return bytes(model.SerializeToString())


def _state(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors, of which none drags a storage along that others share."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _example(crop: int) -> Tensor:
    """Return a batch to trace with; one image alone would be taken for a constant."""
    return torch.zeros(2, 3, crop, crop)


def _any_number() -> tuple[dict[int, object]]:
    return ({0: torch.export.Dim("batch", min=1)},)
