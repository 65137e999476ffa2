"""The forward pass: a batch of pixels to a batch of features."""

import timeit
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from featcache.core.errors import DeviceError
from featcache.core.heads import Floats
from featcache.core.specs import Precision, ViewSpec
from featcache.vision.backbones import Backbone
from featcache.vision.cuda import CudaEmbedder, batch_size_for
from featcache.vision.fused import Unfusable, fuse
from featcache.vision.views import normalise

if TYPE_CHECKING:
    from featcache.vision.nvjpeg import JpegViews

Embed = Callable[[npt.NDArray[np.uint8]], Floats]


def pick_device(name: str) -> torch.device:
    """Return the device of that name.

    Parameters
    ----------
    name : str
        ``auto`` (CUDA where there is one, else the CPU), ``cpu``, ``cuda``,
        ``cuda:1``, ``mps``.

    Returns
    -------
    torch.device
        A device that is there.

    Raises
    ------
    DeviceError
        When it is not, or the name is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(
            f"unknown device {name!r}; expected auto, cpu, cuda, cuda:0 or mps"
        ) from None
    if device.type not in ("cpu", "cuda", "mps") or (
        device.type != "cuda" and device.index
    ):
        raise DeviceError(
            f"device {name} is not supported; expected auto, cpu, cuda, cuda:0 or mps"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {name} was asked for, but torch sees {torch.cuda.device_count()} "
            "CUDA devices; pass --device cpu, or install a driver and a CUDA build of "
            "torch"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device mps was asked for, but this machine has none")
    return device


def default_batch_size(device: torch.device) -> int:
    """Return how many images suit a device at once.

    Parameters
    ----------
    device : torch.device
        See `pick_device`.

    Returns
    -------
    int
        8 on a CPU, where larger batches leave the caches; on CUDA what memory allows.
    """
    if device.type == "cuda":
        return batch_size_for(torch.cuda.mem_get_info(device)[0])
    return 8 if device.type == "cpu" else 64


@dataclass(frozen=True, eq=False)
class Embedder:
    """Turns pixels into features; several threads may call it at once.

    Parameters
    ----------
    network : callable
        From normalised images (b, 3, h, w) to features (b, D), or maps (b, c', h', w'),
        in its dtype.
    view : ViewSpec
        Its mean and standard deviation normalise the pixels.
    device : torch.device
        Where the network runs.
    dtype : torch.dtype
        Of the network's arithmetic.
    description : str
        Which implementation this is, for provenance and the curious.
    """

    network: Callable[[torch.Tensor], torch.Tensor]
    view: ViewSpec
    device: torch.device
    dtype: torch.dtype
    description: str

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Return the features of views.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (b, h, w, 3)
            RGB.

        Returns
        -------
        ndarray of float32, shape (b, D)
            On the host.
        """
        with torch.inference_mode():
            # Seen as channels_last, pixels need no copy, and that is the layout in
            # which oneDNN and cuDNN convolve fastest.
            images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
            features = self.network(normalise(images, self.view).to(self.dtype))
            result: Floats = features.float().flatten(1).cpu().numpy()
            return result


def embedder(
    backbone: Backbone,
    view: ViewSpec,
    *,
    device: torch.device,
    precision: Precision,
    batch_size: int = 8,
    expected: int = 0,
) -> Embedder | CudaEmbedder:
    """Return the fastest exact way from pixels to features on a device.

    Parameters
    ----------
    backbone : Backbone
        float32, on the CPU; moved to the device if that is another.
    view : ViewSpec
        Normalisation and crop; its decoder is made ready where that is the device's.
    device : torch.device
        Where the network runs.
    precision : {"float32", "bfloat16"}
        Of the network's arithmetic.
    batch_size : int
        Images in most of the batches to come.
    expected : int
        Images to come, for what pays in long runs only.

    Returns
    -------
    Embedder or CudaEmbedder
        Its description says what is used, and why if it is not the fastest.

    Raises
    ------
    DeviceError
        When the device has too little memory, or cannot decode as the view wants.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    device = torch.empty(0, device=device).device  # cuda becomes cuda:0
    jpegs = _jpegs(view, device)
    if device.type == "cuda":
        keep_float32_exact()
        return CudaEmbedder(
            backbone,
            view,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            expected=expected,
            jpegs=jpegs,
        )
    if device.type == "cpu":
        try:
            network = fuse(backbone.body, (batch_size, 3, view.crop, view.crop), dtype)
        except Unfusable as reason:
            description = f"plain torch, channels_last: {reason}"
        else:
            return Embedder(network, view, device, dtype, "fused oneDNN operations")
    else:
        description = "plain torch, channels_last"
    moved = backbone.to(device, dtype).to(memory_format=torch.channels_last)
    return Embedder(moved, view, device, dtype, description)


def bfloat16_gain() -> float:
    """Return how much faster than float32 this processor multiplies bfloat16.

    Returns
    -------
    float
        2 is what to hope for; below 1 on processors whose bfloat16 instruction
        begins once in two cycles, and on those that have none. Takes milliseconds.
    """
    fastest, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)  # a busy second core would decide
    try:
        for dtype in (torch.float32, torch.bfloat16):
            matrix = torch.ones(256, 256, dtype=dtype)
            product = partial(torch.mm, matrix, matrix)
            fastest[dtype] = min(timeit.repeat(product, number=1, repeat=20))
    finally:
        torch.set_num_threads(threads)
    return fastest[torch.float32] / fastest[torch.bfloat16]


def keep_float32_exact() -> None:
    """Turn TensorFloat-32 off on GPUs: float32 is promised, and it has 10 bits.

    For the whole process, as torch has it.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if hasattr(torch.backends.cudnn, "conv"):  # torch 2.9 and newer
        # Each by its name, too: torch.export refuses flags that contradict each other.
        kinds: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
        for kind in kinds:
            kind.fp32_precision = "ieee"


def _jpegs(view: ViewSpec, device: torch.device) -> "JpegViews | None":
    """Return what decodes on the device, if that is the view's decoder."""
    if view.decoder == "pillow":
        return None
    from featcache.vision.nvjpeg import jpeg_views

    return jpeg_views(view, device)
