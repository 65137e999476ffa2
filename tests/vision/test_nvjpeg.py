"""JPEG files decoded on a device: which go there, and how close the pixels are.

Everything but nvJPEG itself is tested on the CPU, where torchvision decodes with
libjpeg.
"""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featcache.core.errors import DeviceError
from featcache.core.specs import ViewSpec
from featcache.core.status import Status
from featcache.vision import nvjpeg
from featcache.vision.backbones import Backbone, random_weights
from featcache.vision.decode import decode_view
from featcache.vision.forward import embedder
from featcache.vision.nvjpeg import (
    JpegViews,
    jpeg_views,
    plain_jpeg_size,
    rendered,
)
from featcache.vision.views import render
from tests.conftest import picture

CPU = torch.device("cpu")
VIEW = ViewSpec(decoder="nvjpeg")
ORIENTATION = 0x0112

pytestmark = pytest.mark.filterwarnings("ignore:.*TorchCodec:DeprecationWarning")


def jpeg(size=(300, 260), mode="RGB", **options) -> bytes:
    """A smooth picture: decoders differ by rounding, not by ringing."""
    buffer = io.BytesIO()
    small = picture(sum(size), (120, 90, 60), (12, 9))
    image = small.resize(size, Image.Resampling.BICUBIC).convert(mode)
    image.save(buffer, "JPEG", **{"quality": 92, **options})
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return jpeg(exif=exif)


def in_words(orientation: int) -> bytes:
    return jpeg(xmp=f'<x tiff:Orientation="{orientation}"/>'.encode())


def views(files, view=VIEW):
    out = torch.zeros((len(files), view.crop, view.crop, 3), dtype=torch.uint8)
    reasons = JpegViews(view, CPU)(files, out)
    return out.numpy(), reasons


def difference(found, expected) -> int:
    return int(np.abs(found.astype(int) - expected).max())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(jpeg(), id="plain"),
        pytest.param(jpeg(mode="L"), id="grey"),
        pytest.param(jpeg(progressive=True), id="progressive"),
        pytest.param(jpeg(subsampling=0), id="4:4:4"),
        pytest.param(jpeg(optimize=True, comment=b"two\xff\xd8words"), id="comment"),
        pytest.param(jpeg(icc_profile=bytes(200_000)), id="large profile"),
        pytest.param(jpeg() + bytes(512), id="padded"),
        pytest.param(turned(1), id="upright by EXIF"),
        pytest.param(in_words(1), id="upright by XMP"),
    ],
)
def test_ordinary_files_go_to_the_device(data):
    """The header tells their size."""
    assert plain_jpeg_size(data, "apply") == (300, 260)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(jpeg(mode="CMYK"), id="CMYK"),
        pytest.param(jpeg(keep_rgb=True), id="RGB components"),
        pytest.param(jpeg()[:-500], id="cut off"),
        pytest.param(jpeg() + b"more", id="something behind"),
        pytest.param(jpeg().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
                     id="12 bits"),
        pytest.param(turned(6), id="turned by EXIF"),
        pytest.param(in_words(6), id="turned by XMP"),
    ],
)  # fmt: skip
def test_every_other_file_is_pillows(data):
    """Its pixels or its verdict count, to the bit."""
    assert plain_jpeg_size(data, "apply") is None
    found, reasons = views([data])
    if not reasons:
        assert np.array_equal(decode_view(data, VIEW), found[0])


def test_a_turned_file_goes_to_the_device_where_turns_are_ignored():
    """As torchvision's ImageFolder shows it."""
    assert plain_jpeg_size(turned(6), "ignore") == (300, 260)


@given(
    data=st.binary(max_size=64),
    at=st.integers(0, 700),
    cut=st.integers(0, 64),
    exif=st.sampled_from(["apply", "ignore"]),
)
def test_no_bytes_break_the_reading(data, at, cut, exif):
    """Whatever stands in a header, there is an answer."""
    good = jpeg((20, 16))
    for broken in (data, good[:at] + data + good[at + cut :], b"\xff\xd8\xff" + data):
        size = plain_jpeg_size(broken, exif)
        assert size is None or min(size) > 0


@given(width=st.integers(1, 700), height=st.integers(1, 700))
def test_views_are_close_to_pillows(width, height):
    """Up and down, any shape: within two levels, since Pillow rounds twice."""
    if max(width, height) > 20 * min(width, height):
        return
    small = picture(width, (120, 90, 60), (7, 5))
    image = small.resize((width, height), Image.Resampling.BICUBIC)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    found = rendered(tensor, VIEW).numpy()
    assert difference(found, render(image, VIEW)) <= 2


def test_a_mixed_batch_comes_out_in_order():
    """Device and Pillow side by side, and the reasons of what neither can use."""
    png = io.BytesIO()
    picture(1, (9, 9, 9), (300, 300)).save(png, "PNG")
    files = [
        jpeg((640, 480)),
        png.getvalue(),
        jpeg((256, 256)),
        b"no image",
        turned(6),
        jpeg((230, 900), "L"),
        jpeg()[:-600],
    ]
    found, reasons = views(files)
    assert {row: reason.status for row, reason in reasons.items()} == {
        3: Status.NOT_AN_IMAGE,
        6: Status.DAMAGED,
    }
    for row in (0, 2, 5):
        assert difference(found[row], decode_view(files[row], VIEW)) <= 6
    for row in (1, 4):
        assert np.array_equal(decode_view(files[row], VIEW), found[row])


def test_what_the_device_refuses_gets_pillows_verdict():
    """One broken file does not take its neighbours along."""
    good = jpeg()
    at = good.index(b"\xff\xc4")
    broken = good[: at + 5] + b"\xff" * 16 + good[at + 21 :]  # impossible Huffman codes
    assert plain_jpeg_size(broken, "apply")
    found, reasons = views([good, broken, good])
    assert [(row, r.status) for row, r in reasons.items()] == [(1, Status.DAMAGED)]
    assert difference(found[0], decode_view(good, VIEW)) <= 6
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("limit", [1, 300 * 260, 3 * 300 * 260])
def test_memory_bounds_what_is_decoded_at_once(monkeypatch, limit):
    """Few at a time or not at all: the picture stays the same."""
    files = [jpeg((300, 260 - i)) for i in range(4)]
    expected, _ = views(files)
    monkeypatch.setattr(nvjpeg, "_AT_ONCE", limit)
    found, reasons = views(files)
    assert not reasons
    assert difference(found, expected) <= 6


def test_a_view_of_nvjpeg_needs_a_cuda_device():
    """The error says what to do, from wherever the view comes."""
    with pytest.raises(DeviceError, match=r"nvJPEG decodes on a CUDA device.*--decode"):
        jpeg_views(VIEW, CPU)
    backbone = Backbone("resnet18", random_weights("resnet18", 0))
    with pytest.raises(DeviceError, match="nvJPEG"):
        embedder(backbone, VIEW, device=CPU, precision="float32")


def test_the_self_test_passes_on_the_cpu():
    """libjpeg and Pillow see the same picture."""
    JpegViews(VIEW, CPU).prove()


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        pytest.param(None, "cannot decode JPEG on cpu .not compiled", id="no nvJPEG"),
        pytest.param(lambda i: i.flip(0), "levels off Pillow's", id="BGR"),
    ],
)
def test_a_decoder_that_fails_the_self_test_is_not_used(monkeypatch, decoder, message):
    """Before any image of the user's is decoded."""
    right = nvjpeg.decoded

    def other(files, device):
        if decoder is None:
            raise RuntimeError("not compiled with nvJPEG support\nin some file")
        return [decoder(image) for image in right(files, device)]

    monkeypatch.setattr(nvjpeg, "decoded", other)
    with pytest.raises(DeviceError, match=message):
        JpegViews(VIEW, CPU).prove()


@pytest.mark.gpu
def test_nvjpegs_views_are_close_to_pillows():
    """Every ordinary kind of file, within some levels; the others to the bit."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    device = torch.device("cuda", 0)
    files = [
        jpeg((640, 480)),
        jpeg((300, 260), "L"),
        jpeg((500, 375), progressive=True),
        jpeg((256, 999), subsampling=0),
        jpeg((80, 60)),
        jpeg(mode="CMYK"),
        turned(6),
    ]
    out = torch.zeros((len(files), 224, 224, 3), dtype=torch.uint8, device=device)
    assert not jpeg_views(VIEW, device)(files, out)
    torch.cuda.synchronize(device)
    for row, data in enumerate(files):
        off = np.abs(out[row].cpu().numpy().astype(int) - decode_view(data, VIEW))
        assert off.mean() <= 2
        assert row < 5 or off.max() == 0
