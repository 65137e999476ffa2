"""Augmentation: the tutorial's random training view of one image.

``RandomResizedCrop`` + ``RandomHorizontalFlip`` of torchvision on a Pillow image: the
same rule for the crop, the same pixels for the same crop. Only where the random
numbers come from differs: from a generator of the caller, so that a sample's crop
depends on seed, epoch and sample, not on which thread came first.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from featcache.core.view_specs import TUTORIAL, AugmentSpec
from featcache.vision.views import Pixels

SCALE, RATIO = TUTORIAL.scale, TUTORIAL.ratio
_TRIES = 10  # for a crop that fits, as torchvision


class Draw(NamedTuple):
    """One random view: which part of the image, and whether it is mirrored.

    Parameters
    ----------
    box : (int, int, int, int)
        Left, upper, right, lower, inside the image.
    mirrored : bool
        Whether left and right change places.
    """

    box: tuple[int, int, int, int]
    mirrored: bool

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        random: np.random.Generator,
        how: AugmentSpec = TUTORIAL,
    ) -> "Draw":
        """Draw a view.

        Parameters
        ----------
        size : (int, int)
            Width and height of the image, pixels.
        random : numpy.random.Generator
            Four or more numbers are drawn; equal generators give equal views.
        how : AugmentSpec
            Which boxes, and how many are mirrored.

        Returns
        -------
        Draw
            `random_box`, then whether it is mirrored.
        """
        box = random_box(*size, random, how)
        return cls(box, bool(random.random() < how.flip))


def augment(
    image: Image.Image,
    crop: int,
    random: np.random.Generator,
    how: AugmentSpec = TUTORIAL,
) -> Pixels:
    """Return a random view of an image, by Pillow.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB.
    crop : int
        Side of the result, pixels.
    random : numpy.random.Generator
        See `Draw.of`.
    how : AugmentSpec
        Which crops, and how many are mirrored.

    Returns
    -------
    ndarray of uint8, shape (crop, crop, 3)
        RGB: the box resized (bilinear, antialiased), mirrored or not.
    """
    return cut(image, crop, Draw.of(image.size, random, how))


def cut(image: Image.Image, crop: int, draw: Draw) -> Pixels:
    """Return the view of an image that was drawn, by Pillow.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB, or RGBX as `featcache.vision.words.image_of` gives it.
    crop : int
        Side of the result, pixels.
    draw : Draw
        Of an image of its size.

    Returns
    -------
    ndarray of uint8, shape (crop, crop, 3)
        RGB.
    """
    # Not resize(box=...): that lets pixels outside the box into the filter.
    view = image.crop(draw.box).convert("RGB")
    view = view.resize((crop, crop), Image.Resampling.BILINEAR)
    if draw.mirrored:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(view)


def random_box(
    width: int, height: int, random: np.random.Generator, how: AugmentSpec = TUTORIAL
) -> tuple[int, int, int, int]:
    """Draw the box of ``RandomResizedCrop``.

    Parameters
    ----------
    width, height : int
        Of the image, pixels.
    random : numpy.random.Generator
        Draws area, ratio and corner; once for most images, at most ten times.
    how : AugmentSpec
        Limits of area and ratio.

    Returns
    -------
    (int, int, int, int)
        Left, upper, right, lower, inside the image; `center_fallback` where no draw
        fits.
    """
    flattest, widest = map(math.log, how.ratio)
    for _ in range(_TRIES):
        area = width * height * random.uniform(*how.scale)
        ratio = math.exp(random.uniform(flattest, widest))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(random.integers(height - h + 1))
            left = int(random.integers(width - w + 1))
            return left, top, left + w, top + h
    return center_fallback(width, height, how)


def center_fallback(
    width: int, height: int, how: AugmentSpec = TUTORIAL
) -> tuple[int, int, int, int]:
    """Return the box of images too long for a random one: the middle.

    Parameters
    ----------
    width, height : int
        Of the image, pixels.
    how : AugmentSpec
        Limits of the ratio.

    Returns
    -------
    (int, int, int, int)
        Left, upper, right, lower: the whole shorter side, and of the longer one as
        much as the extreme ratio allows.
    """
    w = min(width, round(height * how.ratio[1]))
    h = min(height, round(width / how.ratio[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
