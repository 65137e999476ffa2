"""Standardisation: statistics, and that exported heads take raw features."""

import numpy as np
import pytest

from featcache.core.features import Features
from featcache.core.heads import LinearHead, unit_rows
from featcache.core.specs import SgdSpec
from featcache.train.sgd import fit_sgd
from featcache.train.standardize import fit_scaling

RANDOM = np.random.default_rng(0)


def features(n: int = 60, dim: int = 12) -> Features:
    """Features of very different means and spreads, one of them constant."""
    y = (np.arange(n) % 3).astype(np.int32)
    X = RANDOM.standard_normal((n, dim)) + y[:, None]
    X = (X + np.linspace(-5, 5, dim)) * np.logspace(-3, 3, dim)
    X[:, 4] = 7.3
    return Features(X.astype(np.float32), y, np.arange(n))


def test_zscored_features_have_mean_0_and_deviation_1():
    """Of the training features; a constant one becomes zero."""
    X = features().X
    scaled = fit_scaling(X, "zscore")(X).astype(np.float64)
    expected = np.ones(12)
    expected[4] = 0
    assert scaled.mean(axis=0) == pytest.approx(np.zeros(12), abs=1e-4)
    assert scaled.std(axis=0) == pytest.approx(expected, abs=1e-4)


def test_means_are_summed_in_float64(monkeypatch):
    """Large values with small differences, in several blocks, lose nothing."""
    monkeypatch.setattr("featcache.train.standardize._ROWS", 7)
    X = (1000 + RANDOM.standard_normal((5000, 3))).astype(np.float32)
    scaling = fit_scaling(X, "zscore")
    assert scaling.mean == pytest.approx(X.astype(np.float64).mean(axis=0), rel=1e-7)
    assert scaling.std == pytest.approx(X.astype(np.float64).std(axis=0), rel=1e-6)


def test_zscore_is_folded_into_the_weights():
    """The exported head is plainly linear and scores raw features as trained."""
    X = features().X
    scaling = fit_scaling(X, "zscore")
    weight = RANDOM.standard_normal((3, 12)).astype(np.float32)
    head = LinearHead(weight, np.ones(3, np.float32))
    exported = scaling.export(head)
    expected = head.scores(scaling(X))
    assert not exported.normalize
    assert np.abs(exported.scores(X) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_l2_gives_rows_of_length_1_and_leaves_zeros():
    """However large or small they were; a row of zeros stays one."""
    X = features().X
    X[0], X[1], X[2] = 0, X[1] * np.float32(1e-30), X[2] * np.float32(1e30)
    lengths = np.linalg.norm(unit_rows(X).astype(np.float64), axis=1)
    assert lengths == pytest.approx([0, *[1] * 59], abs=1e-6)


@pytest.mark.parametrize("kind", ["none", "zscore", "l2"])
def test_a_trained_head_takes_features_as_in_the_cache(kind):
    """Its own scores on raw val features give the numbers of its best epoch."""
    train, val = features(), features(90)
    spec = SgdSpec(lr=1e-3, standardize=kind, epochs=5)
    fitted = fit_sgd(train, val, classes=3, spec=spec)
    scores = fitted.head.scores(val.X)
    assert (scores.argmax(axis=1) == val.y).mean() == fitted.best.val_accuracy
    assert fitted.head.normalize is (kind == "l2")


@pytest.mark.parametrize("kind", ["none", "zscore", "l2"])
def test_half_precision_is_standardised_in_float32(kind):
    """float16 features train as their float32 values."""
    train = features()
    half = Features(train.X.astype(np.float16), train.y, train.sample_index)
    full = Features(half.X.astype(np.float32), train.y, train.sample_index)
    spec = SgdSpec(epochs=2, lr=1e-4, standardize=kind)
    found, expected = (
        fit_sgd(f, None, classes=3, spec=spec).head for f in (half, full)
    )
    assert np.array_equal(found.weight, expected.weight)
