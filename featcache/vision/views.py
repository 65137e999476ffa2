"""Views: one deterministic crop of an image, and its normalisation.

The pixels are torchvision's ``Resize`` + ``CenterCrop`` on a PIL image; the
normalisation is its ``ToTensor`` + ``Normalize``; both bit for bit.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from featcache.core.specs import ViewSpec

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]


def resized_size(width: int, height: int, shorter: int) -> tuple[int, int]:
    """Return the size after ``Resize(shorter)``.

    Parameters
    ----------
    width, height : int
        Of the image, pixels.
    shorter : int
        What its shorter side becomes.

    Returns
    -------
    (int, int)
        Width and height; the longer side is cut to an integer, as torchvision does.
    """
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def center_box(width: int, height: int, crop: int) -> tuple[int, int, int, int]:
    """Return the box of ``CenterCrop(crop)``.

    Parameters
    ----------
    width, height : int
        Of the resized image, both at least crop.
    crop : int
        Side of the square.

    Returns
    -------
    (int, int, int, int)
        Left, upper, right, lower; halves are rounded to even, as torchvision does.
    """
    top = round((height - crop) / 2.0)
    left = round((width - crop) / 2.0)
    return left, top, left + crop, top + crop


def render(image: Image.Image, view: ViewSpec) -> Pixels:
    """Return the view of an image.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB.
    view : ViewSpec
        Resize and crop.

    Returns
    -------
    ndarray of uint8, shape (crop, crop, 3)
        RGB.
    """
    size = resized_size(*image.size, view.resize)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image.crop(center_box(*image.size, view.crop)))


def normalise(images: "torch.Tensor", view: ViewSpec) -> "torch.Tensor":
    """Return images as the backbone wants them.

    Parameters
    ----------
    images : tensor of uint8, shape (b, 3, h, w)
        RGB; any memory format, which is kept.
    view : ViewSpec
        Mean and standard deviation of each channel.

    Returns
    -------
    tensor of float32, shape (b, 3, h, w)
        ``(images / 255 - mean) / std``.
    """
    import torch

    mean = torch.tensor(view.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(view.std, device=images.device).view(3, 1, 1)
    return images.to(torch.float32).div_(255).sub_(mean).div_(std)
