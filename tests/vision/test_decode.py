"""Decoding: Pillow's pixels, and a policy wherever those would lose data."""

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from featcache.core.errors import SpecError
from featcache.core.specs import ViewSpec
from featcache.core.status import Status, UnusableImageError
from featcache.vision.decode import MAX_PIXELS, decode, read_file
from tests.conftest import picture

VIEW = ViewSpec()


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + crc

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min(height, 1000) * (width // 8 + 1)))
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


SOURCE = picture(1, (120, 90, 60), (64, 48))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("L", "PNG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("CMYK", "TIFF"),
        ("RGB", "WEBP"),
        ("RGB", "BMP"),
        ("L", "PPM"),
    ],
)
def test_pixels_are_those_of_pillows_convert(mode, kind):
    """Every common pixel format decodes as Image.open(...).convert("RGB") does."""
    data = encoded(SOURCE.convert(mode), kind)
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert np.array_equal(np.asarray(decode(data, VIEW)), np.asarray(expected))


def test_palette_with_transparency_keeps_its_colours():
    """A palette image with alpha values decodes without Pillow's warning."""
    data = encoded(SOURCE.convert("P"), "PNG", transparency=bytes(range(256)))
    expected = Image.open(io.BytesIO(data)).convert("RGBA").convert("RGB")
    assert np.array_equal(np.asarray(decode(data, VIEW)), np.asarray(expected))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped_to_white(kind):
    """0..65535 becomes round(v / 257); Pillow's own convert makes it all white."""
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    pixels = np.asarray(decode(encoded(Image.fromarray(values), kind), VIEW))
    assert np.array_equal(pixels[..., 0], np.rint(values / 257).astype(np.uint8))
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_camera_rotation_is_applied_or_ignored(orientation):
    """The policy decides; upright is what ImageOps.exif_transpose makes."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(SOURCE, "JPEG", exif=exif)
    stored = Image.open(io.BytesIO(data)).convert("RGB")
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    ignoring = ViewSpec(exif="ignore")
    assert np.array_equal(np.asarray(decode(data, VIEW)), np.asarray(upright))
    assert np.array_equal(np.asarray(decode(data, ignoring)), np.asarray(stored))


def test_a_broken_exif_block_turns_nothing():
    """Unreadable EXIF says nothing about rotation; the pixels are fine."""
    data = encoded(SOURCE, "JPEG", exif=b"Exif\x00\x00garbage of some kind")
    stored = Image.open(io.BytesIO(data)).convert("RGB")
    assert np.array_equal(np.asarray(decode(data, VIEW)), np.asarray(stored))


def test_of_an_animation_the_first_frame_counts():
    """An animated WebP decodes to its first frame."""
    frames = [picture(n, (200, 100, 50), (32, 32)) for n in range(3)]
    data = encoded(
        frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True
    )
    assert np.array_equal(np.asarray(decode(data, VIEW)), np.asarray(frames[0]))


JPEG = encoded(SOURCE, "JPEG")
PNG = encoded(SOURCE, "PNG")
FLOAT = encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
LAB = encoded(Image.new("LAB", (8, 8)), "TIFF")
WIDE = encoded(Image.fromarray(np.full((8, 8), 70_000, np.int32)), "TIFF")


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        pytest.param(JPEG[:-200], Status.DAMAGED, "truncated", id="truncated JPEG"),
        pytest.param(PNG[:-500], Status.DAMAGED, "truncated", id="truncated PNG"),
        pytest.param(b"<html>", Status.NOT_AN_IMAGE, "no image format", id="HTML"),
        pytest.param(bytes(100), Status.NOT_AN_IMAGE, "no image format", id="zeros"),
        pytest.param(
            png_header(30_000, 30_000), Status.TOO_LARGE, "pixels", id="huge PNG"
        ),
        pytest.param(
            png_header(10_000, 10_000),
            Status.TOO_LARGE,
            r"10000x10000 pixels, at most 89,478,485",
            id="large PNG",
        ),
        pytest.param(
            png_header(1, 20_000), Status.TOO_LARGE, "1x20000.*resized", id="1x20000"
        ),
        pytest.param(FLOAT, Status.UNSUPPORTED, "mode 'F'", id="float TIFF"),
        pytest.param(LAB, Status.UNSUPPORTED, "mode 'LAB'", id="LAB TIFF"),
        pytest.param(WIDE, Status.UNSUPPORTED, "from 70000 to 70000", id="32-bit"),
    ],
)
# Pillow's own warning, which says the same of the same image.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_unusable_image_says_why(data, status, reason):
    """Hostile or broken bytes become one error with a reason on one line."""
    with pytest.raises(UnusableImageError, match=reason) as caught:
        decode(data, VIEW)
    assert caught.value.status is status
    assert "\n" not in str(caught.value)


def test_the_limit_is_pillows():
    """MAX_PIXELS is where Pillow itself begins to warn."""
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_a_flipped_byte_is_an_error_or_an_image():
    """Whatever a damaged PNG does to the decoder, it ends as one of two things."""
    random = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(PNG)
        data[random.integers(8, len(data))] ^= 1 << random.integers(8)
        with contextlib.suppress(UnusableImageError):
            assert decode(bytes(data), VIEW).mode == "RGB"


def test_missing_rows_are_never_invented(monkeypatch):
    """With LOAD_TRUNCATED_IMAGES set, half an image would pass as whole."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(SpecError, match="LOAD_TRUNCATED_IMAGES"):
        decode(JPEG[:-200], VIEW)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path):
    """Opening a pipe for reading would block until somebody writes."""
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnusableImageError, match="not a regular file"):
        read_file(tmp_path / "pipe.jpg")


def test_unreadable_and_empty_files_say_so(tmp_path):
    """A missing file and a file of zero bytes have their own reasons."""
    with pytest.raises(UnusableImageError, match="cannot be read: No such file"):
        read_file(tmp_path / "gone.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UnusableImageError, match="the file is empty"):
        read_file(tmp_path / "empty.jpg")
