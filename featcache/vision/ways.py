"""The faster ways to a view: each is tried on this machine before it is used.

A way is refused if what it needs is not installed, does not start, or gives other
pixels than Pillow for a few pictures.
"""

import functools
import itertools
from collections.abc import Callable

import numpy as np
from PIL import Image

from featcache.core.specs import ViewSpec
from featcache.vision.augment import Draw, cut
from featcache.vision.kernel import Kernel
from featcache.vision.turbojpeg import JpegDecoder
from featcache.vision.views import Pixels, render
from featcache.vision.window import across_first, two_passes
from featcache.vision.words import copied, image_of, words_of

Window = Callable[[Image.Image, ViewSpec], Pixels]


@functools.cache
def kernel_here() -> tuple[Kernel | None, str]:
    """Return the compiled kernel, where it works.

    Returns
    -------
    (Kernel or None, str)
        Made once in a process; without one, the reason.
    """
    try:
        kernel = Kernel()
        objection = objection_to(lambda image, view: kernel(words_of(image), view))
        objection = objection or _objection_to_boxes(kernel)
    except Exception as error:
        return None, _missing("llvmlite", error)
    return (None, f"the compiled window {objection}") if objection else (kernel, "")


@functools.cache
def jpeg_here() -> tuple[JpegDecoder | None, str]:
    """Return the faster decoder of JPEG files, where it works.

    Returns
    -------
    (JpegDecoder or None, str)
        Without one, the reason.
    """
    try:
        jpeg = JpegDecoder()
        objection = jpeg.objection()
    except Exception as error:
        return None, _missing("simplejpeg", error)
    return (None, f"simplejpeg {objection}") if objection else (jpeg, "")


@functools.cache
def objection_to_passes() -> str:
    """Tell what speaks against Pillow's resize in two passes.

    Returns
    -------
    str
        Empty where nothing does.
    """
    objection = objection_to(two_passes)
    return f"two passes {objection}" if objection else ""


def _missing(package: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{package} is not installed (pip install 'featcache[fast]')"
    return f"{package} does not work here: {' '.join(str(error).split())}"


def objection_to(window: Window) -> str | None:
    """Compare a window with Pillow on noise, which shows any difference.

    Parameters
    ----------
    window : callable
        From an image and a view to pixels.

    Returns
    -------
    str or None
        What it does wrong; None where it does nothing wrong.
    """
    for width, height in _SIZES:
        image = _noise(width, height)
        if not np.array_equal(render(image, _VIEW), window(image, _VIEW)):
            return f"differs from Pillow for an image of {width}x{height}"
    return None


def _objection_to_boxes(kernel: Kernel) -> str | None:
    """Compare with Pillow on sizes about those where its passes change places."""
    crop = 24
    words = copied(_noise(90, 90))
    for width, height in itertools.product((20, 40, 60), (23, 30, 56, 57, 80)):
        draw = Draw((5, 7, 5 + width, 7 + height), mirrored=height % 2 == 0)
        box = words[7 : 7 + height, 5 : 5 + width]
        found = kernel.resized(box, crop, mirrored=draw.mirrored)
        if across_first(width, height) and not np.array_equal(
            cut(image_of(words), crop, draw), found
        ):
            return f"differs from Pillow for a box of {width}x{height}"
    return None


def _noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


_VIEW = ViewSpec()
# Photos, enlarged ones, ones of the size wanted, and what is just not too tall.
_SIZES = ((375, 500), (500, 375), (30, 20), (256, 300), (700, 256), (290, 580))
