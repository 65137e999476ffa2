"""Images that are in memory: open files, pictures and arrays, as the bytes of a file.

So they have a sha256, and go the one way that every image goes: through `decode`.
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from featcache.core.errors import DataError
from featcache.core.specs import Exif
from featcache.core.status import Status, UnusableImageError
from featcache.vision.decode import MAX_FILE_BYTES, sized

_EXPECTED = (
    "a path, a binary file, a PIL image, or a uint8 array (h, w), (h, w, 3) or "
    "(h, w, 4)"
)


def picture_bytes(picture: Image.Image, exif: Exif) -> bytes:
    """Return a Pillow image as a lossless file.

    Parameters
    ----------
    picture : PIL.Image.Image
        Of any mode; read to the end if it was opened lazily.
    exif : {"apply", "ignore"}
        Whether it is turned as its camera says, as a file would be.

    Returns
    -------
    bytes
        PGM, PPM or TIFF.

    Raises
    ------
    UnusableImageError
        When its file is damaged, or its mode is one that no file has.
    """
    try:
        upright = ImageOps.exif_transpose(picture) if exif == "apply" else picture
        if upright.mode in ("L", "RGB"):
            return array_bytes(np.asarray(upright))
        data = io.BytesIO()
        upright.save(data, "TIFF")
    except Exception as error:
        status, reason = Status.DAMAGED, f"{str(error) or type(error).__name__}"
        raise UnusableImageError(status, " ".join(reason.split())) from None
    return data.getvalue()


def array_bytes(pixels: npt.NDArray[Any]) -> bytes:
    """Return an array of pixels as a lossless file.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)
        Grey, RGB, or RGB and alpha, which is dropped.

    Returns
    -------
    bytes
        PGM or PPM.

    Raises
    ------
    DataError
        When the array is no such thing.
    """
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1] if pixels.ndim == 3 else 0
    if pixels.dtype != np.uint8 or channels not in (1, 3, 4) or not pixels.size:
        raise DataError(
            f"an array {pixels.shape} of {pixels.dtype} is no image; expected "
            f"{_EXPECTED}"
        )
    height, width = pixels.shape[:2]
    kind = 5 if channels == 1 else 6
    seen = pixels[..., :3] if channels == 4 else pixels
    return b"P%d %d %d 255\n" % (kind, width, height) + seen.tobytes()


def file_bytes(file: io.IOBase) -> bytes:
    """Return all that an open file holds.

    Parameters
    ----------
    file : binary file
        Read from its beginning, wherever it stands.

    Returns
    -------
    bytes
        As a file on disk would have them.

    Raises
    ------
    UnusableImageError
        When it cannot be read, is empty, or is above 1 GiB.
    DataError
        When it is a file of text.
    """
    try:
        file.seek(0)
        data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: it is closed
        reason = f"cannot be read: {error}"
        raise UnusableImageError(Status.UNREADABLE, reason) from None
    if not isinstance(data, bytes):
        raise DataError(f"a file of text is no image; expected {_EXPECTED}")
    return sized(data)


def image_bytes(image: object, exif: Exif) -> bytes:
    """Return an image in memory as a file: its own, or a lossless one.

    Parameters
    ----------
    image : binary file, PIL.Image.Image or array-like of uint8
        See `file_bytes`, `picture_bytes` and `array_bytes`.
    exif : {"apply", "ignore"}
        Of pictures.

    Returns
    -------
    bytes
        Equal for equal files, and for equal pixels.

    Raises
    ------
    UnusableImageError
        When it cannot be used.
    DataError
        When it is no image.
    """
    if isinstance(image, io.IOBase):
        return file_bytes(image)
    if isinstance(image, Image.Image):
        return picture_bytes(image, exif)
    if not hasattr(image, "__array__"):
        raise DataError(f"{type(image).__name__} is no image; expected {_EXPECTED}")
    return array_bytes(np.asarray(image))
