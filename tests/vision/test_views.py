"""Views: torchvision's Resize, CenterCrop, ToTensor and Normalize, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.models import get_model_weights
from torchvision.transforms import functional

from featcache.core.catalog import BACKBONES
from featcache.core.specs import ViewSpec
from featcache.vision.views import center_box, normalise, render, resized_size


def noise(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width * 7919 + height)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def reference(image: Image.Image, view: ViewSpec) -> np.ndarray:
    """torchvision's own transforms on the PIL image, before ToTensor."""
    resized = transforms.Resize(view.resize, antialias=True)(image)
    return np.asarray(transforms.CenterCrop(view.crop)(resized))


@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    resize=st.sampled_from([232, 256]),
)
def test_pixels_equal_torchvision_for_every_size(width, height, resize):
    """Up- and downscaling, any aspect ratio, both of torchvision's resizes."""
    view = ViewSpec(resize=resize)
    if max(width, height) > 40 * min(width, height):
        return  # the resized reference would take gigabytes; see the next test
    image = noise(width, height)
    assert np.array_equal(reference(image, view), render(image, view))


@given(
    width=st.integers(1, 6000),
    height=st.integers(1, 6000),
    shorter=st.integers(1, 300),
    crop=st.integers(1, 300),
)
def test_geometry_equals_torchvision(width, height, shorter, crop):
    """The resized size and the crop's corner are torchvision's, without an image."""
    size = resized_size(width, height, shorter)
    expected = functional._compute_resized_output_size((height, width), [shorter])
    assert list(size) == expected[::-1]
    if crop <= min(size):
        left, top, _, _ = center_box(*size, crop)
        assert top == round((size[1] - crop) / 2.0)  # as functional.center_crop
        assert left == round((size[0] - crop) / 2.0)


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_normalisation_is_bit_identical(memory_format):
    """A normalised batch equals ToTensor + Normalize of each image."""
    view = ViewSpec()
    images = [noise(224, 224), noise(224, 225).crop((0, 1, 224, 225))]
    reference_view = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(view.mean, view.std)]
    )
    expected = torch.stack([reference_view(image) for image in images])
    pixels = torch.from_numpy(np.stack([np.asarray(i) for i in images]))
    batch = pixels.permute(0, 3, 1, 2)
    if memory_format == "contiguous":
        batch = batch.contiguous()
    assert torch.equal(expected, normalise(batch, view))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_whole_view_equals_the_weights_own_transform(backbone):
    """For every published weights: render + normalise is weights.transforms()."""
    image = noise(320, 213)
    for weights in get_model_weights(backbone):
        view = ViewSpec.of(BACKBONES[backbone].weights[weights.name])
        pixels = torch.from_numpy(render(image, view)[None].copy())
        ours = normalise(pixels.permute(0, 3, 1, 2), view)[0]
        assert torch.equal(weights.transforms()(image), ours)
