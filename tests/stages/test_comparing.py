"""compare: two models on the same images, each from its own cache or a folder."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import featcache
from featcache.core.errors import CacheMismatchError, DataError, ModelError
from featcache.core.heads import LinearHead
from featcache.core.intervals import mcnemar_exact, wilson
from featcache.stages.comparing import verdict


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
    report = featcache.compare(a, b, caches)
    turned = featcache.compare(a, b, caches[::-1])
    assert report == turned
    assert report.a.accuracy == featcache.evaluate(a, caches[0]).accuracy
    assert report.b.accuracy == featcache.evaluate(b, caches[1]).accuracy
    assert (report.images, report.unpaired, report.split) == (8, 0, "val")
    right = [
        (m.head.scores(c.features("val").X).argmax(axis=1) == c.features("val").y)
        for m, c in ((a, caches[0]), (b, caches[1]))
    ]
    assert report.only_a_right == (right[0] & ~right[1]).sum()
    assert report.both_right == (right[0] & right[1]).sum()
    assert report.p_value == mcnemar_exact(*right)
    assert report.difference == report.a.accuracy - report.b.accuracy
    assert report.a.accuracy_interval == wilson(int(right[0].sum()), 8)


def test_without_data_the_newest_fitting_caches_are_taken(made, caches, monkeypatch):
    """Files that are no caches, or fit no model, are passed over."""
    monkeypatch.chdir(made)
    (made / "cache" / "newer.h5").write_bytes(b"no cache")
    a, b = model_of(caches[0]), model_of(caches[1])
    report = featcache.compare(a, b)
    assert (report.a.data, report.b.data) == ("cache/r0.h5", "cache/r1.h5")
    both = featcache.compare(a, model_of(caches[0], seed=5))
    assert both.a.data == both.b.data == "cache/r0.h5"


def test_a_folder_does_where_no_cache_fits(caches, shared_photos):
    """The features are computed, and the same images are compared."""
    a, b = model_of(caches[0]), model_of(caches[1])
    report = featcache.compare(a, b, [shared_photos, caches[0]])
    assert (report.a.data, report.b.data) == (str(caches[0].path), str(shared_photos))
    assert report.b.accuracy == featcache.compare(a, b, caches).b.accuracy
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
        featcache.compare(model_of(caches[0]), tuned, caches)


def test_the_order_of_a_models_classes_does_not_matter(caches):
    """The same head with its rows turned round gives the same answers."""
    a = model_of(caches[0])
    turned = LinearHead(a.head.weight[::-1].copy(), a.head.bias[::-1].copy())
    b = replace(a, head=turned, classes=a.classes[::-1])
    report = featcache.compare(a, b, caches[0])
    assert (report.only_a_right, report.only_b_right) == (0, 0)
    assert report.p_value == 1


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
        model_of(caches[0]), model_of(other), [caches[0], other], progress=said
    )
    assert (report.images, report.unpaired) == (7, 1)
    assert said.lines == ["1 image that only one of the models was given left out"]


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
        featcache.compare(model_of(caches[0]), model_of(other), [caches[0], other])


def test_another_class_of_the_same_image_is_refused(caches):
    """The data of both models must agree about what an image shows."""
    b = model_of(caches[1], classes=caches[1].classes[::-1])
    turned = featcache.open_cache(caches[1].path)
    turned.columns = {**turned.columns, "labels": 1 - turned.labels}
    with pytest.raises(CacheMismatchError, match="has another class in"):
        featcache.compare(model_of(caches[0]), b, [caches[0], turned])


def test_an_unknown_split_is_refused(caches):
    """As evaluate does."""
    with pytest.raises(DataError, match="unknown split 'dev'"):
        featcache.compare(model_of(caches[0]), model_of(caches[1]), split="dev")


def answers(both, only_a, only_b, neither):
    """Right and wrong of two models, by counts."""
    counts = (both, only_a, only_b, neither)
    a = np.repeat([True, True, False, False], counts)
    b = np.repeat([True, False, True, False], counts)
    return a, b


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
    assert verdict(*answers(*counts)) == expected
