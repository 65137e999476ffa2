"""Images in memory give the pixels that their files give."""

import io

import numpy as np
import pytest
from PIL import Image

from featcache.core.errors import DataError
from featcache.core.specs import ViewSpec
from featcache.core.status import UnusableImageError
from featcache.vision.decode import decode
from featcache.vision.images import array_bytes, image_bytes
from tests.conftest import picture

VIEW = ViewSpec()
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16")


def decoded(data, view=VIEW):
    return np.asarray(decode(data, view))


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_of_any_mode_is_what_its_file_would_be(mode):
    """Every mode that a file can have."""
    if mode == "I;16":
        grey = np.random.default_rng(0).integers(0, 1 << 16, (9, 7), np.uint16)
        image = Image.fromarray(grey)
    else:
        image = picture(0, (150, 60, 40), (7, 9)).convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF")
    assert np.array_equal(
        decoded(image_bytes(image, "apply")), decoded(file.getvalue())
    )


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("exif", ["apply", "ignore"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_turned_as_its_file_is(exif, turn, mode):
    """All eight ways in which a camera may be held; once, not twice."""
    tag = Image.Exif()
    tag[0x0112] = turn
    file = io.BytesIO()
    picture(turn, (150, 60, 40), (12, 8)).convert(mode).save(file, "JPEG", exif=tag)
    view = ViewSpec(exif=exif)
    with Image.open(file) as image:
        seen = decoded(image_bytes(image, exif), view)
    assert np.array_equal(seen, decoded(file.getvalue(), view))


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3), (5, 4, 4)])
def test_an_array_is_its_pixels(shape):
    """Grey becomes three equal channels, alpha is dropped; any strides."""
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    expected = np.broadcast_to(pixels.reshape(5, 4, -1)[..., :3], (5, 4, 3))
    assert np.array_equal(decoded(array_bytes(pixels)), expected)
    turned = np.asfortranarray(pixels)
    assert array_bytes(turned) == array_bytes(pixels)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((5, 4, 3)),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((2, 5, 4, 3), np.uint8),
        3,
        None,
    ],
)
def test_what_is_no_image_is_refused(image):
    """Floats, channels first, vectors, nothing, batches, numbers."""
    with pytest.raises(DataError, match=r"no image; expected a path, a binary file"):
        image_bytes(image, "apply")


def test_a_picture_that_cannot_be_read_says_so():
    """A truncated file that was opened lazily; a mode that no file has."""
    file = io.BytesIO()
    picture(0, (150, 60, 40)).save(file, "PNG")
    with (
        Image.open(io.BytesIO(file.getvalue()[:2000])) as image,
        pytest.raises(UnusableImageError, match="truncated"),
    ):
        image_bytes(image, "apply")
    with pytest.raises(UnusableImageError, match="cannot write mode HSV"):
        image_bytes(picture(0, (1, 2, 3)).convert("HSV"), "apply")


def test_an_open_file_is_its_bytes(tmp_path):
    """In memory or on disk, wherever it stands."""
    path = tmp_path / "a.jpg"
    picture(0, (150, 60, 40)).save(path)
    kept = io.BytesIO(path.read_bytes())
    kept.seek(30)
    with path.open("rb") as file:
        for image in (kept, file):
            assert image_bytes(image, "apply") == path.read_bytes()


def test_an_open_file_that_cannot_be_used_says_so(tmp_path):
    """Empty, closed, or of text."""
    with pytest.raises(UnusableImageError, match="the file is empty"):
        image_bytes(io.BytesIO(), "apply")
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(UnusableImageError, match="cannot be read: I/O operation on"):
        image_bytes(closed, "apply")
    with pytest.raises(DataError, match="a file of text is no image; expected a path"):
        image_bytes(io.StringIO("x"), "apply")
