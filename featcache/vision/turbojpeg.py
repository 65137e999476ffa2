"""JPEG files by simplejpeg, where it gives Pillow's pixels.

Both use libjpeg-turbo; simplejpeg spares clearing and filling an image row by row. What
is not an ordinary JPEG file, and whatever makes simplejpeg complain, is left to Pillow,
whose verdict counts.
"""

import functools
import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from featcache.core.specs import Exif
from featcache.vision.decode import turn_of
from featcache.vision.views import Pixels
from featcache.vision.words import Words

_HUFFMAN = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
# The other frames are lossless or arithmetic, which not every libjpeg reads; 0xC4, 0xC8
# and 0xCC are tables.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END = b"\xff\xda", b"\xff\xd9"


class JpegDecoder:
    """Decodes ordinary JPEG files.

    Raises
    ------
    Exception
        ImportError without simplejpeg, and whatever else it says when imported.
    """

    def __init__(self) -> None:
        import simplejpeg

        self.version: str = simplejpeg.__version__
        self._decode: Callable[[bytes], Pixels] = functools.partial(
            simplejpeg.decode_jpeg,
            colorspace="RGBX",
            fastdct=False,
            fastupsample=False,
            strict=True,
        )

    def __call__(self, data: bytes, image: Image.Image, exif: Exif) -> Words | None:
        """Decode a JPEG file.

        Parameters
        ----------
        data : bytes
            A file.
        image : PIL.Image.Image
            The same, opened and not decoded.
        exif : {"apply", "ignore"}
            Whether an image that its camera turned is left to Pillow.

        Returns
        -------
        ndarray of uint32, shape (h, w), or None
            None where Pillow should try.
        """
        ordinary = image.format == "JPEG" and image.mode in ("RGB", "L")
        if not (ordinary and _frame(data) in _HUFFMAN and turn_of(image, exif) is None):
            return None
        try:
            pixels = self._decode(data)
        except Exception:  # damaged, or no memory: Pillow has its own words for it
            return None
        if pixels.shape != (image.height, image.width, 4):
            return None
        words: Words = pixels.view(np.uint32)[..., 0]
        return words

    def objection(self) -> str | None:
        """Compare with Pillow on small files of each kind.

        Returns
        -------
        str or None
            What this decoder does wrong; None where it does nothing wrong.
        """
        for kind, data in _samples():
            with Image.open(io.BytesIO(data)) as image:
                words = self(data, image, "ignore")
                expected = np.asarray(image.convert("RGB"))
            if words is None:
                return f"cannot decode {kind}"
            found = words.view(np.uint8).reshape(*words.shape, 4)[..., :3]
            if not np.array_equal(expected, found):
                return f"gives other pixels than Pillow for {kind}"
        return None


def _frame(data: bytes) -> int:
    """Return the marker of the frame's header, or 0 where the file is odd."""
    at = 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker = data[at + 1]
        if marker in _FRAMES:
            return marker
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return 0


def _samples() -> Iterator[tuple[str, bytes]]:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (45, 67, 3), np.uint8)
    pixels[20:] //= 8  # contrast and shade, so that rounding shows
    image = Image.fromarray(pixels)
    for name, subsampling in (("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)):
        yield name, _encoded(image, subsampling=subsampling, quality=90)
        coarse = _encoded(image, subsampling=subsampling, quality=20, progressive=True)
        yield f"progressive {name}", coarse
        # The decoders smooth what the missing scans would have sharpened.
        yield (
            f"the first scans of {name}",
            coarse[: coarse.rindex(_START_OF_SCAN)] + _END,
        )
    yield "RGB", _encoded(image, keep_rgb=True)
    yield "grey", _encoded(image.convert("L"))


def _encoded(image: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()
