"""Settings of views: what is refused, and what they are to a cache's identity."""

import json
from dataclasses import replace

import pytest

from featcache.core.errors import SpecError
from featcache.core.specs import AugmentSpec, FeatureSpec, ViewSpec

SPEC = FeatureSpec(backbone="resnet18", weights_sha256="0" * 64, view=ViewSpec())
BAD = {
    "scale": [(0, 1), (0.5, 0.1), (0.1, 1.5), (0.1,), [0.1, 1.0], None, (True, 1.0)],
    "ratio": [(-1, 1), (2, 1), ("a", "b"), 1.0],
    "flip": [-0.1, 1.1, None, True, "0.5", float("nan")],
    "seed": [-1, 0.5, None],
}


@pytest.mark.parametrize(
    ("field", "value"), [(f, v) for f, values in BAD.items() for v in values], ids=str
)
def test_a_bad_augmentation_is_refused_by_name(field, value):
    """The error names field and value."""
    with pytest.raises(SpecError, match=f"^{field} must be [^\n]+, got [^\n]+$"):
        AugmentSpec(**{field: value})


@pytest.mark.parametrize("views", [0, -1, 257, 1.5, True, None, "4"])
def test_a_bad_number_of_views_is_refused(views):
    """It is a whole number from 1 to 256."""
    with pytest.raises(SpecError, match=r"^views must be a whole number from 1 to 256"):
        replace(SPEC, views=views)


def test_one_view_says_nothing_of_views():
    """Caches from before there were several keep their fingerprint."""
    assert not {"views", "augment"} & set(SPEC.to_json())
    other = replace(SPEC, augment=AugmentSpec(seed=5))  # draws nothing
    assert other == SPEC
    assert other.fingerprint == SPEC.fingerprint


def test_several_views_survive_json():
    """Written and read again they are equal."""
    spec = replace(SPEC, views=4, augment=AugmentSpec(scale=(0.5, 1), flip=0, seed=3))
    fields = json.loads(json.dumps(spec.to_json()))
    assert FeatureSpec.from_json(fields) == spec
    assert fields["views"] == 4
    assert fields["augment"]["scale"] == [0.5, 1.0]


def test_each_field_of_several_views_is_part_of_the_identity():
    """Number, crops, mirroring and seed: each makes another cache."""
    four = replace(SPEC, views=4)
    changes = [{"scale": (0.2, 1.0)}, {"ratio": (1.0, 1.0)}, {"flip": 0}, {"seed": 1}]
    others = [replace(four, augment=AugmentSpec(**change)) for change in changes]
    found = {s.fingerprint for s in (SPEC, four, replace(SPEC, views=5), *others)}
    assert len(found) == 7


def test_whole_numbers_and_floats_are_one_augmentation():
    """1 and 1.0 give one fingerprint."""
    one, two = (AugmentSpec(scale=(0.5, v), flip=v) for v in (1, 1.0))
    assert one == two
    assert json.dumps(one.to_json()) == json.dumps(two.to_json())


@pytest.mark.parametrize(
    "change",
    [
        {"augment": None},
        {"augment": {}},
        {"augment": {"scale": 1, "ratio": [1, 1], "flip": 0, "seed": 0}},
        {"views": "4"},
        {"views": 10**9},
    ],
    ids=str,
)
def test_a_hostile_spec_is_refused(change):
    """What a file from elsewhere says of views is checked."""
    fields = {**replace(SPEC, views=4).to_json(), **change}
    with pytest.raises(SpecError):
        FeatureSpec.from_json(fields)


def test_a_gpu_does_not_decode_for_several_views():
    """Its decoder makes the first view alone."""
    view = ViewSpec(decoder="nvjpeg")
    assert replace(SPEC, view=view).views == 1
    with pytest.raises(SpecError, match="must be 1 with the decoder nvjpeg, got 4"):
        replace(SPEC, view=view, views=4)
