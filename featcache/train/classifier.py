"""The classifier in training: backbone and head as one module, and its measures."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from featcache.core import metrics
from featcache.core.errors import TrainingError
from featcache.core.heads import LinearHead

Pixels = npt.NDArray[np.uint8]
Batch = tuple[Pixels, npt.NDArray[np.int64]]  # (b, h, w, 3) and labels (b,)
Prepare = Callable[[Pixels], Tensor]  # to (b, 3, h, w) float32 on the model's device


class Classifier(nn.Module):
    """Backbone and head: normalised images (b, 3, h, w) to scores (b, C).

    Parameters
    ----------
    backbone : torch.nn.Module
        From images to features (b, D).
    head : LinearHead
        Where the head starts; copied.
    full : bool
        Whether the backbone is trained too. If not, it is frozen and stays in
        evaluation mode, so that BatchNorm's statistics never move.
    """

    def __init__(self, backbone: nn.Module, head: LinearHead, *, full: bool) -> None:
        super().__init__()
        C, D = head.weight.shape
        self.full = full
        self.backbone = backbone.requires_grad_(full)
        # Made without values: torch would draw them from the process's own generator.
        self.head = nn.Linear(D, C, device="meta")
        start = {"weight": head.weight, "bias": head.bias}
        self.head.load_state_dict(
            {name: torch.tensor(value) for name, value in start.items()}, assign=True
        )
        self.train()

    def train(self, mode: bool = True) -> "Classifier":
        """Set training mode, of the backbone only if it is trained.

        Parameters
        ----------
        mode : bool
            False for evaluation mode.

        Returns
        -------
        Classifier
            Itself.
        """
        super().train(mode)
        self.backbone.train(mode and self.full)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of normalised images.

        Parameters
        ----------
        images : tensor of float32, shape (b, 3, h, w)
            On the model's device.

        Returns
        -------
        tensor of float32, shape (b, C)
            Before the softmax.
        """
        with torch.set_grad_enabled(self.full and torch.is_grad_enabled()):
            features = self.backbone(images)
        scores: Tensor = self.head(features)
        return scores

    @property
    def trained(self) -> nn.Module:
        """The part that training changes: all of it, or the head."""
        return self if self.full else self.head

    def linear_head(self) -> LinearHead:
        """Return the head as it is now.

        Returns
        -------
        LinearHead
            A copy on the host.
        """
        weight, bias = (p.detach().cpu().numpy().copy() for p in self.head.parameters())
        return LinearHead(weight, bias)


class Measured(NamedTuple):
    """How good a model is on some samples."""

    loss: float  # mean cross-entropy, nats
    accuracy: float


def measure(model: Classifier, batches: Iterable[Batch], prepare: Prepare) -> Measured:
    """Return loss and accuracy in evaluation mode.

    Parameters
    ----------
    model : Classifier
        Left in evaluation mode.
    batches : iterable of Batch
        At least one.
    prepare : callable
        From pixels to what the backbone takes.

    Returns
    -------
    Measured
        Over all samples.

    Raises
    ------
    TrainingError
        When a score is not finite.
    """
    model.eval()
    return measure_inputs(model, ((prepare(images), y) for images, y in batches))


def measure_inputs(
    network: nn.Module, batches: Iterable[tuple[Tensor, npt.NDArray[np.int64]]]
) -> Measured:
    """Return loss and accuracy of a network as it is on what it takes.

    Parameters
    ----------
    network : torch.nn.Module
        From inputs to scores (b, C).
    batches : iterable of (tensor (b, ...), ndarray of int64 (b,))
        Inputs and labels, at least one batch.

    Returns
    -------
    Measured
        Over all samples.

    Raises
    ------
    TrainingError
        When a score is not finite.
    """
    parts, labels = [], []
    with torch.no_grad():
        for inputs, targets in batches:
            parts.append(network(inputs).float().cpu().numpy())
            labels.append(targets.astype(np.int32))
    scores, truth = np.concatenate(parts), np.concatenate(labels)
    if not np.isfinite(scores).all():
        raise TrainingError(
            "the trained weights give scores that are not finite; try a smaller lr"
        )
    return Measured(
        metrics.cross_entropy(scores, truth), metrics.accuracy(scores, truth)
    )
