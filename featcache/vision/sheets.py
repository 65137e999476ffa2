"""Sheets: many thumbnails in one JPEG file, which has one header instead of many."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from featcache.vision.views import Pixels

_GREY = 128  # of places without a picture


def middle_square(pixels: Pixels, side: int) -> Pixels:
    """Return the middle of a picture as a square.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (h, w, 3)
        RGB, of any size.
    side : int
        Of the result, pixels; smaller pictures are enlarged.

    Returns
    -------
    ndarray of uint8, shape (side, side, 3)
        RGB.
    """
    height, width = pixels.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = pixels[top : top + edge, left : left + edge]
    if edge == side:
        return square
    image = Image.fromarray(np.ascontiguousarray(square))
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def sheet_bytes(
    squares: Sequence[Pixels], columns: int, side: int, quality: int = 68
) -> bytes:
    """Return pictures as one JPEG file.

    Parameters
    ----------
    squares : sequence of ndarray of uint8, shape (side, side, 3)
        At most ``columns`` by ``columns``; by row.
    columns : int
        Pictures along each side.
    side : int
        Of each, pixels; of a multiple of 16 no two share a block of the file.
    quality : int
        From 1 to 95, as Pillow counts.

    Returns
    -------
    bytes
        Without metadata; equal for equal pictures.
    """
    sheet = np.full((columns * side, columns * side, 3), _GREY, np.uint8)
    for at, square in enumerate(squares):
        top, left = (side * place for place in divmod(at, columns))
        sheet[top : top + side, left : left + side] = square
    data = io.BytesIO()
    Image.fromarray(sheet).save(data, "JPEG", quality=quality, optimize=True)
    return data.getvalue()
