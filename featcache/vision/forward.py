"""The forward pass: a batch of pixels to a batch of features."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from featcache.core.errors import DeviceError
from featcache.core.heads import Floats
from featcache.core.specs import Precision, ViewSpec
from featcache.vision.backbones import Backbone
from featcache.vision.views import normalise

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
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {name} was asked for, but torch sees {torch.cuda.device_count()} "
            "CUDA devices; pass --device cpu, or install a driver and a CUDA build of "
            "torch"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device mps was asked for, but this machine has none")
    return device


def embedder(
    backbone: Backbone, view: ViewSpec, *, device: torch.device, precision: Precision
) -> Embed:
    """Return the function that turns pixels into features.

    Parameters
    ----------
    backbone : Backbone
        Moved to the device; several threads may call the function at once.
    view : ViewSpec
        Its mean and standard deviation normalise the pixels.
    device : torch.device
        Where the network runs.
    precision : {"float32", "bfloat16"}
        Of the network's arithmetic.

    Returns
    -------
    callable
        From uint8 (b, h, w, 3) to float32 (b, D), both on the host.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    # Pixels arrive as (b, h, w, 3): seen as channels_last they need no copy, and
    # that is the layout in which oneDNN and cuDNN convolve fastest.
    backbone = backbone.to(device, dtype).to(memory_format=torch.channels_last)

    def embed(pixels: npt.NDArray[np.uint8]) -> Floats:
        with torch.inference_mode():
            images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
            features = backbone(normalise(images, view).to(dtype))
            result: Floats = features.float().cpu().numpy()
            return result

    return embed
