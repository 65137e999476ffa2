"""A ResNet, or some stages, for the CPU: all fused that can be, exact to rounding.

BatchNorm is folded into the convolutions, and each convolution runs together with the
ReLU or the addition that follows it, on weights packed for the processor. These are
oneDNN's fused operations, which torch's own compiler emits. They are private to torch,
so `fuse` proves them on this machine before they are used, or says why not.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d
from torch.nn.utils.fusion import fuse_conv_bn_eval

Shape = tuple[int, int, int, int]

TOLERANCE = 1e-5  # relative to the largest feature, of float32; features promise this

_LAYOUT = torch.channels_last


class Unfusable(Exception):  # noqa: N818 - a reason, not a failure
    """There is no fused path on this machine or torch; the message says why."""


class _Convolution:
    """A convolution with its BatchNorm folded in and its weights packed.

    Parameters
    ----------
    convolution : torch.nn.Conv2d
        In evaluation mode.
    norm : torch.nn.BatchNorm2d
        What follows it.
    dtype : torch.dtype
        Of the arithmetic.
    """

    def __init__(
        self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype
    ) -> None:
        folded = fuse_conv_bn_eval(convolution, norm)
        weight = folded.weight.detach().to(dtype)
        self._weight = weight.contiguous(memory_format=_LAYOUT)
        assert folded.bias is not None  # folding makes one
        self._bias = folded.bias.detach().to(dtype)
        self._geometry: tuple[Any, Any, Any, int] = (
            list(folded.padding),
            list(folded.stride),
            list(folded.dilation),
            folded.groups,
        )

    def pack(self, shape: Shape) -> Shape:
        """Lay the weights out for inputs of this shape.

        Parameters
        ----------
        shape : tuple of int
            (b, c, h, w); other batch sizes still work, a little slower.

        Returns
        -------
        tuple of int
            (b, c', h', w') of what comes out.
        """
        (b, _, *sides), (out, _, *kernel) = shape, self._weight.shape
        padding, stride, dilation, _ = self._geometry
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(  # noqa: SLF001
            self._weight, *self._geometry, list(shape)
        )
        h, w = (
            (side + 2 * p - d * (k - 1) - 1) // s + 1
            for side, k, p, s, d in zip(
                sides, kernel, padding, stride, dilation, strict=True
            )
        )
        return b, out, h, w

    def run(self, images: Tensor, activation: str) -> Tensor:
        """Return the convolution of images, with what follows it.

        Parameters
        ----------
        images : tensor, shape (b, c, h, w)
            Any batch size.
        activation : {"none", "relu"}
            What follows.

        Returns
        -------
        tensor, shape (b, c', h', w')
            New.
        """
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001
            images, self._weight, self._bias, *self._geometry, activation, [], ""
        )
        return result

    def run_onto(self, images: Tensor, shortcut: Tensor) -> Tensor:
        """Return ReLU(convolution + shortcut), in the shortcut's memory.

        Parameters
        ----------
        images : tensor, shape (b, c, h, w)
            Input of the convolution.
        shortcut : tensor, shape (b, c', h', w')
            What is added; written over.

        Returns
        -------
        tensor, shape (b, c', h', w')
            The shortcut's memory.
        """
        result: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            shortcut,
            images,
            self._weight,
            self._bias,
            *self._geometry,
            "add",
            1.0,
            "relu",
            [],
            "",
        )
        return result


class _Block:
    """A residual block: two or three convolutions and a shortcut."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:  # noqa: ANN401
        names = [n for n in ("1", "2", "3") if hasattr(block, f"conv{n}")]
        self.convolutions = [
            _Convolution(getattr(block, f"conv{n}"), getattr(block, f"bn{n}"), dtype)
            for n in names
        ]
        down = block.downsample
        self.shortcut = None if down is None else _Convolution(down[0], down[1], dtype)

    def pack(self, shape: Shape) -> Shape:
        """Lay the weights out; return the shape of the block's output."""
        if self.shortcut is not None:
            self.shortcut.pack(shape)
        for convolution in self.convolutions:
            shape = convolution.pack(shape)
        return shape

    def run(self, images: Tensor) -> Tensor:
        """Return the block's output; may write over its input."""
        inner, shortcut = images, images
        if self.shortcut is not None:
            shortcut = self.shortcut.run(images, "none")
        *first, last = self.convolutions
        for convolution in first:
            inner = convolution.run(inner, "relu")
        return last.run_onto(inner, shortcut)


class FusedResNet:
    """A torchvision ResNet without classifier, or a part of it, fused for the CPU.

    Several threads may call it at once. It has the weights that the network had when
    it was made.

    Parameters
    ----------
    network : torch.nn.Module
        A ``torchvision.models.ResNet``, or a part that `featcache.vision.stages.split`
        gave, in evaluation mode; not changed.
    shape : tuple of int
        (b, c, h, w) of the batches to come.
    dtype : torch.dtype
        float32 or bfloat16.
    """

    def __init__(
        self,
        network: Any,  # noqa: ANN401 - its parts are reached by name
        shape: Shape,
        dtype: torch.dtype,
    ) -> None:
        self._shape, self._dtype = shape, dtype
        parts = dict(network.named_children())
        self._stem = None
        if "conv1" in parts:
            self._stem = _Convolution(parts["conv1"], parts["bn1"], dtype)
            b, c, h, w = self._stem.pack(shape)
            shape = b, c, (h - 1) // 2 + 1, (w - 1) // 2 + 1  # after the pooling
        stages = [parts[name] for name in parts if name.startswith("layer")]
        self._blocks = [_Block(block, dtype) for stage in stages for block in stage]
        for block in self._blocks:
            shape = block.pack(shape)
        self._pooled = "avgpool" in parts

    def again(self, network: nn.Module) -> "FusedResNet":
        """Return this for other weights of the same network, without a proof.

        `fuse` has proved the operations for these shapes; other numbers do not change
        which ones run. What is skipped is the comparison with the plain network, which
        takes longer than the folding and packing that are left.

        Parameters
        ----------
        network : torch.nn.Module
            As the one that was fused, in evaluation mode.

        Returns
        -------
        FusedResNet
            With the weights that the network has now.
        """
        with torch.inference_mode():
            return FusedResNet(network, self._shape, self._dtype)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of normalised images, or the maps of maps.

        Parameters
        ----------
        images : tensor, shape (b, c, h, w)
            In the dtype of the network, fastest in channels_last; not changed.

        Returns
        -------
        tensor, shape (b, D) or (b, c', h', w')
            Features where the network ends in global average pooling, else maps in
            channels_last.
        """
        maps = images.contiguous(memory_format=_LAYOUT)
        if self._stem is not None:
            maps = max_pool2d(self._stem.run(maps, "relu"), 3, stride=2, padding=1)
        elif self._blocks and self._blocks[0].shortcut is None:
            maps = maps.clone()  # the block would write over what the caller gave
        for block in self._blocks:
            maps = block.run(maps)
        return maps.mean((2, 3)) if self._pooled else maps


def fuse(network: nn.Module, shape: Shape, dtype: torch.dtype) -> FusedResNet:
    """Return the fused network, after it has proved itself on this machine.

    Parameters
    ----------
    network : torch.nn.Module
        A ``torchvision.models.ResNet`` whose ``fc`` is the identity, or a part of one
        that `featcache.vision.stages.split` gave; float32, on the CPU, in evaluation
        mode.
    shape : tuple of int
        (b, c, h, w) of the batches to come.
    dtype : torch.dtype
        float32 or bfloat16.

    Returns
    -------
    FusedResNet
        Equal to the network to `TOLERANCE` in float32; `FusedResNet.again` follows
        weights that are trained.

    Raises
    ------
    Unfusable
        With the reason.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        raise Unfusable("this torch is built without oneDNN")
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, *shape[1:], generator=generator)
    sample = sample.contiguous(memory_format=_LAYOUT)
    with torch.inference_mode():
        try:
            fused = FusedResNet(network, shape, dtype)
            found = fused(sample.to(dtype))[-1:].float()
        except (AttributeError, RuntimeError, TypeError) as error:
            reason = str(error).split("\n", 1)[0]
            raise Unfusable(f"oneDNN's fused operations fail here: {reason}") from error
        # One row tells: the last is right only if every image lies where it should.
        expected = network(sample[-1:])
    error_found = float((found - expected).abs().max() / expected.abs().max())
    allowed = TOLERANCE if dtype is torch.float32 else 0.1
    if not error_found <= allowed:
        raise Unfusable(
            f"the fused network differs from the plain one by {error_found:.1e}, "
            f"more than {allowed:g}"
        )
    return fused
