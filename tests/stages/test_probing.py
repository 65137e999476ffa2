"""fit_head: from a cache to a model file and its reports."""

import csv
import json
import os

import numpy as np
import pytest

import featcache
from featcache.core.errors import (
    CacheCorruptError,
    CacheMismatchError,
    CacheNotFoundError,
    ModelError,
    TrainingError,
)
from featcache.core.specs import ExtractSpec, FinetuneSpec, LogRegSpec, SgdSpec
from featcache.stages.newest import newest_cache


@pytest.fixture(scope="module")
def cache(shared_photos, tmp_path_factory):
    """The shared photos through a random ResNet-18."""
    path = tmp_path_factory.mktemp("cache") / "it.h5"
    return featcache.extract(shared_photos, weights="random:0", cache=path)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Runs go to the test's own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "spec", [SgdSpec(lr=1e-4), LogRegSpec()], ids=["sgd", "logreg"]
)
def test_a_model_remembers_what_made_it(cache, spec):
    """The file holds head, classes, view and backbone identity; numbers agree."""
    fitted = featcache.fit_head(cache, spec)
    model = featcache.open_model(fitted.model)
    assert model.classes == ("ants", "bees")
    assert model.weights_sha256 == cache.spec.weights_sha256
    assert (model.view, model.weights) == (cache.spec.view, "random:0")
    assert np.array_equal(model.head.weight, fitted.head.weight)
    measured = featcache.evaluate(fitted.model, cache)
    assert measured.accuracy == fitted.val_accuracy
    assert measured.log_loss == pytest.approx(fitted.report.val_loss)


def test_report_and_history_lie_beside_the_model(cache):
    """report.json says how to do it again; history.csv has a line per epoch."""
    fitted = featcache.fit_head(cache, SgdSpec(epochs=3, lr=1e-4))
    report = json.loads((fitted.model.parent / "report.json").read_text())
    assert report["settings"]["lr"] == 1e-4
    assert report["provenance"]["versions"]["numpy"] == np.__version__
    with (fitted.model.parent / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]


def test_two_runs_never_share_a_folder(cache):
    """A second run in the same second gets a folder of its own."""
    folders = {featcache.fit_head(cache, SgdSpec(epochs=1)).model for _ in range(3)}
    assert len(folders) == 3


def test_the_newest_cache_is_the_default(tmp_path):
    """The .h5 completed last is taken; where there is none, extract is named."""
    with pytest.raises(CacheNotFoundError, match="make one with 'featcache extract'"):
        featcache.fit_head()
    (tmp_path / "cache").mkdir()
    for name in ("a.h5", "b.h5", "c.h5.partial"):
        (tmp_path / "cache" / name).touch()
    os.utime(tmp_path / "cache" / "a.h5", (2e9, 2e9))
    assert newest_cache().name == "a.h5"


def test_a_damaged_cache_trains_nothing(cache, tmp_path):
    """One flipped bit among the features is found before they are used."""
    data = bytearray(cache.path.read_bytes())
    data[cache.header.columns["features"].offset + 5] ^= 1
    path = tmp_path / "flipped.h5"
    path.write_bytes(data)
    with pytest.raises(CacheCorruptError, match="1 block of rows do not match"):
        featcache.fit_head(path)


def test_skipped_images_are_counted_and_take_no_part(photos, tmp_path):
    """A cache with unusable images says so; a class without any image is an error."""
    for path in (photos / "train" / "ants").iterdir():
        path.write_bytes(b"no image")
    cache = featcache.extract(
        photos,
        ExtractSpec(on_error="skip"),
        weights="random:0",
        cache=tmp_path / "c.h5",
    )
    with pytest.raises(TrainingError, match="no usable training image of ants"):
        featcache.fit_head(cache)


def test_a_cache_of_another_backbone_is_refused(cache, shared_photos, tmp_path):
    """evaluate compares the identity of cache and model."""
    fitted = featcache.fit_head(cache, SgdSpec(epochs=1))
    other = featcache.extract(
        shared_photos, weights="random:1", cache=tmp_path / "o.h5"
    )
    with pytest.raises(CacheMismatchError, match="weights_sha256 is"):
        featcache.evaluate(fitted.model, other)


def test_other_weights_are_refused_by_name(cache, shared_photos):
    """predict will not run a head on features that it was not made for."""
    fitted = featcache.fit_head(cache, SgdSpec(epochs=1))
    with pytest.raises(ModelError, match="belongs to resnet18 with the weights of"):
        featcache.predict(fitted.model, [shared_photos], weights="random:1")


def test_predictions_are_those_of_cached_features(cache, shared_photos):
    """The online way through decoder, backbone and head ends in equal numbers."""
    fitted = featcache.fit_head(cache, SgdSpec(lr=1e-4))
    result = featcache.predict(fitted.model, [shared_photos / "val"])
    val = cache.features("val")
    probabilities = fitted.head.probabilities(val.X)
    assert result.bad_images == ()
    assert [p.label for p in result.predictions] == [
        cache.classes[i] for i in probabilities.argmax(axis=1)
    ]
    assert [p.probability for p in result.predictions] == pytest.approx(
        probabilities.max(axis=1).tolist(), abs=1e-4
    )


def test_what_is_trained_online_without_augmentation_is_the_cached_head(
    shared_photos, cache
):
    """cached = online: equal views, batches and initial weights give equal weights."""
    numbers = {"epochs": 3, "lr": 1e-3, "batch_size": 5, "nesterov": True}
    online = featcache.finetune(
        shared_photos,
        FinetuneSpec(unfreeze="head", augment=False, **numbers),
        weights="random:0",
    )
    cached = featcache.fit_head(cache, SgdSpec(**numbers))
    scale = np.abs(cached.head.weight).max()
    assert np.abs(online.head.weight - cached.head.weight).max() <= 1e-4 * scale
    assert np.abs(online.head.bias - cached.head.bias).max() <= 1e-4 * scale
    assert online.report.best_epoch == cached.report.best_epoch
    assert online.val_accuracy == cached.val_accuracy
