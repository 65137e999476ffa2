"""The viewer: the same pixels or the same refusal as Pillow's, whatever is in use."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from featcache.core.clock import Clock
from featcache.core.specs import ViewSpec
from featcache.core.status import UnusableImageError
from featcache.vision import viewer, ways
from featcache.vision.decode import decode_view
from featcache.vision.viewer import PAYS_FROM, Viewer
from featcache.vision.views import render
from tests.vision.pictures import encoded, noise, photo

VIEW = ViewSpec()


@pytest.fixture(autouse=True)
def asked_anew():
    """Forget between tests what was found to work."""
    yield
    for found in (ways.kernel_here, ways.jpeg_here, ways.objection_to_passes):
        found.cache_clear()


@pytest.fixture
def fast() -> Viewer:
    for package in ("llvmlite", "simplejpeg"):
        pytest.importorskip(package, reason="needs featcache[fast]")
    found = Viewer.fastest(VIEW)
    assert found.kernel
    assert found.jpeg
    return found


def without(monkeypatch, *packages):
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, f"{package}.binding", None)


def outcome(view, data):
    """The pixels, or the refusal with its status and its words."""
    try:
        return view(data).tobytes()
    except UnusableImageError as error:
        return error.status, str(error)


def by_pillow(data):
    return outcome(lambda d: decode_view(d, VIEW), data)


def by(found, data):
    return outcome(lambda d: found(d, Clock()), data)


def random_jpeg(random: np.random.Generator, size=(150, 110)) -> bytes:
    """One of the many kinds of JPEG file that Pillow writes."""
    width, height = (int(n) for n in random.integers(1, size))
    noisy, kind = random.integers(2), random.integers(6)
    image = (noise if noisy else photo)(width, height)
    if kind == 0:
        image = image.convert("L")
    options = {
        "quality": int(random.integers(1, 101)),
        "subsampling": int(random.integers(3)),
    }
    if options["quality"] < 60 and not noisy:  # else Pillow's buffer is too small
        options["progressive"] = bool(random.integers(2))
        options["optimize"] = bool(random.integers(2))
    if kind == 1:
        options |= {"keep_rgb": True, "subsampling": 0}
    if kind == 2:
        options["restart_marker_blocks"] = int(random.integers(1, 9))
    if kind == 3:
        options["restart_marker_rows"] = int(random.integers(1, 4))
    return encoded(image, "JPEG", **options)


def damaged(random: np.random.Generator, data: bytes) -> bytes:
    """Cut off, with flipped bits, with a hole, or with something behind."""
    kind, at = random.integers(5), int(random.integers(2, len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + int(random.integers(1, 50)) :]
    if kind == 2:
        return data + bytes(random.integers(0, 256, 40, np.uint8))
    if kind == 3:  # ends in order, after too little
        return data[:at] + b"\xff\xd9"
    changed = bytearray(data)
    head = 700 if random.integers(2) else len(data)  # where the tables are
    for place in random.integers(2, min(head, len(data)), random.integers(1, 4)):
        changed[place] ^= 1 << random.integers(8)
    return bytes(changed)


def test_jpegs_of_every_kind_have_pillows_pixels(fast):
    """Quality, subsampling, progressive, restart markers, grey, RGB, odd sizes."""
    random = np.random.default_rng(1)
    for _ in range(150):
        data = random_jpeg(random)
        assert by_pillow(data) == by(fast, data)


def test_damaged_jpegs_have_pillows_pixels_or_pillows_refusal(fast):
    """The words of the refusal included."""
    random = np.random.default_rng(2)
    for _ in range(300):
        data = damaged(random, random_jpeg(random, (90, 70)))
        assert by_pillow(data) == by(fast, data)


@pytest.mark.slow
def test_thousands_of_damaged_jpegs(fast):
    """The same with other seeds, and larger pictures."""
    random = np.random.default_rng(3)
    for _ in range(6000):
        data = damaged(random, random_jpeg(random, (300, 260)))
        assert by_pillow(data) == by(fast, data)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "PNG"),
        ("L", "PNG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("I;16", "PNG"),
        ("CMYK", "JPEG"),
        ("RGB", "MPO"),
        ("RGB", "WEBP"),
        ("RGB", "BMP"),
        ("F", "TIFF"),
    ],
)
def test_other_formats_have_pillows_pixels(fast, mode, kind):
    """What simplejpeg has nothing to do with, and what nobody decodes."""
    data = encoded(photo(320, 200).convert(mode), kind)
    assert by_pillow(data) == by(fast, data)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (90, 200), (640, 480)])
def test_images_that_the_kernel_does_not_take_have_pillows_pixels(fast, size):
    """Of few columns, or tall; as PNG and as JPEG."""
    for data in (encoded(noise(*size), "PNG"), encoded(noise(*size), "JPEG")):
        assert by_pillow(data) == by(fast, data)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("policy", ["apply", "ignore"])
def test_camera_rotation_is_as_without_simplejpeg(fast, orientation, policy):
    """Also where only XMP tells it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    view = ViewSpec(exif=policy)
    xmp = f'<x xmlns:tiff="t" tiff:Orientation="{orientation}"/>'.encode()
    for options in ({"exif": exif}, {"xmp": xmp}, {"exif": b"Exif\0\0garbage"}):
        data = encoded(photo(320, 200), "JPEG", **options)
        assert np.array_equal(
            decode_view(data, view), Viewer.fastest(view)(data, Clock())
        )


def test_ordinary_jpegs_are_simplejpegs(fast, monkeypatch):
    """The fast way is in use: Pillow does not decode them."""
    data = encoded(photo(320, 200), "JPEG")
    expected = by_pillow(data)
    monkeypatch.setattr(viewer, "loaded", pytest.fail)
    assert by(fast, data) == expected


@pytest.mark.parametrize("frame", [0xC3, 0xC9, 0xCA])
def test_lossless_and_arithmetic_frames_are_pillows(fast, frame):
    """Not every libjpeg reads them, so the one behind Pillow decides."""
    data = encoded(photo(64, 48), "JPEG")
    other = data.replace(b"\xff\xc0", bytes([0xFF, frame]), 1)
    with Image.open(io.BytesIO(other)) as image:
        assert fast.jpeg(other, image, "ignore") is None
    assert by_pillow(other) == by(fast, other)


def test_threads_share_a_viewer(fast):
    """Eight threads, many sizes."""
    random = np.random.default_rng(4)
    files = [random_jpeg(random, (400, 300)) for _ in range(120)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda data: by(fast, data), files))
    assert found == [by_pillow(data) for data in files]


def test_the_clock_hears_of_both_stages(fast):
    """And of nothing else."""
    clock = Clock()
    fast(encoded(photo(320, 200), "JPEG"), clock)
    assert set(clock.seconds()) == {"decode", "view"}
    assert min(clock.seconds().values()) > 0


@pytest.mark.parametrize(
    ("missing", "decode", "view"),
    [
        pytest.param((), "simplejpeg 1", "compiled window (llvmlite 0", id="nothing"),
        pytest.param(
            ("simplejpeg",),
            "simplejpeg is not installed (pip install 'featcache[fast]')",
            "compiled window",
            id="simplejpeg",
        ),
        pytest.param(
            ("llvmlite",),
            "simplejpeg gains nothing without the compiled window",
            "two passes: llvmlite is not installed (pip install 'featcache[fast]')",
            id="llvmlite",
        ),
        pytest.param(
            ("llvmlite", "simplejpeg"), "Pillow", "two passes: llvmlite", id="both"
        ),
    ],
)
def test_without_a_package_the_pixels_are_the_same(
    fast, monkeypatch, missing, decode, view
):
    """The description tells what is in use, and what to install."""
    for found in (ways.kernel_here, ways.jpeg_here):
        found.cache_clear()
    without(monkeypatch, *missing)
    slower = Viewer.fastest(VIEW, expected=PAYS_FROM)
    assert decode in slower.description["decode"]
    assert view in slower.description["view"]
    random = np.random.default_rng(5)
    for _ in range(20):
        data = random_jpeg(random, (400, 300))
        assert by_pillow(data) == by(slower, data)


def test_few_images_are_not_worth_the_start():
    """Nothing is imported for them, and the description says so."""
    few = Viewer.fastest(VIEW, expected=PAYS_FROM - 1)
    assert few.kernel is None
    assert few.window is render
    assert f"from {PAYS_FROM} images on" in few.description["view"]
    assert f"here are {PAYS_FROM - 1}" in few.description["decode"]


def test_a_jpeg_decoder_that_differs_is_not_used(fast, monkeypatch):
    """Another libjpeg is told by one level in one pixel."""
    decode = fast.jpeg._decode

    def off_by_one(data):
        pixels = decode(data)
        pixels[3, 4, 1] ^= 1
        return pixels

    monkeypatch.setattr(fast.jpeg, "_decode", off_by_one)
    assert "other pixels than Pillow for 4:4:4" in fast.jpeg.objection()
    monkeypatch.setattr(ways, "JpegDecoder", lambda: fast.jpeg)
    ways.jpeg_here.cache_clear()
    description = Viewer.fastest(VIEW).description
    assert description["decode"].startswith("Pillow ")
    assert "simplejpeg gives other pixels" in description["decode"]


def test_windows_that_differ_are_not_used(monkeypatch):
    """A Pillow that resizes in another way gets its whole resize."""
    monkeypatch.setattr(ways, "objection_to", lambda _: "differs from Pillow")
    found = Viewer.fastest(VIEW)
    assert found.window is render
    assert found.kernel is None
    assert "whole image" in found.description["view"]
    assert "two passes differs" in found.description["view"]
