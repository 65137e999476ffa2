"""Pictures for the tests of decoding and views."""

import io

import numpy as np
from PIL import Image


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return noise, which shows a difference of one level anywhere."""
    random = np.random.default_rng((seed, width, height))
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return shades with edges and a little noise, as a camera gives them."""
    random = np.random.default_rng((seed, width, height))
    small = Image.fromarray(random.integers(0, 256, (5, 6, 3), np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    grain = random.integers(-9, 10, (height, width, 3)) + smooth
    return Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    """Return the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
