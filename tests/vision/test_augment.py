"""The training view: torchvision's rule and pixels, repeatable numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop, functional

from featcache.core.seeds import generator
from featcache.core.specs import ViewSpec
from featcache.core.view_specs import AugmentSpec
from featcache.vision.augment import RATIO, SCALE, augment, random_box
from featcache.vision.viewer import Viewer
from featcache.vision.words import copied


def noise(width, height):
    """Return an image of random pixels."""
    pixels = generator(0, "pixels").integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def by_viewer(image, crop, random):
    """The view of the image's words, by what is fastest here."""
    return Viewer.fastest(ViewSpec(crop=crop)).drawn(copied(image), random)


@pytest.mark.parametrize("way", [augment, by_viewer])
@pytest.mark.parametrize(
    "size",
    [
        (500, 375),
        (375, 500),
        (64, 64),
        (8, 8),
        (3, 2),
        (1, 1),
        (900, 20),
        (20, 900),
        (1601, 1201),
    ],
    ids=str,
)
def test_pixels_are_torchvisions_for_the_same_parameters(size, way):
    """The view is bit for bit resized_crop, then hflip, on the Pillow image."""
    image = noise(*size)
    for sample in range(12):
        random = generator(3, "augment", sample)
        left, top, right, lower = random_box(*size, random)
        expected = functional.resized_crop(
            image, top, left, lower - top, right - left, [64, 64], antialias=True
        )
        if random.random() < 0.5:
            expected = functional.hflip(expected)
        view = way(image, 64, generator(3, "augment", sample))
        assert view.shape == (64, 64, 3)
        assert view.dtype == np.uint8
        np.testing.assert_array_equal(np.asarray(expected), view)


def test_boxes_taller_than_the_ratio_allows_are_torchvisions():
    """Where Pillow's passes may change places in any release, Pillow does the work."""
    how = AugmentSpec(ratio=(0.1, 0.2))
    image, tall = noise(300, 400), 0
    for sample in range(8):
        random = generator(3, "augment", sample)
        left, top, right, lower = random_box(300, 400, random, how)
        tall += lower - top > 2 * (right - left)
        expected = augment(image, 64, generator(3, "augment", sample), how)
        viewer = Viewer.fastest(ViewSpec(crop=64))
        found = viewer.drawn(copied(image), generator(3, "augment", sample), how)
        np.testing.assert_array_equal(expected, found)
    assert tall == 8


def test_views_depend_on_the_generator_alone():
    """Equal seed, epoch and sample give equal pixels; another epoch gives others."""
    image = noise(120, 90)
    views = [augment(image, 32, generator(0, "augment", e, 5)) for e in (0, 0, 1)]
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), key=st.integers(0, 99))
def test_boxes_lie_inside_the_image(width, height, key):
    """A box has at least one pixel and none outside."""
    left, top, right, lower = random_box(width, height, generator(key, "augment"))
    assert 0 <= left < right <= width
    assert 0 <= top < lower <= height


def test_boxes_are_distributed_as_torchvisions():
    """Areas and ratios have torchvision's limits and, over 4000 boxes, its means."""
    size, random = (4000, 3500), generator(1, "augment")
    boxes = np.array([random_box(*size, random) for _ in range(4000)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (w * h).min() == pytest.approx(SCALE[0] * math.prod(size), rel=0.02)
    assert (w * h).max() == pytest.approx(SCALE[1] * math.prod(size), rel=0.02)
    assert (w / h).min() == pytest.approx(RATIO[0], rel=0.01)
    assert (w / h).max() == pytest.approx(RATIO[1], rel=0.01)
    blank = Image.new("1", size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [RandomResizedCrop.get_params(blank, SCALE, RATIO) for _ in range(4000)]
    _, _, height, width = np.array(drawn).T
    # Four standard errors: areas spread by 0.27 of the image, log ratios by 0.17.
    assert (w * h).mean() == pytest.approx(
        (width * height).mean(), abs=0.024 * math.prod(size)
    )
    assert np.log(w / h).mean() == pytest.approx(
        np.log(width / height).mean(), abs=0.015
    )
    assert (boxes[:, 0] / (4001 - w)).mean() == pytest.approx(0.5, abs=0.02)
    assert (boxes[:, 1] / (3501 - h)).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (301, 7), (7, 301), (3, 100)])
def test_long_images_fall_back_to_the_centre(size):
    """Where no random box fits, the box is torchvision's central one."""
    top, left, h, w = RandomResizedCrop.get_params(Image.new("1", size), SCALE, RATIO)
    expected = (left, top, left + w, top + h)
    assert expected == random_box(*size, generator(0, "augment"))


def test_half_of_the_views_are_mirrored():
    """The flip's probability is one half."""
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 200, axis=0)
    image = Image.fromarray(np.repeat(ramp, 3, axis=2))
    views = [augment(image, 16, generator(s, "augment")) for s in range(400)]
    mirrored = sum(int(v[0, 0, 0]) > int(v[0, -1, 0]) for v in views)
    assert mirrored / 400 == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 400))
