"""Layers: shapes of maps by arithmetic are those that torchvision's networks give."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models import get_model

from featcache.core.catalog import BACKBONES
from featcache.core.errors import CacheMismatchError, SpecError
from featcache.core.finetune_spec import SHALLOWEST_FIRST, UNFREEZE
from featcache.core.layers import (
    LAYERS,
    POOLED,
    default_dtype,
    map_shape,
    require_layer,
    row_size,
    stages_up_to,
    unfrozen_behind,
)
from featcache.core.specs import FeatureSpec, ViewSpec


def spec(**changes):
    fields = {"backbone": "resnet18", "weights_sha256": "0" * 64, "view": ViewSpec()}
    return FeatureSpec(**{**fields, **changes})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if "1" in name[6:] else ())
        for name in BACKBONES
    ],
)
def test_shapes_are_torchvisions_for_every_crop(name):
    """Every stage of every backbone, odd and tiny crops among them."""
    with torch.device("meta"):
        network = get_model(name).eval()
    for crop in (1, 7, 65, 97, 224):
        maps = torch.empty(1, 3, crop, crop, device="meta")
        maps = network.maxpool(network.bn1(network.conv1(maps)))
        found = {"stem": maps.shape[1:]}
        for stage in SHALLOWEST_FIRST[1:]:
            maps = network.get_submodule(stage)(maps)
            found[stage] = maps.shape[1:]
        for layer in LAYERS:
            if layer != POOLED:
                assert map_shape(name, layer, crop) == found[layer]
                assert row_size(name, layer, crop) == found[layer].numel()
    assert map_shape(name, POOLED, 224) is None
    assert row_size(name, POOLED, 224) == network.fc.in_features


def test_layers_are_those_behind_which_something_is_trained():
    """Each serves another --unfreeze, and together they serve all but everything."""
    assert {unfrozen_behind(layer) for layer in LAYERS} == set(UNFREEZE) - {"all"}
    for layer in LAYERS:
        stages = stages_up_to(layer)
        assert stages == SHALLOWEST_FIRST[: len(stages)]
        assert stages[-1] == (layer if layer != POOLED else "layer4")


def test_maps_are_half_as_large_unless_somebody_asks():
    """float16 of maps, float32 of features."""
    found = {layer: default_dtype(layer) for layer in LAYERS}
    assert found.pop(POOLED) == "float32"
    assert set(found.values()) == {"float16"}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer4", r"unknown layer 'layer4'.*known: avgpool, layer3, layer2"),
        ("Layer3", r"did you mean 'layer3'\?"),
        ("", "unknown layer"),
    ],
)
def test_other_layers_are_refused(layer, message):
    """By name, with those there are."""
    with pytest.raises(SpecError, match=message):
        require_layer(layer)
    with pytest.raises(SpecError, match="layer"):
        spec(layer=layer)


def test_the_fingerprint_of_features_is_what_it_was():
    """Caches from before there were other layers stay valid."""
    expected = "bf4ad55f537d6a1ce57c87e475ed7f2b730720a919bad60c54084fd218dbc0b9"
    assert spec().fingerprint == expected
    assert spec().to_json()["layer"] == "avgpool"


@given(
    one=st.sampled_from(LAYERS),
    other=st.sampled_from(LAYERS),
    views=st.integers(1, 3),
    crop=st.integers(1, 256),
)
def test_a_layer_is_part_of_the_identity(one, other, views, crop):
    """Equal layers, equal fingerprints; written and read it is the same spec."""
    view = ViewSpec(crop=crop)
    first, second = (spec(layer=x, views=views, view=view) for x in (one, other))
    assert (first.fingerprint == second.fingerprint) == (one == other)
    assert FeatureSpec.from_json(first.to_json()) == first
    size = first.embed_dim
    assert first.row_shape(size) == ((size,) if views == 1 else (views, size))


def test_maps_are_refused_where_features_are_wanted():
    """The message says what the file holds, and what takes it."""
    spec().require_features("it.h5")
    with pytest.raises(
        CacheMismatchError,
        match=r"it.h5 holds maps of layer3 \(256x14x14 an image\).*finetune --unfreeze "
        r"layer4 --from-cache it.h5",
    ):
        spec(layer="layer3").require_features("it.h5")
