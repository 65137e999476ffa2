"""The window: only those pixels of the resized image that the crop shows.

A view resizes the whole image and then throws a third of it away. Pillow resizes in two
passes, across and then down, with 8 bits in between; an output depends on few inputs,
so the rest need not be computed. ``Image.resize(box=...)`` will not do: its box is
float32, which moves the weights.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from featcache.core.specs import ViewSpec
from featcache.vision.views import Pixels, center_box, resized_size

_BILINEAR = Image.Resampling.BILINEAR
_BY_SHRINKING = int(PIL.__version__.split(".")[0]) >= 13
_ONE = 1 << 22  # Pillow's weights have 22 bits behind the point


class Geometry(NamedTuple):
    """Where the crop lies.

    Parameters
    ----------
    size : (int, int)
        Width and height of the resized image.
    corner : (int, int)
        Left and upper edge of the crop in it.
    """

    size: tuple[int, int]
    corner: tuple[int, int]

    @classmethod
    def of(cls, width: int, height: int, view: ViewSpec) -> "Geometry":
        """Return where a view's crop lies.

        Parameters
        ----------
        width, height : int
            Of the image, pixels.
        view : ViewSpec
            Resize and crop.

        Returns
        -------
        Geometry
            That of torchvision's ``Resize`` and ``CenterCrop``.
        """
        size = resized_size(width, height, view.resize)
        left, top, _, _ = center_box(*size, view.crop)
        return cls(size, (left, top))


class Taps(NamedTuple):
    """What each output of one pass is made of.

    Parameters
    ----------
    starts : ndarray of int64, shape (n,)
        The first input of each output.
    weights : ndarray of int32, shape (n, taps)
        Of the inputs from there on; 22 bits behind the point.
    """

    starts: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int32]


def taps(source: int, resized: int, first: int, count: int, step: int = 1) -> Taps:
    """Return the weights of Pillow's bilinear resize, for some of its outputs.

    Parameters
    ----------
    source, resized : int
        Length before and after.
    first, count : int
        The outputs wanted.
    step : int
        The number of taps is made a multiple of this, with weights of zero.

    Returns
    -------
    Taps
        Which end with the source, if they are not more than it has.
    """
    # As precompute_coeffs and normalize_coeffs_8bpc in Pillow's Resample.c, each
    # operation in its order: float64 decides the last of 22 bits.
    scale = source / resized
    reach = max(scale, 1.0)
    centers = (np.arange(first, first + count) + 0.5) * scale
    begin = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centers + reach + 0.5).astype(np.int64), source)
    room = math.ceil((end - begin).max() / step) * step
    starts = np.minimum(begin, max(source - room, 0))
    inputs = starts[:, None] + np.arange(room)
    values = 1.0 - np.abs((inputs - centers[:, None] + 0.5) * (1.0 / reach))
    outside = (inputs < begin[:, None]) | (inputs >= end[:, None])
    values[outside | (values < 0)] = 0
    total = np.cumsum(values, axis=1)[:, -1:]  # one after the other; np.sum is not
    return Taps(starts, (0.5 + values / total * _ONE).astype(np.int32))


def across_first(width: int, height: int) -> bool:
    """Tell whether every Pillow resizes such an image across first, then down.

    Pillow 13 goes down first where the height shrinks by more than twice as many pixels
    as the width, 12.2 where it is above a hundred times the width; the 8 bits between
    the passes make that another image.

    Parameters
    ----------
    width, height : int
        Of the image, pixels.

    Returns
    -------
    bool
        False for an image more than twice as tall as wide. With whole numbers,
        ``h - int(h * s) > 2 * (w - w * s)`` implies ``h > 2 * w``.
    """
    return height <= 2 * width


def down_first(width: int, height: int, crop: int) -> bool:
    """Tell whether this Pillow resizes a box to a square down first, then across.

    Parameters
    ----------
    width, height : int
        Of the box, pixels; `across_first`.
    crop : int
        Side of the square.

    Returns
    -------
    bool
        False in every Pillow below 13.
    """
    return _BY_SHRINKING and crop < height and height - crop > 2 * (width - crop)


def two_passes(image: Image.Image, view: ViewSpec) -> Pixels:
    """Return the view of an image, by Pillow in two passes.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB, `across_first`.
    view : ViewSpec
        Resize and crop.

    Returns
    -------
    ndarray of uint8, shape (crop, crop, 3)
        Those of `featcache.vision.views.render`.
    """
    (width, height), (left, top) = Geometry.of(*image.size, view)
    right, lower = left + view.crop, top + view.crop
    first, last = _rows(image.height, height, top, lower)
    band = image.crop((0, first, image.width, last))
    band = band.resize((width, last - first), _BILINEAR)
    # The second pass needs the image's height for its weights; crop() makes the rows
    # outside the band black, and no row of the window looks at those.
    column = band.crop((left, -first, right, image.height - first))
    column = column.resize((view.crop, height), _BILINEAR)
    return np.asarray(column.crop((0, top, view.crop, lower)))


def _rows(source: int, resized: int, top: int, lower: int) -> tuple[int, int]:
    """Return the rows of the image that rows top to lower depend on, or a few more."""
    scale = source / resized
    reach = max(scale, 1.0) + 1
    first = max(math.floor((top + 0.5) * scale - reach), 0)
    return first, min(math.ceil((lower - 0.5) * scale + reach), source)
