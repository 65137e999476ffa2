"""Thumbnails: whole images made small."""

import numpy as np
from PIL import Image

from featcache.core.specs import ViewSpec
from featcache.vision.decode import loaded, opened
from featcache.vision.views import Pixels


def thumbnail(data: bytes, view: ViewSpec, longest: int) -> Pixels:
    """Decode an image at a small size, the whole of it and in its own shape.

    Parameters
    ----------
    data : bytes
        The file; see `featcache.vision.decode.decode`.
    view : ViewSpec
        Its EXIF policy is used, and its limits.
    longest : int
        What a longer side becomes, pixels; smaller images stay as they are.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        RGB.

    Raises
    ------
    UnusableImageError
        With the reason, whatever the bytes are.
    """
    with opened(data, view) as image:
        # A JPEG file gives an eighth, a quarter or a half of its size much faster.
        image.draft(None, (2 * longest, 2 * longest))
        return small(np.asarray(loaded(image, view.exif)), longest)


def small(pixels: Pixels, longest: int) -> Pixels:
    """Return a picture whose longer side is at most so many pixels.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (h, w, 3)
        RGB.
    longest : int
        Of the result.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        Of the same shape, to a pixel; the picture itself where it is small.
    """
    height, width = pixels.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return pixels
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
