"""Specs: bad values are refused by name, and identity follows from each field."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.errors import SpecError
from featcache.core.fingerprint import fingerprint
from featcache.core.specs import (
    ExtractSpec,
    FeatureSpec,
    FinetuneSpec,
    LogRegSpec,
    SgdSpec,
    SweepSpec,
    ViewSpec,
)

VIEW = ViewSpec()
SPEC = FeatureSpec(backbone="resnet18", weights_sha256="0" * 64, view=VIEW)

BAD = {
    ViewSpec: {
        "resize": [0, 256.0, "256", True, 4097, None],
        "crop": [0, -1, 300, 224.5, None],
        "interpolation": ["bicubic", None],
        "antialias": [False, 1, "True"],
        "mean": [(0.5, 0.5), (0.5, 0.5, math.nan), ("a", "b", "c"), [0.5] * 3, 0.5],
        "std": [(0, 1, 1), (1, 1, -1), (1, 1, math.inf), (1, 1), "abc"],
        "exif": ["rotate", True, None],
        "alpha": ["keep"],
        "sixteen_bit": ["clip"],
        "decoder": ["gpu", None],
    },
    FeatureSpec: {
        "backbone": [None, 18, ["resnet18"]],
        "weights_sha256": ["", "0" * 63, "x" * 64, None, 0],
        "view": [None, {}, 224],
        "layer": ["layer4", None],
        "precision": ["float16", "double", None],
        "dtype": ["float64", "bfloat16", None],
    },
    ExtractSpec: {
        "batch_size": [-1, 1.5, "8"],
        "workers": [-1, None],
        "on_error": ["ignore", None],
    },
    SgdSpec: {
        "lr": [0, -0.1, math.nan, math.inf, "0.1", None],
        "momentum": [-0.1, 1, math.nan],
        "weight_decay": [-1e-9, math.inf, math.nan],
        "epochs": [0, -1, 2.5, True],
        "batch_size": [0, 4.0],
        "step_size": [0, 0.5],
        "gamma": [0, -1, math.nan, math.inf],
        "seed": [-1, 0.5, None],
        "nesterov": [1, None],
        "standardize": ["l1", None, ("l2",)],
    },
    SweepSpec: {
        "lr": [(), 0.1, [0.1]],
        "standardize": ["l2", ()],
        "l2_lr_mult": [0, math.nan],
        "select_on": ["test", True],
        "holdout": [0, 1],
        "refit": [1],
        "seeds": [0, 1.5],
        "epochs": [0],
    },
    FinetuneSpec: {
        "head_lr_mult": [0, -1, math.nan, math.inf],
        "workers": [-1],
        "lr": [0],
        "unfreeze": ["layer5", "fc", None],
        "layer_decay": [0, 1.1],
        "optimizer": ["adam"],
        "schedule": ["linear"],
        "warmup": [-1, 0.5],
        "epochs": [-1, 2.5],
        "accumulate": [0],
        "bn": ["eval", None],
        "label_smoothing": [-0.1, 1],
        "mixup": [-1],
        "precision": ["int8"],
        "patience": [0, 1.5],
        "store": ["memory"],
        "store_size": [0, 1.5],
    },
    LogRegSpec: {
        "C": [(), (0,), (1, -1), (math.nan,), (math.inf,), [1.0], 1.0, "1"],
        "holdout": [0, 1, -0.5, 1.5, math.nan],
        "max_iter": [0, 1.5],
        "seed": [-1],
    },
}
REQUIRED = {
    FeatureSpec: {"backbone": "", "weights_sha256": "0" * 64, "view": SPEC.view}
}

OTHER = {
    "backbone": st.sampled_from(["resnet34", "resnet50"]),
    "weights_sha256": st.integers(1, 2**256 - 1).map("{:064x}".format),
    "precision": st.just("bfloat16"),
    "dtype": st.just("float16"),
    "view": st.one_of(
        st.integers(224, 4096).filter(lambda v: v != 256).map(lambda v: {"resize": v}),
        st.integers(1, 256).filter(lambda v: v != 224).map(lambda v: {"crop": v}),
        st.tuples(*[st.floats(-1, 1)] * 3).map(lambda v: {"mean": v}),
        st.tuples(*[st.floats(0.01, 1)] * 3).map(lambda v: {"std": v}),
        st.just({"exif": "ignore"}),
        st.just({"decoder": "nvjpeg"}),
    ).map(lambda change: replace(ViewSpec(), **change)),
}
CHANGES = st.sampled_from(sorted(OTHER)).flatmap(
    lambda name: OTHER[name].map(lambda value: {name: value})
)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        pytest.param(kind, field, value, id=f"{kind.__name__}-{field}-{value!r:.12}")
        for kind, fields in BAD.items()
        for field, values in fields.items()
        for value in values
    ],
)
def test_a_bad_value_is_refused_by_name(kind, field, value):
    """The error names field and value in one line."""
    with pytest.raises(SpecError, match=f"^{field} must be [^\n]+, got [^\n]+$"):
        kind(**{**REQUIRED.get(kind, {}), field: value})


@pytest.mark.parametrize("kind", BAD, ids=lambda kind: kind.__name__)
def test_defaults_are_good(kind):
    """Every spec can be made without naming what has a default."""
    spec = kind(**REQUIRED.get(kind, {}))
    assert replace(spec) == spec


def test_numbers_of_numpy_are_taken():
    """A learning rate out of a numpy grid is as good as a typed one."""
    spec = SgdSpec(lr=np.float32(0.5), epochs=np.int64(3))
    assert json.loads(json.dumps(asdict(spec))) == asdict(SgdSpec(lr=0.5, epochs=3))


@given(change=CHANGES)
def test_a_spec_survives_json(change):
    """Written and read again it is equal, and has the same fingerprint."""
    spec = replace(SPEC, **change)
    fields = json.loads(json.dumps(spec.to_json()))
    assert FeatureSpec.from_json(fields) == spec
    assert FeatureSpec.from_json(dict(reversed(fields.items()))) == spec
    assert fingerprint(fields) == spec.fingerprint


@given(change=CHANGES)
def test_each_field_is_part_of_the_identity(change):
    """Another value of any field is another fingerprint."""
    assert replace(SPEC, **change).fingerprint != SPEC.fingerprint


def test_equal_specs_have_equal_fingerprints():
    """Whole numbers and floats of equal value make equal specs."""
    one, two = (
        replace(SPEC, view=ViewSpec(mean=mean, std=(1, 1, 1)))
        for mean in ((0, 0, 0), (0.0, 0.0, 0.0))
    )
    assert one == two
    assert one.fingerprint == two.fingerprint


def test_the_fingerprint_is_the_one_of_every_other_version():
    """A known spec: a change here makes every cache a stranger."""
    assert SPEC.fingerprint[:16] == "bf4ad55f537d6a1c"
    other = FeatureSpec(
        backbone="resnet50",
        weights_sha256="ab" * 32,
        view=ViewSpec(resize=232),
        precision="bfloat16",
    )
    assert other.fingerprint[:16] == "9f2c5629daf2283b"


def test_a_view_from_before_there_were_decoders_is_pillows():
    """The default decoder is not written down: old files and new ones are equal."""
    fields = VIEW.to_json()
    assert "decoder" not in fields
    assert ViewSpec.from_json(fields) == VIEW
    assert ViewSpec.from_json({**fields, "decoder": "pillow"}) == VIEW
    other = replace(VIEW, decoder="nvjpeg")
    assert other.to_json() == {**fields, "decoder": "nvjpeg"}
    assert ViewSpec.from_json(json.loads(json.dumps(other.to_json()))) == other


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(fields=JSON, where=st.sampled_from(["spec", "view"]), data=st.data())
def test_no_json_breaks_the_reading(fields, where, data):
    """Whatever JSON says, it is a spec or a `SpecError`."""
    good = SPEC.to_json()
    place = good if where == "spec" else good["view"]
    place[data.draw(st.sampled_from(sorted(place)) | st.text())] = fields
    for candidate in (good, fields, {"view": fields}):
        try:
            spec = FeatureSpec.from_json(candidate)
        except SpecError as refused:
            line = str(refused)
        else:
            line = json.dumps(spec.to_json(), allow_nan=False)
        assert line.isprintable()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"view": {}}, "not a view: there is no mean", id="empty view"),
        pytest.param({"view": []}, "not a view: ", id="view is a list"),
        pytest.param({"frob": 1}, "not a feature spec: .*frob", id="unknown field"),
    ],
)
def test_json_that_is_no_spec_is_refused(change, message):
    """The error says what is wrong with it."""
    with pytest.raises(SpecError, match=message):
        FeatureSpec.from_json({**SPEC.to_json(), **change})


def test_the_learning_rate_is_torchs_step_lr():
    """Epoch by epoch."""
    spec = SgdSpec(lr=0.5, step_size=3, gamma=0.2, epochs=10)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=spec.lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, spec.step_size, spec.gamma)
    for epoch in range(spec.epochs):
        assert spec.lr_at(epoch) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("gamma", [1e200, 10**200, 10**308])
def test_a_learning_rate_may_grow_beyond_all_bounds(gamma):
    """It becomes infinite, for training to refuse, and is no `OverflowError`."""
    assert SgdSpec(gamma=gamma, step_size=1).lr_at(24) == math.inf


def test_reading_specs_loads_nothing_heavy():
    """`--help` reads every default and stays fast."""
    heavy = {"numpy", "torch", "h5py", "sklearn", "PIL"}
    code = f"import sys, featcache.core.specs; assert not {heavy} & set(sys.modules)"
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    assert ran.returncode == 0


def test_nesterov_needs_a_momentum():
    """As torch.optim.SGD demands."""
    with pytest.raises(SpecError, match="nesterov needs a momentum above 0"):
        SgdSpec(momentum=0.0, nesterov=True)


def test_a_sweep_is_every_combination_once():
    """The last axis changes fastest, and values named twice count once."""
    sweep = SweepSpec(lr=(0.1, 1.0, 0.1), standardize=("none", "l2"), seed=7)
    found = [(s.lr, s.standardize, s.seed) for s in sweep.specs()]
    assert found == [
        (0.1, "none", 7),
        (0.1, "l2", 7),
        (1.0, "none", 7),
        (1.0, "l2", 7),
    ]


def test_values_of_a_sweep_follow_the_rules_of_one_head():
    """A wrong value among good ones is refused by name."""
    with pytest.raises(SpecError, match=r"^lr must be positive and finite, got -1"):
        SweepSpec(lr=(0.1, -1.0))


def test_a_sweep_takes_numbers_of_numpy():
    """They are written as JSON like any other."""
    sweep = SweepSpec(lr=tuple(np.logspace(-3, 0, 4, dtype=np.float32)))
    assert json.loads(json.dumps(asdict(sweep)))["lr"] == list(sweep.lr)


def test_the_wide_sweep_is_about_fifty_heads():
    """With the tutorial's settings among them."""
    specs = SweepSpec.wide().specs()
    assert len(specs) == 54
    assert SgdSpec() in specs
    assert {s.lr for s in specs if s.standardize == "l2"} == {0.1, 0.3, 1, 3, 10, 30}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"unfreeze": "head", "head_lr_mult": 2.0},
            "only the head has a learning rate",
        ),
        ({"unfreeze": "head", "layer_decay": 0.5}, "no stage of the backbone"),
        (
            {"unfreeze": "layer4", "from_scratch": True},
            "must be all, got layer4",
        ),
        ({"bn": "drift"}, "with unfreeze all none is frozen"),
        ({"norm_decay": False}, "weight_decay is 0 for all"),
        ({"mixup": 0.2, "batch_size": 1}, "got batch_size 1"),
        ({"warmup": 25}, "warmup must be below epochs"),
        ({"nesterov": True, "optimizer": "adamw"}, "nesterov needs SGD"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, words):
    """Each says why, and what to set instead."""
    with pytest.raises(SpecError, match=words):
        FinetuneSpec(**settings)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_the_schedules_are_torchs(schedule, warmup):
    """After the warm-up each epoch's factor is that of torch's own scheduler."""
    torch = pytest.importorskip("torch")
    spec = FinetuneSpec(schedule=schedule, warmup=warmup, epochs=20)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = torch.optim.lr_scheduler
    scheduler = (
        schedulers.StepLR(optimizer, 7, 0.1)
        if schedule == "step"
        else schedulers.CosineAnnealingLR(optimizer, 20 - warmup)
    )
    for epoch in range(warmup):
        assert spec.lr_factor(epoch) == (epoch + 1) / (warmup + 1)
    for epoch in range(warmup, 20):
        [factor] = scheduler.get_last_lr()
        assert spec.lr_factor(epoch) == pytest.approx(factor, rel=1e-9, abs=1e-12)
        optimizer.step()
        scheduler.step()
