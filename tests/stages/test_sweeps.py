"""fit_head with many heads: how the best is chosen, refitted, and reported."""

import json
from dataclasses import replace

import numpy as np
import pytest

import featcache
from featcache.core.errors import TrainingError
from featcache.core.features import Features
from featcache.core.manifest import TEST, TRAIN, VAL
from featcache.core.metrics import accuracy
from featcache.core.progress import Silent
from featcache.core.specs import SgdSpec, SweepSpec
from featcache.core.status import Status
from featcache.stages.fitting import Splits, fit_sweep
from featcache.train.sgd import fit_sgd


def blobs(n, seed, classes=3, dim=8):
    """Features of n samples, a blob per class, overlapping."""
    random = np.random.default_rng(seed)
    y = (np.arange(n) % classes).astype(np.int32)
    centres = np.random.default_rng(0).standard_normal((classes, dim))
    X = centres[y] + random.standard_normal((n, dim))
    return Features(X.astype(np.float32), y, np.arange(n))


def together(*parts):
    """All samples of some features."""
    X, y = np.concatenate([p.X for p in parts]), np.concatenate([p.y for p in parts])
    return Features(X, y, np.arange(len(y)))


TRAIN_PART, VAL_PART = blobs(60, 1), blobs(45, 2)
SPLITS = Splits(TRAIN_PART, VAL_PART, lambda: together(TRAIN_PART, VAL_PART), classes=3)
GRID = SweepSpec(lr=(1e-4, 0.01, 0.1), standardize=("none", "l2"), epochs=6)


def alone(spec, train=TRAIN_PART, val=VAL_PART):
    return fit_sgd(train, val, classes=3, spec=spec)


def test_the_best_on_val_is_kept_as_it_is():
    """Accuracy, then loss; the table has every head, best first."""
    outcome = fit_sweep(SPLITS, GRID)
    heads = outcome.told["heads"]
    keys = [(-h.accuracy, h.loss) for h in heads]
    assert keys == sorted(keys)
    assert len(heads) == 6
    chosen = SgdSpec(lr=heads[0].lr, standardize=heads[0].standardize, epochs=6)
    expected = alone(chosen)
    assert outcome.head.weight == pytest.approx(expected.head.weight, abs=1e-6)
    assert outcome.best_epoch == expected.best_epoch == heads[0].best_epoch
    assert outcome.val_accuracy == heads[0].accuracy
    assert outcome.told["select_on"] == "val"


def test_chosen_on_train_val_has_no_say():
    """Settings and epoch come from a held-out part; then all of train is fitted."""
    sweep = replace(GRID, select_on="train")
    outcome = fit_sweep(SPLITS, sweep)
    best = outcome.told["heads"][0]
    chosen = SgdSpec(lr=best.lr, standardize=best.standardize, epochs=best.best_epoch)
    expected = alone(chosen, val=None)
    assert np.array_equal(outcome.head.weight, expected.head.weight)
    scores = outcome.head.scores(VAL_PART.X)
    assert outcome.val_accuracy == accuracy(scores, VAL_PART.y)
    other = Splits(TRAIN_PART, blobs(9, 3), lambda: TRAIN_PART, classes=3)
    assert np.array_equal(fit_sweep(other, sweep).head.weight, outcome.head.weight)


def test_without_val_train_is_divided():
    """Unless val was asked for: then there is nothing to choose on."""
    splits = replace(SPLITS, val=None)
    outcome = fit_sweep(splits, GRID)
    assert outcome.told["select_on"] == "train"
    assert outcome.val_accuracy is None
    with pytest.raises(
        TrainingError, match="no usable image of val to choose on; pass"
    ):
        fit_sweep(splits, replace(GRID, select_on="val"))
    with pytest.raises(TrainingError, match="no usable image of val to fit on"):
        fit_sweep(splits, replace(GRID, refit=True))


@pytest.mark.parametrize("select_on", ["val", "train"])
def test_a_refit_takes_train_and_val_for_as_many_epochs(select_on):
    """The numbers on val are those of the head before, and it is said."""
    sweep = replace(GRID, select_on=select_on)
    before, outcome = (
        fit_sweep(SPLITS, sweep),
        fit_sweep(SPLITS, replace(sweep, refit=True)),
    )
    best = outcome.told["heads"][0]
    chosen = SgdSpec(lr=best.lr, standardize=best.standardize, epochs=best.best_epoch)
    expected = alone(chosen, together(TRAIN_PART, VAL_PART), None)
    assert np.array_equal(outcome.head.weight, expected.head.weight)
    assert outcome.val_accuracy == before.val_accuracy
    assert outcome.told["fitted_on"] == "train and val"
    assert "those of the head before" in outcome.notes[-1]


@pytest.mark.parametrize("select_on", ["val", "train"])
def test_seeds_give_mean_and_deviation_and_the_first_is_kept(select_on):
    """Each seed has its own initial weights and order."""
    sweep = replace(GRID, select_on=select_on)
    one, three = fit_sweep(SPLITS, sweep), fit_sweep(SPLITS, replace(sweep, seeds=3))
    found = three.told["val_accuracies"]
    assert np.array_equal(one.head.weight, three.head.weight)
    assert found[0] == one.val_accuracy
    assert three.told["val_accuracy_mean"] == pytest.approx(np.mean(found))
    assert three.told["val_accuracy_std"] == pytest.approx(np.std(found, ddof=1))


def said(spec):
    return "\n".join(fit_sweep(SPLITS, spec).notes)


def test_a_best_value_on_the_grids_edge_is_told():
    """Of axes with three values or more; what lies inside is fine."""
    edge = said(SweepSpec(lr=(1e-7, 1e-6, 1e-5), epochs=2))
    assert "the best lr, 1e-05, is the largest that was tried" in edge
    assert "is the" not in said(SweepSpec(lr=(1e-6, 1e-5), epochs=2))
    l2 = {"l2_lr_mult": 10.0, "standardize": ("l2",), "epochs": 2}
    assert "the best lr, 0.0001, is" in said(SweepSpec(lr=(1e-7, 1e-6, 1e-5), **l2))
    decay = SweepSpec(lr=(0.01,), weight_decay=(0.0, 1.0, 10.0), epochs=2)
    assert "the best weight decay" not in said(decay)  # below 0 there is nothing


def test_heads_that_these_images_cannot_tell_apart_are_counted():
    """Binomial: with 45 images some points are noise."""
    notes = said(SweepSpec(lr=(0.01, 0.0100001), epochs=2))
    assert "2 of 2 heads are within one standard error (" in notes
    assert " points on 45 images) of the best" in notes


def test_a_head_that_diverges_is_told_and_listed_last():
    """The others are compared; the note has its settings and epoch."""
    outcome = fit_sweep(SPLITS, SweepSpec(lr=(0.01, 1e30), weight_decay=(10.0,)))
    assert [h.diverged for h in outcome.told["heads"]] == [None, 1]
    assert outcome.told["heads"][1].accuracy is None
    assert (
        "1 head given up: lr 1e+30, weight decay 10, standardize none"
        in outcome.notes[0]
    )


@pytest.fixture(scope="module")
def cache(shared_photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "it.h5"
    return featcache.extract(shared_photos, weights="random:0", cache=path)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Runs go to the test's own folder."""
    monkeypatch.chdir(tmp_path)


class Listener(Silent):
    """Writes the lines down."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        """Write it down."""
        self.lines.append(line)


def test_a_sweep_ends_in_a_model_that_scores_as_reported(cache):
    """For every standardisation; the file says what was chosen."""
    for way in ("none", "zscore", "l2"):
        listener = Listener()
        spec = SweepSpec(lr=(1e-4, 1e-3), standardize=(way,), epochs=3)
        fitted = featcache.fit_head(cache, spec, progress=listener)
        measured = featcache.evaluate(fitted.model, cache)
        assert measured.accuracy == fitted.val_accuracy
        assert measured.log_loss == pytest.approx(fitted.report.val_loss, rel=1e-4)
        report = json.loads((fitted.model.parent / "report.json").read_text())
        best = report["heads"][0]
        assert report["settings"]["chosen"]["lr"] == best["lr"]
        assert report["settings"]["lr"] == [1e-4, 1e-3]
        assert any("val chose among 2 heads" in line for line in listener.lines)


def test_a_refit_uses_the_cache_in_its_order(cache):
    """Train and val together are the rows of the two splits."""
    fitted = featcache.fit_head(cache, SweepSpec(epochs=2, refit=True))
    rows = np.flatnonzero((cache.splits == TRAIN) | (cache.splits == VAL))
    both = Features(cache.take(rows), cache.labels[rows], rows)
    spec = SgdSpec(epochs=fitted.report.best_epoch)
    expected = fit_sgd(both, None, classes=2, spec=spec).head
    assert np.array_equal(fitted.head.weight, expected.weight)


def changed(cache, monkeypatch, **columns):
    """Have a cache answer with other columns."""
    monkeypatch.setattr(cache, "columns", {**cache.columns, **columns})
    return cache


def test_test_is_measured_once_by_the_final_head(cache, monkeypatch):
    """No other head ever sees a sample of it."""
    splits = cache.splits.copy()
    splits[np.flatnonzero(splits == VAL)[::2]] = TEST
    seen = []
    original = featcache.FeatureCache.features

    def counted(self, split=None):
        seen.append(split)
        return original(self, split)

    monkeypatch.setattr(featcache.FeatureCache, "features", counted)
    changed(cache, monkeypatch, splits=splits)
    fitted = featcache.fit_head(cache, replace(GRID, refit=True, seeds=2))
    test = original(cache, "test")
    assert seen.count("test") == 1
    assert fitted.report.test_accuracy == accuracy(fitted.head.scores(test.X), test.y)


def test_skipped_rows_are_counted_in_the_report(cache, monkeypatch):
    """They take no part, and nobody has to wonder why there are fewer."""
    status = cache.status.copy()
    status[np.flatnonzero(cache.splits == TRAIN)[:2]] = max(Status)
    changed(cache, monkeypatch, status=status)
    assert featcache.fit_head(cache, SgdSpec(epochs=1)).report.skipped == 2


def test_a_single_class_is_an_error(cache, monkeypatch):
    """There is nothing to tell apart."""
    labels = np.zeros_like(cache.labels)
    changed(cache, monkeypatch, labels=labels, classes=cache.columns["classes"][:1])
    with pytest.raises(TrainingError, match=r"has a single class, ants; .* two class"):
        featcache.fit_head(cache)


def test_a_class_of_one_image_cannot_be_held_out(cache, monkeypatch):
    """Named, with what to do."""
    splits = cache.splits.copy()
    ants = np.flatnonzero((cache.labels == 0) & (splits == TRAIN))
    splits[ants[1:]] = VAL
    changed(cache, monkeypatch, splits=splits)
    with pytest.raises(
        TrainingError, match="a single training image of ants; none can"
    ):
        featcache.fit_head(cache, SweepSpec(select_on="train"))
