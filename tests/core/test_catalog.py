"""The catalog is a copy of what torchvision says: each row is held against it."""

import pytest
import torch
import torchvision
from torchvision.transforms import InterpolationMode

from featcache.core.catalog import BACKBONES, DEFAULT_BACKBONE, architecture
from featcache.core.errors import SpecError
from featcache.core.specs import ViewSpec

PUBLISHED = [
    pytest.param(name, weights, id=f"{name}-{weights.name}")
    for name, row in BACKBONES.items()
    for weights in row.weights.values()
]


def enum_of(name):
    """Return torchvision's own enum of a backbone's weights."""
    return torchvision.models.get_model_weights(name)


@pytest.mark.parametrize("name", BACKBONES)
def test_embed_dim_is_what_the_classifier_takes(name):
    """D is ``fc.in_features``."""
    with torch.device("meta"):
        network = torchvision.models.get_model(name)
    assert BACKBONES[name].embed_dim == network.fc.in_features


@pytest.mark.parametrize("name", BACKBONES)
def test_all_published_weights_are_known(name):
    """Names and order are the enum's, so that the first are the default."""
    assert list(BACKBONES[name].weights) == [w.name for w in enum_of(name)]
    assert BACKBONES[name].default_weights.name == next(iter(enum_of(name))).name


def test_all_resnets_are_known():
    """Whatever torchvision builds out of the ResNet class is in the table."""
    names = torchvision.models.list_models(torchvision.models)
    assert set(BACKBONES) == {
        name for name in names if name.startswith(("resn", "wide_resn"))
    }


@pytest.mark.parametrize(("name", "weights"), PUBLISHED)
def test_files_are_torchvisions(name, weights):
    """The address is the enum's, and the name states the digest."""
    assert weights.url == enum_of(name)[weights.name].url
    assert weights.file == f"{name}-{weights.sha256_prefix}.pth"
    assert len(bytes.fromhex(weights.sha256_prefix)) == 4


@pytest.mark.parametrize(("name", "weights"), PUBLISHED)
def test_views_are_torchvisions(name, weights):
    """The view is ``weights.transforms()``, field by field."""
    theirs = enum_of(name)[weights.name].transforms()
    ours = ViewSpec.of(weights)
    assert [ours.resize] == theirs.resize_size
    assert [ours.crop] == theirs.crop_size
    assert theirs.interpolation is InterpolationMode.BILINEAR
    assert ours.interpolation == "bilinear"
    assert ours.antialias is theirs.antialias
    assert list(ours.mean) == theirs.mean
    assert list(ours.std) == theirs.std


def test_a_name_is_found():
    """The default is in the table."""
    assert architecture(DEFAULT_BACKBONE).name == DEFAULT_BACKBONE


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param(
            "resnet5",
            r"unknown backbone 'resnet5'; did you mean 'resnet50'\? \(known: resnet18,",
            id="a slip",
        ),
        pytest.param("vgg16", r"unknown backbone 'vgg16' \(known: ", id="another"),
    ],
)
def test_an_unknown_name_is_refused(name, message):
    """The error lists what is known, and asks when a name is near."""
    with pytest.raises(SpecError, match=message):
        architecture(name)
