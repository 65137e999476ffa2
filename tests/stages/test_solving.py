"""fit_head with every solver: what it reports, what it refuses, what it saves."""

import json

import numpy as np
import pytest

import featcache
from featcache.core.errors import SpecError, TrainingError
from featcache.core.features import Features
from featcache.core.intervals import wilson
from featcache.core.knn import KnnHead
from featcache.core.manifest import TEST, TRAIN, VAL
from featcache.core.metrics import measure
from featcache.core.progress import Silent
from featcache.core.specs import SgdSpec, SweepSpec
from featcache.core.status import Status
from featcache.stages.fitting import Splits
from featcache.stages.solving import NAMES, fit_solved

SPECS = {
    "sgd": SgdSpec(epochs=2, lr=1e-4),
    "sweep": SweepSpec(epochs=2, lr=(1e-4, 1e-3)),
    "logreg": featcache.LogRegSpec(C=(0.01, 0.1)),
    "logreg-cv": featcache.LogRegSpec(C=(0.01, 0.1), cv=3),
    "ridge": featcache.RidgeSpec(),
    "knn": featcache.KnnSpec(k=3),
    "centroid": featcache.CentroidSpec(),
}
every_solver = pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))


@pytest.fixture(scope="module")
def cache(shared_photos, tmp_path_factory):
    """The shared photos through a random ResNet-18."""
    path = tmp_path_factory.mktemp("cache") / "it.h5"
    return featcache.extract(shared_photos, weights="random:0", cache=path)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Runs go to the test's own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def changed(cache, monkeypatch):
    """Have the cache answer with other columns for a while."""

    def change(**columns):
        monkeypatch.setattr(cache, "columns", {**cache.columns, **columns})
        return cache

    return change


class Listener(Silent):
    """Writes the lines down."""

    def __init__(self):
        self.text = ""

    def say(self, line):
        """Write it down."""
        self.text += line + "\n"


@every_solver
def test_every_solver_makes_a_model_that_scores_as_reported(cache, changed, spec):
    """One report: evaluate finds the same numbers, for val and for test."""
    splits = cache.splits.copy()
    splits[np.flatnonzero(splits == VAL)[::2]] = TEST
    changed(splits=splits)
    fitted = featcache.fit_head(cache, spec)
    report = json.loads((fitted.model.parent / "report.json").read_text())
    for split in ("val", "test"):
        found = featcache.evaluate(fitted.model, cache, split=split)
        close = {
            "loss": found.log_loss,
            "mean_per_class_recall": found.mean_per_class_recall,
            "ece": found.ece,
            "accuracy_interval": list(found.accuracy_interval),
            "accuracy": found.accuracy,
        }
        for name, value in close.items():
            assert report[f"{split}_{name}"] == pytest.approx(value, abs=1e-5), name


def test_a_model_of_neighbours_serves_where_a_linear_one_does(cache, shared_photos):
    """predict from images, compare on the cache, info; its training is left out."""
    fitted = featcache.fit_head(cache, featcache.KnnSpec(k=3))
    linear = featcache.fit_head(cache, featcache.RidgeSpec())
    head = featcache.open_model(fitted.model).head
    assert isinstance(head, KnnHead)
    predicted = featcache.predict(fitted.model, [shared_photos / "val"]).predictions
    expected = fitted.head.probabilities(cache.features("val").X).max(axis=1)
    assert [p.probability for p in predicted] == pytest.approx(expected, abs=1e-3)
    compared = featcache.compare(fitted.model, linear.model, cache)
    assert compared.models[0].accuracy == fitted.val_accuracy
    (record,) = fitted.history
    assert fitted.report.train_accuracy == record.train_accuracy


@every_solver
def test_one_class_is_refused(cache, changed, spec):
    changed(labels=np.zeros_like(cache.labels), classes=cache.columns["classes"][:1])
    with pytest.raises(TrainingError, match="has a single class, ants"):
        featcache.fit_head(cache, spec)


@every_solver
def test_a_class_without_a_training_image_is_named(cache, changed, spec):
    status = cache.status.copy()
    status[(cache.splits == TRAIN) & (cache.labels == 1)] = max(Status)
    changed(status=status)
    with pytest.raises(TrainingError, match="no usable training image of bees"):
        featcache.fit_head(cache, spec)


@every_solver
def test_without_val_there_are_no_numbers_of_it_and_it_is_said(cache, changed, spec):
    """Skipped rows are counted, too."""
    status = cache.status.copy()
    status[cache.splits == VAL] = max(Status)
    changed(status=status)
    listener = Listener()
    report = featcache.fit_head(cache, spec, progress=listener).report
    assert (report.val_accuracy, report.val_loss, report.val_ece) == (None, None, None)
    assert report.skipped == (cache.splits == VAL).sum()
    assert "no usable image of val: nothing tells how good" in listener.text
    assert "8 images of the cache could not be read" in listener.text


def test_logreg_names_the_class_of_which_nothing_can_be_held_out(cache, changed):
    splits = cache.splits.copy()
    splits[np.flatnonzero((cache.labels == 1) & (splits == TRAIN))[1:]] = VAL
    changed(splits=splits)
    with pytest.raises(TrainingError, match=r"single training image of bees; .*--C"):
        featcache.fit_head(cache, featcache.LogRegSpec())
    one = featcache.LogRegSpec(C=(0.1,))
    assert featcache.fit_head(cache, one).report.chosen == {"chosen_C": 0.1}


def test_a_grid_of_which_nothing_converges_is_an_error(cache):
    spec = featcache.LogRegSpec(C=(1e7, 1e8), max_iter=1)
    with pytest.raises(TrainingError, match="converged for no C in 1 iterations"):
        featcache.fit_head(cache, spec)


SOLVED = {name: spec for name, spec in SPECS.items() if type(spec) in NAMES}


@pytest.mark.parametrize("spec", SOLVED.values(), ids=list(SOLVED))
@pytest.mark.parametrize("scale", [1.0, 6e4], ids=["small", "near the largest"])
def test_half_precision_does_not_overflow(spec, scale):
    """Sums of squares of float16 features are beyond float16."""
    random = np.random.default_rng(0)
    y = (np.arange(24) % 2).astype(np.int32)
    X = (random.uniform(0, 1, (24, 6)) * scale * (0.5 + y[:, None] / 2)).astype("f2")
    features = Features(X, y, np.arange(24))
    splits = Splits(features, features, lambda: features, classes=2)
    outcome = fit_solved(splits, spec)
    assert np.isfinite(outcome.head.scores(X)).all()
    assert outcome.val_accuracy > 0.6


def test_penalties_without_measure_give_a_head_all_the_same(cache):
    """Nothing is NaN; the edge of the grid is pointed out."""
    for lambdas in ((1e-300,), (1e300, 1e307)):
        report = featcache.fit_head(cache, featcache.RidgeSpec(lambdas=lambdas)).report
        assert np.isfinite(report.val_loss)
    report = featcache.fit_head(cache, featcache.KnnSpec(temperature=1e-308)).report
    assert np.isfinite(report.val_loss)


def test_shots_draw_as_many_of_each_class(cache):
    """Seeded: the same images again, others for another seed; the report says it."""
    spec = featcache.KnnSpec(k=1)
    one, again, other = (
        featcache.fit_head(cache, spec, shots=2, shots_seed=s) for s in (0, 0, 1)
    )
    assert np.bincount(one.head.labels).tolist() == [2, 2]
    assert np.array_equal(one.head.bank, again.head.bank)
    assert not np.array_equal(one.head.bank, other.head.bank)
    assert one.report.to_json()["shots"] == 2
    settings = json.loads((other.model.parent / "report.json").read_text())["settings"]
    assert (settings["shots"], settings["shots_seed"]) == (2, 1)


def test_more_shots_than_images_name_the_class(cache, changed):
    splits = cache.splits.copy()
    splits[np.flatnonzero((cache.labels == 1) & (splits == TRAIN))[4:]] = VAL
    changed(splits=splits)
    with pytest.raises(
        TrainingError, match=r"has 4 usable training images of bees, fewer than the 5"
    ):
        featcache.fit_head(cache, shots=5)
    with pytest.raises(SpecError, match="shots must be at least 1, got 0"):
        featcache.fit_head(cache, shots=0)


def test_after_a_refit_the_numbers_are_those_of_the_head_before(cache):
    """All of them, not accuracy and loss alone."""
    before, refitted = (
        featcache.fit_head(cache, SweepSpec(epochs=2, refit=refit)).report
        for refit in (False, True)
    )
    val = cache.features("val")
    assert refitted.val_ece == before.val_ece
    right = round(before.val_accuracy * len(val))
    assert refitted.val_accuracy_interval == wilson(right, len(val))


def test_blocks_give_the_numbers_of_the_whole(monkeypatch):
    """Accuracy, recall, loss and calibration error do not depend on their size."""
    from featcache.core.heads import initial_head
    from featcache.stages import measuring

    random = np.random.default_rng(0)
    X, y = random.standard_normal((50, 8)).astype("f4"), random.integers(0, 3, 50)
    features = Features(X, y.astype(np.int32), np.arange(50))
    head = initial_head(3, 8, seed=0)
    whole = measure(head.scores(X), features.y)
    monkeypatch.setattr(measuring, "_SCORES", 21)
    found = measuring.measure_head(head, features, classes=3)
    assert found.accuracy == whole.accuracy
    assert found.mean_per_class_recall == pytest.approx(whole.mean_per_class_recall)
    assert found.loss == pytest.approx(whole.log_loss)
    assert found.ece == pytest.approx(whole.ece)
