"""Thumbnails: small, of the right shape, decoded by the one decoder."""

import io

import numpy as np
import pytest
from PIL import Image

from featcache.core.specs import ViewSpec
from featcache.core.status import UnusableImageError
from featcache.vision.tiles import small, thumbnail
from tests.conftest import picture


def encoded(image, kind="PNG", **settings):
    data = io.BytesIO()
    image.save(data, kind, **settings)
    return data.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((640, 480), (48, 64)),
        ((480, 640), (64, 48)),
        ((2000, 20), (1, 64)),
        ((40, 30), (30, 40)),
    ],
    ids=["wide", "tall", "a strip", "small already"],
)
def test_a_thumbnail_has_the_shape_of_its_image(kind, size, shape):
    """To a pixel; what is small stays as it is."""
    data = encoded(picture(0, (200, 100, 50), size), kind)
    pixels = thumbnail(data, ViewSpec(), 64)
    assert pixels.shape == (*shape, 3)
    assert pixels.dtype == np.uint8
    assert np.allclose(pixels.mean(axis=(0, 1)), (199, 100, 51), atol=3)


@pytest.mark.parametrize(("exif", "shape"), [("apply", (64, 48)), ("ignore", (48, 64))])
def test_a_thumbnail_is_turned_as_the_view_says(exif, shape):
    turned = Image.Exif()
    turned[0x0112] = 6
    data = encoded(picture(0, (9, 9, 9), (640, 480)), "JPEG", exif=turned)
    assert thumbnail(data, ViewSpec(exif=exif), 64).shape[:2] == shape


def test_a_reduced_jpeg_looks_like_the_whole_one():
    """Decoding at an eighth of the size is a speed, not another picture."""
    y, x = np.mgrid[:600, :800]
    wave = np.stack([x % 256, y % 256, (x + y) // 11 % 256], -1).astype(np.uint8)
    image = Image.fromarray(wave).resize((800, 600), Image.Resampling.BILINEAR)
    data = encoded(image, "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as whole:
        expected = small(np.asarray(whole.convert("RGB")), 100)
    found = thumbnail(data, ViewSpec(), 100)
    assert np.abs(found.astype(int) - expected).mean() < 4


def test_what_is_no_image_is_told_by_the_decoder():
    with pytest.raises(UnusableImageError, match="no image format that Pillow knows"):
        thumbnail(b"nothing", ViewSpec(), 64)
