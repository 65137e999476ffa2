"""compare: models on the same images, each from its own cache or a folder."""

import shutil
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

import featcache
from featcache.core.errors import CacheMismatchError, DataError, ModelError
from featcache.core.heads import LinearHead
from featcache.core.intervals import (
    bootstrap_difference,
    holm,
    mcnemar_exact,
    smallest_visible,
    wilson,
)
from featcache.stages.comparing import verdict
from featcache.stages.matching import tell_apart
from featcache.stages.worth import ModelResult, PairResult, kind_of, number, worth
from featcache.store.artifacts import save_model
from featcache.vision.backbones import random_weights


@pytest.fixture(scope="module")
def made(shared_photos, tmp_path_factory):
    """The shared photos through two random networks: caches in cache/."""
    root = tmp_path_factory.mktemp("compared")
    for seed in (0, 1):
        featcache.extract(
            shared_photos, weights=f"random:{seed}", cache=root / f"cache/r{seed}.h5"
        )
    return root


@pytest.fixture
def caches(made, monkeypatch, tmp_path):
    """Both caches, opened, in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return [featcache.open_cache(made / f"cache/r{seed}.h5") for seed in (0, 1)]


def model_of(cache, *, seed=0, classes=None, state=None):
    """A head of random weights for a cache."""
    weight = np.random.default_rng(seed).standard_normal((2, cache.embed_dim))
    head = LinearHead(weight.astype(np.float32), np.zeros(2, np.float32))
    return featcache.Model(
        head=head,
        classes=classes or cache.classes,
        view=cache.spec.view,
        backbone=cache.spec.backbone,
        weights_sha256=cache.spec.weights_sha256,
        weights=cache.provenance["weights"]["source"],
        state=state,
        report={},
    )


class Said:
    """Remembers what was said; of progress nothing."""

    def __init__(self):
        self.lines = []
        self.begin = self.advance = self.end = lambda *_, **__: None

    def say(self, line):
        self.lines.append(line)


def test_each_model_takes_the_cache_of_its_backbone(caches):
    """In whatever order they are named; the accuracies are those of evaluate."""
    a, b = model_of(caches[0]), model_of(caches[1], seed=3)
    report = featcache.compare(a, b, data=caches)
    turned = featcache.compare(a, b, data=caches[::-1])
    assert report == turned
    (pair,) = report.pairs
    for result, model, cache in zip(report.models, (a, b), caches, strict=True):
        assert result.accuracy == featcache.evaluate(model, cache).accuracy
    assert (report.images, report.unpaired, report.split) == (8, 0, "val")
    right = [
        (m.head.scores(c.features("val").X).argmax(axis=1) == c.features("val").y)
        for m, c in ((a, caches[0]), (b, caches[1]))
    ]
    assert pair.only_a_right == (right[0] & ~right[1]).sum()
    assert pair.both_right == (right[0] & right[1]).sum()
    assert pair.p_value == pair.adjusted_p_value == mcnemar_exact(*right)
    assert pair.difference == report.models[0].accuracy - report.models[1].accuracy
    assert report.models[0].accuracy_interval == wilson(int(right[0].sum()), 8)
    assert report.worth is None


def test_without_data_the_newest_fitting_caches_are_taken(made, caches, monkeypatch):
    """Files that are no caches, or fit no model, are passed over."""
    monkeypatch.chdir(made)
    (made / "cache" / "newer.h5").write_bytes(b"no cache")
    a, b = model_of(caches[0]), model_of(caches[1])
    report = featcache.compare(a, b)
    assert [m.data for m in report.models] == ["cache/r0.h5", "cache/r1.h5"]
    both = featcache.compare(a, model_of(caches[0], seed=5))
    assert [m.data for m in both.models] == ["cache/r0.h5", "cache/r0.h5"]


def test_the_cache_that_a_head_was_fitted_on_comes_first(made, caches, tmp_path):
    """Not a newer one that fits as well."""
    (tmp_path / "cache").mkdir()
    shutil.copy(made / "cache/r0.h5", tmp_path / "cache/newer.h5")
    shutil.copy(made / "cache/r0.h5", tmp_path / "older.h5")
    a, b = (
        replace(model_of(caches[0], seed=s), report={"settings": {"cache": "older.h5"}})
        for s in (0, 5)
    )
    assert {m.data for m in featcache.compare(a, b).models} == {"older.h5"}
    (tmp_path / "older.h5").unlink()
    assert {m.data for m in featcache.compare(a, b).models} == {"cache/newer.h5"}


def test_maps_fit_no_head(made, caches, shared_photos, tmp_path):
    """Newest or named: they are of the same network, but they are no features."""
    (tmp_path / "cache").mkdir()
    shutil.copy(made / "cache/r0.h5", tmp_path / "cache")
    how = {"weights": "random:0", "layer": "layer3", "cache": "cache/maps.h5"}
    maps = featcache.extract(shared_photos, **how)
    a, b = model_of(caches[0]), model_of(caches[0], seed=5)
    assert {m.data for m in featcache.compare(a, b).models} == {"cache/r0.h5"}
    with pytest.raises(CacheMismatchError, match=r"maps\.h5 holds maps of layer3, no"):
        featcache.compare(a, b, data=[maps])


def test_a_folder_does_where_no_cache_fits(caches, shared_photos):
    """The features are computed, and the same images are compared."""
    a, b = model_of(caches[0]), model_of(caches[1])
    report = featcache.compare(a, b, shared_photos, caches[0])
    expected = [str(caches[0].path), str(shared_photos)]
    assert [m.data for m in report.models] == expected
    accuracies = [m.accuracy for m in featcache.compare(a, b, data=caches).models]
    assert [m.accuracy for m in report.models] == accuracies
    assert report.images == 8


def test_no_fitting_cache_is_an_error_that_says_why(caches):
    """The field that differs, both values, and what to do."""
    a, b = model_of(caches[0]), model_of(caches[1])
    with pytest.raises(CacheMismatchError, match=r"belongs to model B: weights_sha256"):
        featcache.compare(a, b, caches[0])
    with pytest.raises(CacheMismatchError, match=r"no cache in cache. belongs to"):
        featcache.compare(a, b)
    other = model_of(caches[0], classes=("ants", "wasps"))
    with pytest.raises(CacheMismatchError, match="classes of another task: bees"):
        featcache.compare(other, a, caches[0])


def test_a_fine_tuned_model_needs_the_folder(caches):
    """No cache holds the features of a backbone that was trained."""
    tuned = model_of(caches[0], state={"conv1.weight": np.zeros(1, np.float32)})
    with pytest.raises(ModelError, match="name the image folder as well"):
        featcache.compare(model_of(caches[0]), tuned, *caches)


def test_the_order_of_a_models_classes_does_not_matter(caches):
    """The same head with its rows turned round gives the same answers."""
    a = model_of(caches[0])
    turned = LinearHead(a.head.weight[::-1].copy(), a.head.bias[::-1].copy())
    b = replace(a, head=turned, classes=a.classes[::-1])
    report = featcache.compare(a, b, caches[0])
    (pair,) = report.pairs
    assert (pair.only_a_right, pair.only_b_right) == (0, 0)
    assert pair.p_value == 1


@pytest.fixture
def changed(photos):
    """Return what extracts a folder through network 1 after a change."""

    def change(how):
        how(photos / "val")
        return featcache.extract(photos, weights="random:1", cache="cache/changed.h5")

    return change


def test_images_of_one_model_only_are_left_out_and_counted(caches, changed):
    """Seven of eight are in both."""
    other = changed(lambda val: (val / "ants" / "01.jpg").unlink())
    said = Said()
    report = featcache.compare(
        model_of(caches[0]), model_of(other), caches[0], other, progress=said
    )
    assert (report.images, report.unpaired) == (7, 1)
    assert said.lines == ["1 image that only some of the models were given left out"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        pytest.param(
            lambda val: shutil.copy(val / "ants" / "00.jpg", val / "ants" / "01.jpg"),
            r"val/ants/01.jpg has another image in .* \(1 image in all\)",
            id="other bytes",
        ),
        pytest.param(
            lambda val: [p.rename(p.with_stem(f"x{p.stem}")) for p in val.glob("*/*")],
            "have no image in common",
            id="other names",
        ),
    ],
)
def test_different_images_are_refused(caches, changed, how, message):
    """A comparison is of the same images or none."""
    other = changed(how)
    with pytest.raises((CacheMismatchError, DataError), match=message):
        featcache.compare(model_of(caches[0]), model_of(other), caches[0], other)


def test_another_class_of_the_same_image_is_refused(caches):
    """The data of both models must agree about what an image shows."""
    b = model_of(caches[1], classes=caches[1].classes[::-1])
    turned = featcache.open_cache(caches[1].path)
    turned.columns = {**turned.columns, "labels": 1 - turned.labels}
    with pytest.raises(CacheMismatchError, match="has another class in"):
        featcache.compare(model_of(caches[0]), b, caches[0], turned)


def test_an_unknown_split_is_refused(caches):
    """As evaluate does."""
    with pytest.raises(DataError, match="unknown split 'dev'"):
        featcache.compare(model_of(caches[0]), model_of(caches[1]), split="dev")


def test_the_images_of_a_folder_are_told_from_those_of_a_cache(caches, photos):
    """A cache keeps digests, and those of the folder are made for it."""
    shutil.copy(photos / "val/ants/00.jpg", photos / "val/ants/01.jpg")
    message = r"val/ants/01.jpg has another image in .* \(1 image in all\)"
    with pytest.raises(CacheMismatchError, match=message):
        featcache.compare(model_of(caches[0]), model_of(caches[1]), caches[0], photos)


def saved(model, folder):
    """Write a model as a run does; return the run's folder."""
    folder.mkdir(parents=True)
    save_model(model, folder / "model.safetensors")
    return folder


def trained(cache, seed=0, **settings):
    """A model whose report says how it was trained."""
    return replace(model_of(cache, seed=seed), report={"settings": settings})


def test_runs_are_told_from_data(caches, shared_photos, tmp_path):
    """Run folders and .safetensors are models; the rest is data; order is free."""
    run = saved(model_of(caches[0]), tmp_path / "run")
    file, opened = run / "model.safetensors", model_of(caches[1])
    given = [caches[0], str(run), "digits", file, shared_photos, opened, "parts-*.h5"]
    models, data = tell_apart(given)
    assert models == [str(run), file, opened]
    assert data == [caches[0], "digits", shared_photos, "parts-*.h5"]
    with pytest.raises(DataError, match=r"there is no runs/typo: expected the folder"):
        tell_apart(["runs/typo"])


def test_fewer_than_two_models_are_refused(caches, shared_photos, tmp_path):
    """What was taken as data is said: it may be a run that wrote no model yet."""
    run = saved(model_of(caches[0]), tmp_path / "run")
    with pytest.raises(
        ModelError, match=r"got 1 \(.*run\); .*photos taken as data, since no model.saf"
    ):
        featcache.compare(run, shared_photos)


def test_runs_without_data_take_the_folder_that_they_were_trained_on(
    caches, shared_photos
):
    """There is no cache here; which folder it is is said."""
    a, b = (trained(c, data=str(shared_photos)) for c in caches)
    said = Said()
    report = featcache.compare(a, b, progress=said)
    assert [m.data for m in report.models] == [str(shared_photos)] * 2
    expected = f"on the images of {shared_photos}, as model A was trained on"
    assert said.lines == [expected]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        pytest.param(("gone", "gone"), "model A was trained on gone, and", id="gone"),
        pytest.param(("x", "y"), "model A on x, model B on y; name the", id="two"),
    ],
)
def test_a_folder_that_cannot_be_taken_is_named(caches, folders, message):
    """Rather than comparing on something else."""
    a, b = (trained(c, data=f) for c, f in zip(caches, folders, strict=True))
    with pytest.raises(DataError, match=message):
        featcache.compare(a, b)


def test_a_file_is_not_compared_with_itself(caches, tmp_path):
    """Whatever way it is named; and it takes no part in the correction."""
    run = saved(model_of(caches[0]), tmp_path / "run")
    other = model_of(caches[0], seed=3)
    (twice,) = featcache.compare(run, run / "model.safetensors", caches[0]).pairs
    assert (twice.p_value, twice.adjusted_p_value) == (None, None)
    assert twice.verdict == "A and B are the same file: there is nothing to compare"
    assert not twice.distinguishable
    same, first, again = featcache.compare(run, run, other, caches[0]).pairs
    assert same.p_value is None
    assert first.adjusted_p_value == again.adjusted_p_value == min(1, 2 * first.p_value)


def test_every_two_of_several_models_are_compared(caches):
    """Each pair's counts are those of the pair alone; p values are Holm's."""
    models = [model_of(caches[0], seed=seed) for seed in range(4)]
    report = featcache.compare(*models, caches[0])
    named = dict(zip("ABCD", models, strict=True))
    assert [(p.a, p.b) for p in report.pairs] == list(combinations("ABCD", 2))
    for pair in report.pairs:
        (alone,) = featcache.compare(named[pair.a], named[pair.b], caches[0]).pairs
        assert pair.p_value == alone.p_value
        assert pair.difference_interval == alone.difference_interval
        assert pair.only_a_right == alone.only_a_right
    expected = holm([p.p_value for p in report.pairs])
    assert [p.adjusted_p_value for p in report.pairs] == expected
    assert "a" not in report.to_json()


def pair_of(*counts, tests=1, a="A", b="B"):
    """The pair with these counts: right in both, in a alone, in b alone, in none."""
    right_a = np.repeat([True, True, False, False], counts)
    right_b = np.repeat([True, False, True, False], counts)
    n, p = sum(counts), mcnemar_exact(right_a, right_b)
    return PairResult(
        *(a, b, *counts, (counts[1] - counts[2]) / n),
        bootstrap_difference(right_a, right_b),
        *(p, min(1.0, tests * p), tests * p < 0.05),
        smallest_visible(counts[1] + counts[2], n, tests=tests),
        "",
    )


SEEN = (
    "not distinguishable: with 153 images, of which 4 are right in one model only, a "
    "difference under about 3.9 points cannot be seen"
)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param((136, 12, 2, 3), "A is better than B", id="a"),
        pytest.param((136, 2, 12, 3), "B is better than A", id="b"),
        pytest.param((142, 4, 0, 7), SEEN, id="neither"),
        pytest.param(
            (2, 0, 3, 0),
            "not distinguishable: with 5 images no difference can be seen",
            id="five images",
        ),
    ],
)
def test_the_verdict_is_a_sentence(counts, expected):
    """It names the better model, or what could have been seen at all."""
    assert verdict(pair_of(*counts)) == expected


def result(kind, accuracy, seconds=None, backbone="resnet18"):
    """A model of a kind."""
    interval = (0.0, 1.0)
    return ModelResult(
        "m", "d", accuracy, interval, 0, kind, backbone, seconds, None
    )  # fmt: skip


HEAD = result("cached head", 0.9, 0.08)
ONLINE = result("head-only", 0.9, 200.0)
TUNED = result("fine-tuned", 0.95, 380.0)


@pytest.mark.parametrize(
    ("models", "counts", "expected"),
    [
        pytest.param(
            (HEAD, TUNED),
            (142, 1, 3, 7),
            "nothing here shows that fine-tuning is worth it: B, fine-tuned in 380 s, "
            "is not distinguishable from the cached head A, fitted in 0.08 s after one "
            "extraction: with 153 images, of which 4 are right in one model only, a "
            "difference under about 3.9 points cannot be seen",
            id="not seen",
        ),
        pytest.param(
            (ONLINE, TUNED),
            (136, 2, 12, 3),
            "fine-tuning gains 6.5 points here (95 % interval: 2.0 to 11.8): B, "
            "fine-tuned in 380 s, against the head A, trained online in 200 s, "
            "1.9 times the seconds",
            id="gains",
        ),
        pytest.param(
            (TUNED, HEAD),
            (136, 2, 12, 3),
            "fine-tuning hurts here: A, fine-tuned in 380 s, is 6.5 points below the "
            "cached head B, fitted in 0.08 s after one extraction (95 % interval: 2.0 "
            "to 11.8)",
            id="hurts",
        ),
        pytest.param(
            (replace(TUNED, backbone="resnet50"), replace(HEAD, seconds=None)),
            (136, 12, 2, 3),
            "fine-tuning gains 6.5 points here (95 % interval: 2.0 to 11.8): A, "
            "fine-tuned in 380 s, against the cached head B, fitted after one "
            "extraction (their backbones differ: resnet50 and resnet18)",
            id="other backbone",
        ),
        pytest.param((HEAD, ONLINE), (136, 12, 2, 3), None, id="two heads"),
        pytest.param(
            (HEAD, result("from scratch", 0.7)), (100, 50, 0, 3), None, id="scratch"
        ),
    ],
)
def test_whether_fine_tuning_is_worth_it_is_a_sentence(models, counts, expected):
    """It claims no more than the test supports, and only what was asked."""
    assert worth(dict(zip("AB", models, strict=True)), [pair_of(*counts)]) == expected


def test_the_best_of_each_kind_are_held_against_each_other():
    """Of the same backbone where there is a head of it."""
    models = {
        "A": result("fine-tuned", 0.9, backbone="resnet50"),
        "B": result("fine-tuned", 0.95, backbone="resnet50"),
        "C": result("cached head", 0.99, backbone="resnet18"),
        "D": result("cached head", 0.9, backbone="resnet50"),
    }
    pairs = [
        pair_of(10, 0, 0, 0, a=a, b=b) for a, b in combinations(models, 2)
    ]  # fmt: skip
    expected = "it: B, fine-tuned, is not distinguishable from the cached head D, "
    assert expected in worth(models, pairs)


@pytest.mark.parametrize(
    ("report", "fine_tuned", "expected"),
    [
        pytest.param({"solver": "finetune-full"}, True, "fine-tuned", id="full"),
        pytest.param({"solver": "finetune-head-only"}, True, "head-only", id="drift"),
        pytest.param({"solver": "finetune-head-only"}, False, "head-only", id="head"),
        pytest.param(
            {"solver": "finetune-full", "settings": {"from_scratch": True}},
            True,
            "from scratch",
            id="scratch",
        ),
        pytest.param({"solver": "sgd"}, False, "cached head", id="sgd"),
        pytest.param({"settings": 3, "solver": []}, False, "cached head", id="hostile"),
    ],
)
def test_how_a_model_was_trained_is_in_its_report(caches, report, fine_tuned, expected):
    """A drifted backbone is that of a head-only training."""
    state = {"conv1.weight": np.zeros(1, np.float32)} if fine_tuned else None
    model = replace(model_of(caches[0], state=state), report=report)
    assert kind_of(model) == expected


@pytest.mark.parametrize("value", [None, "7", True, -1, 0, float("nan"), float("inf")])
def test_seconds_that_are_none_are_not_told(value):
    """A report is JSON from whoever wrote the file."""
    assert number({"seconds": value}, "seconds") is None
    assert number({"seconds": 7}, "seconds") == 7


@pytest.mark.slow
def test_on_train_nothing_is_said_of_fine_tuning(caches, shared_photos):
    """Who trained longer knows the training images better."""
    state = {k: v.numpy() for k, v in random_weights("resnet18", seed=0).items()}
    tuned = replace(model_of(caches[0], state=state), report={"solver": "finetune-x"})
    given = (tuned, model_of(caches[0]), shared_photos)
    assert "fine-tuning" in featcache.compare(*given).worth
    assert featcache.compare(*given, split="train").worth is None
