"""The only decoder: bytes of an image file to an 8-bit RGB Pillow image.

Pixels are those of ``PIL.Image.open(file).convert("RGB")``, with three policies where
that would lose or invent data: the camera's rotation, 16-bit grey, and float pixels.
"""

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from featcache.core.errors import SpecError
from featcache.core.locations import Location
from featcache.core.specs import Exif, ViewSpec
from featcache.core.status import Status, UnusableImageError
from featcache.vision.reading import PlaceError, read_bytes
from featcache.vision.views import Pixels, render

# Pillow's own limit for a warning, here an error: 89,478,485 pixels, a quarter of a
# GiB as 24-bit RGB. It holds for the image and for the resized image, since Resize
# makes 1.3 gigapixels of a 157-byte PNG of 1x20000 pixels.
MAX_PIXELS = 1024**3 // 4 // 3
MAX_FILE_BYTES = 1 << 30

_ORIENTATION = 0x0112  # EXIF tag; values 1 to 8, 1 is upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Decoding takes 4 to 8 bytes a pixel: a worker for each core would take as much again.
_LARGE = 20_000_000  # pixels
_one_at_a_time = threading.Lock()

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_TO_RGB = ("L", "1", "P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


def read_file(place: Location) -> bytes:
    """Read an image's file, or its part of one.

    Parameters
    ----------
    place : Path or Member
        Where it lies.

    Returns
    -------
    bytes
        All of it.

    Raises
    ------
    UnusableImageError
        When it cannot be read, is empty, or is above 1 GiB.
    """
    try:
        data = read_bytes(place, MAX_FILE_BYTES + 1)
    except PlaceError as error:
        raise UnusableImageError(Status.UNREADABLE, str(error)) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnusableImageError(
            Status.UNREADABLE, f"cannot be read: {reason}"
        ) from None
    return sized(data)


def sized(data: bytes) -> bytes:
    """Return the bytes of a file of a size that an image may have.

    Parameters
    ----------
    data : bytes
        The first ``MAX_FILE_BYTES + 1`` of a file, or all.

    Returns
    -------
    bytes
        The same.

    Raises
    ------
    UnusableImageError
        When there is none, or more than 1 GiB.
    """
    if not data:
        raise UnusableImageError(Status.NOT_AN_IMAGE, "the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise UnusableImageError(Status.TOO_LARGE, "the file is above 1 GiB")
    return data


def decode_view(data: bytes, view: ViewSpec) -> Pixels:
    """Decode an image and return its view.

    Parameters
    ----------
    data : bytes
        See `decode`.
    view : ViewSpec
        See `featcache.vision.views.render`.

    Returns
    -------
    ndarray of uint8, shape (crop, crop, 3)
        RGB.

    Raises
    ------
    UnusableImageError
        With the reason, whatever the bytes are.
    """
    with opened(data, view) as image:
        return render(loaded(image, view.exif), view)


def decode(data: bytes, view: ViewSpec) -> Image.Image:
    """Decode an image to 8-bit RGB.

    Parameters
    ----------
    data : bytes
        The file, any format that Pillow reads; of several frames the first.
    view : ViewSpec
        Its EXIF policy and resized size are used.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, fully loaded, upright if the policy says so.

    Raises
    ------
    UnusableImageError
        With the reason, whatever the bytes are.
    """
    with opened(data, view) as image:
        return loaded(image, view.exif)


@contextmanager
def opened(data: bytes, view: ViewSpec) -> Iterator[Image.Image]:
    """Open an image whose pixels may then be decoded; turn what fails into a reason.

    Parameters
    ----------
    data : bytes
        See `decode`.
    view : ViewSpec
        Its resized size is checked.

    Yields
    ------
    PIL.Image.Image
        Its header is read and its size is within the limits. A large image is the only
        one in this process until the context ends.

    Raises
    ------
    UnusableImageError
        With the reason, whatever went wrong here or in the context.
    """
    refuse_truncated_loading()
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_size(*image.size, view)
            large = image.width * image.height > _LARGE
            with _one_at_a_time if large else nullcontext():
                yield image
            return
    except UnusableImageError:
        raise
    except UnidentifiedImageError:
        status, reason = Status.NOT_AN_IMAGE, "no image format that Pillow knows"
    except Image.DecompressionBombError:
        status, reason = Status.TOO_LARGE, f"more than {MAX_PIXELS:,} pixels"
    except Exception as error:
        status, reason = (
            Status.DAMAGED,
            f"damaged: {str(error) or type(error).__name__}",
        )
    raise UnusableImageError(status, " ".join(reason.split()))


def loaded(image: Image.Image, exif: Exif) -> Image.Image:
    """Decode the pixels of an opened image.

    Parameters
    ----------
    image : PIL.Image.Image
        From `opened`.
    exif : {"apply", "ignore"}
        Whether it is turned as its camera says.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    Exception
        Of Pillow; `opened` gives it a name.
    """
    image.load()
    rgb = _to_rgb(image)
    turn = turn_of(image, exif)
    return rgb if turn is None else rgb.transpose(turn)


def refuse_truncated_loading() -> None:
    """Refuse to work while Pillow is told to invent missing rows of pixels.

    Raises
    ------
    SpecError
        When ``ImageFile.LOAD_TRUNCATED_IMAGES`` is set in this process.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise SpecError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set, which fills the missing part "
            "of a truncated image with grey; set it to False before using featcache"
        )


def _check_size(width: int, height: int, view: ViewSpec) -> None:
    if width * height > MAX_PIXELS:
        raise UnusableImageError(
            Status.TOO_LARGE, f"{width}x{height} pixels, at most {MAX_PIXELS:,} allowed"
        )
    short, long = sorted((width, height))
    resized = view.resize * math.ceil(view.resize * long / short)
    if resized > MAX_PIXELS:
        raise UnusableImageError(
            Status.TOO_LARGE,
            f"{width}x{height} pixels would become {resized:,} when the shorter side "
            f"is resized to {view.resize}, at most {MAX_PIXELS:,} allowed",
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in _SIXTEEN_BIT:
        return _scale_to_8_bits(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    if image.mode in _TO_RGB:
        return image.convert("RGB")
    raise UnusableImageError(
        Status.UNSUPPORTED,
        f"pixels of mode {image.mode!r}; convert the file to 8-bit RGB or grey",
    )


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255; Pillow's own convert clips it to white."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if low < 0 or high > 0xFFFF:
        raise UnusableImageError(
            Status.UNSUPPORTED,
            f"32-bit pixels from {low} to {high}; only 0 to 65535 has a defined "
            "way to 8 bits",
        )
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def turn_of(image: Image.Image, exif: Exif) -> Image.Transpose | None:
    """Return how an image must be turned to be upright.

    Parameters
    ----------
    image : PIL.Image.Image
        From `opened`, decoded or not.
    exif : {"apply", "ignore"}
        Whether it is turned as its camera says.

    Returns
    -------
    PIL.Image.Transpose or None
        None where it stays as it is.
    """
    if exif == "ignore":
        return None
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:
        return None
    return _TURNS.get(orientation or 1)
