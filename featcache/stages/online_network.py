"""The online path's network: what of it is frozen, what is trained, and where."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from featcache.core.finetune_spec import FinetuneSpec
from featcache.core.heads import Floats, LinearHead
from featcache.stages.sources import WeightsSource
from featcache.store.artifacts import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from featcache.train.classifier import Classifier
    from featcache.vision.weights import State

_CHUNK = (
    8  # images at once where nothing is learned from them; see extraction's default
)


@dataclass(frozen=True, eq=False)
class OnlineNetwork:
    """A backbone and a head, of which some stages are trained.

    Parameters
    ----------
    source : WeightsSource
        Where training starts; its view is used.
    state : dict of str to tensor
        What was read there; the network takes the tensors over and changes them.
    weights_sha256 : str
        Identity of the tensors before that.
    spec : FinetuneSpec
        What is trained and how.
    start : LinearHead
        Where the head starts.
    device : torch.device
        Where the network is trained.
    cached : bool
        Whether the frozen stages' output comes from a cache.
    """

    source: WeightsSource
    state: "State"
    weights_sha256: str
    spec: FinetuneSpec
    start: LinearHead
    device: "torch.device"
    cached: bool = False

    @property
    def ahead(self) -> bool:
        """Whether the frozen stages run before the loop, each image by itself.

        On a CPU that is much faster than batch by batch inside of it. It gives the
        same only where a frozen stage's output is the image's own business: neither
        mixed with another's nor normalised by the batch's statistics.
        """
        frozen = bool(self.spec.frozen_stages)
        alone = self.spec.bn != "drift" and not self.spec.mixup
        return self.cached or (frozen and alone and self.device.type == "cpu")

    @cached_property
    def network(self) -> "nn.Module":
        """The whole torchvision network without classifier, its tensors shared."""
        from featcache.vision.backbones import network_of

        return network_of(self.source.backbone, self.state)

    @cached_property
    def prefix(self) -> "nn.Sequential":
        """The frozen stages."""
        from featcache.vision.stages import split

        return split(self.network, self.spec.frozen_stages)[0].requires_grad_(False)

    @cached_property
    def classifier(self) -> "Classifier":
        """What is trained, on its device, in the layout that is fastest."""
        import torch

        from featcache.train.classifier import Classifier
        from featcache.vision.stages import split

        inside = bool(self.spec.frozen_stages) and not self.ahead
        model = Classifier(
            split(self.network, self.spec.frozen_stages)[1],
            self.start,
            frozen=self.prefix if inside else None,
            bn=self.spec.bn,
        )
        return model.to(self.device).to(memory_format=torch.channels_last)

    @cached_property
    def run_ahead(self) -> "Callable[[Tensor], Tensor]":
        """The frozen stages as fast as the CPU runs them, to train behind."""
        return self._frozen(self.spec.precision)

    @cached_property
    def run_exactly(self) -> "Callable[[Tensor], Tensor]":
        """The frozen stages in float32, to measure with."""
        exact = self.spec.precision == "float32"
        return self.run_ahead if exact else self._frozen("float32")

    def _frozen(self, precision: str) -> "Callable[[Tensor], Tensor]":
        import torch

        from featcache.vision.fused import Unfusable, fuse

        dtype = getattr(torch, precision)
        crop = self.source.view.crop
        prefix = self.prefix.eval()
        try:
            fused = fuse(prefix, (_CHUNK, 3, crop, crop), dtype)
        except Unfusable:  # plain torch gives the same, more slowly
            return prefix
        return lambda images: fused(images.to(dtype)).float()

    def prepare(self, batch: Any) -> "Tensor":  # noqa: ANN401 - arrays or tensors
        """Return a batch as the classifier takes it.

        Parameters
        ----------
        batch : ndarray of uint8, shape (b, h, w, 3), or ndarray or tensor of floats
            Pixels; or what the frozen stages made of them, shape (b, ...).

        Returns
        -------
        tensor of float32, shape (b, ...)
            Normalised, on the device, channels_last.
        """
        import torch

        from featcache.vision.views import normalise

        pixels = batch.dtype == np.uint8
        tensor = torch.from_numpy(batch) if isinstance(batch, np.ndarray) else batch
        if self.device.type == "cuda":  # the copy then runs beside the computing
            tensor = tensor.pin_memory()
        tensor = tensor.to(self.device, non_blocking=True)
        if pixels:
            return normalise(tensor.permute(0, 3, 1, 2), self.source.view)
        tensor = tensor.float()
        if tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def scorer(self) -> "Callable[[Tensor], Tensor]":
        """Return the classifier as it is now, for measuring.

        Returns
        -------
        callable
            From prepared inputs to scores, in float32 and evaluation mode. On the CPU
            it is fused, a copy that later training does not change.
        """
        import torch

        model = self.classifier.eval()
        if self.device.type != "cpu" or self.ahead:
            return model
        fused = self._fused()
        if fused is None:
            return model
        head = self.classifier.linear_head()
        weight, bias = torch.from_numpy(head.weight), torch.from_numpy(head.bias)
        return lambda images: torch.nn.functional.linear(fused(images), weight, bias)

    def _fused(self) -> "Callable[[Tensor], Tensor] | None":
        """Return the whole backbone fused, proved the first time."""
        import torch

        from featcache.vision.fused import Unfusable, fuse

        network = self.network.eval()
        if self._proved:
            again: Callable[[Tensor], Tensor] = self._proved[0].again(network)
            return again
        crop = self.source.view.crop
        try:
            fused = fuse(network, (_CHUNK, 3, crop, crop), torch.float32)
        except Unfusable:
            return None
        self._proved.append(fused)
        return fused

    @cached_property
    def _proved(self) -> list[Any]:
        return []

    def model(self, classes: tuple[str, ...]) -> Model:
        """Return the classifier as it is, as a model file holds it.

        Parameters
        ----------
        classes : tuple of str
            Their names.

        Returns
        -------
        Model
            With the backbone's tensors if any of them were changed.
        """
        from featcache.vision.backbones import checked_state
        from featcache.vision.weights import state_sha256

        name, tuned, sha256 = self.source.backbone, None, self.weights_sha256
        if not self.spec.head_only or self.spec.bn == "drift":
            state = self.network.state_dict()
            checked = checked_state(name, state, "the fine-tuned network")
            checked = {k: v.cpu().contiguous() for k, v in checked.items()}
            sha256 = state_sha256(checked)
            tuned = {k: v.numpy() for k, v in checked.items()}
        return Model(
            head=self.classifier.linear_head(),
            classes=classes,
            view=self.source.view,
            backbone=name,
            weights_sha256=sha256,
            weights=self.source.name,
            state=tuned,
            report={},
        )


def scores_of(run: "Callable[[Tensor], Tensor]", inputs: "Tensor") -> Floats:
    """Return the scores of a batch on the host.

    Parameters
    ----------
    run : callable
        From `OnlineNetwork.scorer`.
    inputs : tensor, shape (b, ...)
        Prepared.

    Returns
    -------
    ndarray of float32, shape (b, C)
        Logits.
    """
    import torch

    with torch.no_grad():
        result: Floats = run(inputs).float().cpu().numpy()
    return result
