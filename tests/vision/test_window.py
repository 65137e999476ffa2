"""The window: what the crop shows, equal to torchvision's transforms in every pixel."""

import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from featcache.core.specs import ViewSpec
from featcache.vision import kernel_code, ways, window
from featcache.vision.kernel import Kernel
from featcache.vision.views import render
from featcache.vision.window import across_first, taps, two_passes
from featcache.vision.words import copied, image_of, words_of
from tests.vision.pictures import noise


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    pytest.importorskip("llvmlite", reason="the compiled window needs featcache[fast]")
    return Kernel()


def reference(image: Image.Image, view: ViewSpec) -> np.ndarray:
    """torchvision's own transforms on the PIL image."""
    resized = transforms.Resize(view.resize, antialias=True)(image)
    return np.asarray(transforms.CenterCrop(view.crop)(resized))


def check(kernel: Kernel, image: Image.Image, view: ViewSpec) -> None:
    """Compare each window that takes the image with torchvision."""
    if not across_first(*image.size):
        return
    expected = reference(image, view)
    assert np.array_equal(expected, two_passes(image, view)), (image.size, view)
    if kernel.takes(*image.size, view):
        found = kernel(words_of(image), view)
        assert np.array_equal(expected, found), (image.size, view)


def sizes(random: np.random.Generator, count: int, largest: int) -> np.ndarray:
    """Widths and heights, as many small ones as large ones, up to 1 : 30."""
    found = np.exp(random.uniform(0, np.log(largest + 1), (4 * count, 2))).astype(int)
    slender = found.max(1) > 30 * found.min(1)  # resized, it would fill the memory
    return found[~slender & (found[:, 1] <= 2 * found[:, 0])][:count]


@pytest.mark.parametrize("resize", [232, 256])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_windows_equal_torchvision_for_small_images(kernel, resize, mode):
    """Both windows, hundreds of sizes from 1x1 on, mostly enlarged."""
    random = np.random.default_rng(resize)
    for width, height in sizes(random, 80, 700):
        image = noise(width, height).convert(mode).convert("RGB")
        check(kernel, image, ViewSpec(resize=resize))


@pytest.mark.slow
@pytest.mark.parametrize("resize", [232, 256])
def test_windows_equal_torchvision_for_thousands_of_sizes(kernel, resize):
    """Up to 5,000 pixels a side."""
    random = np.random.default_rng(resize + 1)
    for width, height in sizes(random, 1000, 5000):
        check(kernel, noise(width, height), ViewSpec(resize=resize))


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    resize=st.integers(1, 300),
    crop=st.integers(1, 300),
)
def test_windows_equal_torchvision_for_every_view(kernel, width, height, resize, crop):
    """Also crops that no vector divides, of images resized to nearly nothing."""
    if max(width, height) <= 30 * min(width, height):
        view = ViewSpec(resize=resize, crop=min(crop, resize))
        check(kernel, noise(width, height), view)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((3000, 2000), id="large: Pillow keeps it in several parts"),
        pytest.param((256, 300), id="the width stays"),
        pytest.param((300, 256), id="the height stays"),
        pytest.param((256, 256), id="nothing to resize"),
        pytest.param((224, 448), id="twice as tall"),
        pytest.param((4000, 60), id="slender"),
    ],
)
def test_windows_equal_torchvision_for_special_sizes(kernel, size):
    """Sizes where one of the passes, or the way to the pixels, is another."""
    check(kernel, noise(*size), ViewSpec())


@st.composite
def boxes(draw) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """A size, and a box in an image of it that is at most twice as tall as wide."""
    w, h = draw(st.integers(1, 400)), draw(st.integers(1, 400))
    w = max(w, (h + 1) // 2)
    left, top = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    right, under = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    size = (left + w + right, top + h + under)
    return size, (left, top, left + w, top + h)


@given(boxes(), st.integers(1, 260), st.booleans())
@example(((300, 400), (0, 0, 300, 400)), 224, False)  # Pillow 13: down first
@example(((300, 400), (9, 7, 290, 339)), 224, True)  # by one pixel
@example(((300, 400), (9, 7, 290, 338)), 224, True)  # not any more
@example(((229, 300), (3, 5, 227, 229)), 224, True)  # nothing to resize
@example(((900, 700), (20, 30, 870, 690)), 5, False)  # no vector is so short
def test_boxes_equal_pillows_crop_and_resize(kernel, where, crop, mirrored):
    """Whatever lies around them; mirrored or not; of few columns and of one row."""
    size, box = where
    image = noise(*size)
    expected = image.crop(box).resize((crop, crop), Image.Resampling.BILINEAR)
    if mirrored:
        expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    left, top, right, lower = box
    words = words_of(image)[top:lower, left:right]
    found = kernel.resized(words, crop, mirrored=mirrored)
    assert np.array_equal(np.asarray(expected), found)


def test_boxes_whose_rows_are_not_contiguous_are_refused(kernel):
    """The code goes from address to address."""
    with pytest.raises(ValueError, match="side by side"):
        kernel.resized(np.zeros((40, 80), np.uint32)[:, ::2], 24)


def test_another_order_of_pillows_passes_is_noticed(monkeypatch):
    """A release with another rule gets slower views, not other ones."""
    pytest.importorskip("llvmlite", reason="the compiled window needs featcache[fast]")
    monkeypatch.setattr(window, "_BY_SHRINKING", not window._BY_SHRINKING)
    kernel, why = ways.kernel_here.__wrapped__()
    assert kernel is None
    assert why.startswith("the compiled window differs from Pillow for a box of ")


@pytest.mark.parametrize("value", [0, 255])
def test_flat_images_stay_flat(kernel, value):
    """Weights that do not sum up to one in 22 bits must not overflow."""
    image = Image.new("RGB", (613, 411), (value, value, value))
    assert (kernel(words_of(image), ViewSpec()) == value).all()


@given(
    width=st.integers(1, 4000), excess=st.integers(0, 300), resize=st.integers(1, 300)
)
def test_tall_images_are_all_that_pillow_resizes_downwards_first(width, excess, resize):
    """Pillow 13's rule, on its own terms, holds for no image that we call usual."""
    height = 2 * width - 150 + excess
    new_height = int(resize * height / width)
    downwards = height - new_height > 2 * (width - resize) and new_height < height
    if height >= width and downwards:
        assert not across_first(width, height)


@given(
    source=st.integers(1, 3000),
    resized=st.integers(1, 600),
    data=st.data(),
    step=st.sampled_from([1, 4]),
)
def test_weights_sum_up_to_one_and_stay_inside(source, resized, data, step):
    """What the code reads lies in the image, if the image has that many."""
    first = data.draw(st.integers(0, resized - 1))
    count = data.draw(st.integers(1, resized - first))
    starts, weights = taps(source, resized, first, count, step)
    room = weights.shape[1]
    assert room % step == 0
    assert (starts >= 0).all()
    assert (starts + room <= max(source, room)).all()
    assert (abs(weights.sum(1) - (1 << 22)) <= room).all()
    inputs = starts[:, None] + np.arange(room)
    assert (weights[inputs >= source] == 0).all()


def test_the_kernel_refuses_to_read_beyond_an_image(kernel):
    """It works with addresses, so what does not fit is an error, never a guess."""
    words = np.zeros((40, 3), np.uint32)
    assert not kernel.takes(3, 40, ViewSpec())
    with pytest.raises(ValueError, match="3x40"):
        kernel(words, ViewSpec())
    with pytest.raises(ValueError, match="not contiguous"):
        kernel(np.zeros((40, 80), np.uint32)[:, ::2], ViewSpec())


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK"])
def test_words_are_the_images_own_pixels(mode):
    """Whatever the image was made from."""
    image = noise(37, 23).convert(mode).convert("RGB")
    words = words_of(image)
    assert np.array_equal(
        np.asarray(image), words.view(np.uint8).reshape(23, 37, 4)[..., :3]
    )


def test_words_become_an_image_again():
    """By the view that needs no copy."""
    image = noise(37, 23)
    found = image_of(copied(image)).convert("RGB")
    assert np.array_equal(np.asarray(image), np.asarray(found))


def test_words_are_copied_where_pillow_has_no_arrow(monkeypatch):
    """Pillow 11.0 does not show its storage."""
    monkeypatch.delattr(Image.Image, "__arrow_c_array__", raising=False)
    test_words_are_the_images_own_pixels("RGB")


def test_a_window_that_differs_is_noticed():
    """One level in one pixel is enough."""

    def off_by_one(image, view):
        pixels = np.array(render(image, view))
        pixels[100, 100, 1] ^= 1
        return pixels

    assert ways.objection_to(render) is None
    assert "differs from Pillow" in ways.objection_to(off_by_one)


def test_code_that_llvm_refuses_is_a_reason(monkeypatch):
    """Another LLVM may read another language."""
    pytest.importorskip("llvmlite", reason="the compiled window needs featcache[fast]")
    monkeypatch.setattr("featcache.vision.kernel.CODE", kernel_code.CODE + "nonsense")
    kernel, why = ways.kernel_here.__wrapped__()
    assert kernel is None
    assert why.startswith("llvmlite does not work here: ")


def test_without_llvmlite_there_is_a_reason(monkeypatch):
    """It tells what to type."""
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    kernel, why = ways.kernel_here.__wrapped__()
    assert kernel is None
    assert why == "llvmlite is not installed (pip install 'featcache[fast]')"
