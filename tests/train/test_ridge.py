"""Ridge: scikit-learn's solutions, and leave-one-out as if each fit were made."""

import numpy as np
import pytest
from blobs import blobs
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from featcache.core.features import Features
from featcache.core.metrics import accuracy, cross_entropy
from featcache.core.solver_specs import RidgeSpec
from featcache.train import passes
from featcache.train.ridge import decompose, fit_ridge

GRID = (1e-3, 1e-1, 1.0, 30.0, 1e4)


def one_hot(y, classes):
    return np.eye(classes)[y]


@given(
    n=st.integers(4, 40),
    dim=st.integers(1, 30),
    classes=st.integers(2, 4),
    seed=st.integers(0, 2**32),
    penalty=st.sampled_from(GRID),
)
def test_every_lambda_is_scikit_learns(n, dim, classes, seed, penalty):
    """More samples than features or fewer; weights and bias to 1e-6."""
    train = blobs(n, classes, seed, dim=dim)
    X = train.X.astype(np.float64)
    weight, bias = decompose(train.X, train.y, classes).solution(penalty)
    expected = Ridge(alpha=penalty).fit(X, one_hot(train.y, classes))
    assert np.allclose(weight, expected.coef_, rtol=1e-6, atol=1e-8)
    assert np.allclose(bias, expected.intercept_, rtol=1e-6, atol=1e-7)


def test_a_tiny_lambda_is_least_squares():
    """numpy's lstsq with a column of ones."""
    train = blobs(60, 3)
    X = np.column_stack([train.X.astype(np.float64), np.ones(60)])
    expected = np.linalg.lstsq(X, one_hot(train.y, 3))[0].T
    weight, bias = decompose(train.X, train.y, 3).solution(1e-9)
    assert np.allclose(weight, expected[:, :-1], rtol=1e-6, atol=1e-9)
    assert np.allclose(bias, expected[:, -1], rtol=1e-6)


@pytest.mark.parametrize(("n", "dim"), [(30, 6), (12, 40)], ids=["tall", "wide"])
def test_leave_one_out_is_that_of_n_fits(n, dim):
    """Each sample is predicted by scikit-learn's fit to all others."""
    train = blobs(n, 3, dim=dim)
    X, Y = train.X.astype(np.float64), one_hot(train.y, 3)
    rows = np.array([0, 3, 11])
    found = decompose(train.X, train.y, 3).leave_one_out(X[rows], train.y[rows], GRID)
    for i, penalty in enumerate(GRID):
        for j, row in enumerate(rows):
            others = np.arange(n) != row
            fit = Ridge(alpha=penalty).fit(X[others], Y[others])
            assert np.allclose(found[i, j], fit.predict(X[[row]])[0], atol=1e-6)


def test_blocks_change_nothing_but_memory(monkeypatch):
    """Features far from zero, in blocks of seven rows, against one block."""
    train = blobs(100, 3)
    shifted = train.X + np.float32(1000)
    whole = decompose(shifted, train.y, 3).solution(1.0)
    monkeypatch.setattr(passes, "_NUMBERS", 70)
    blocks = decompose(shifted, train.y, 3).solution(1.0)
    assert np.allclose(whole[0], blocks[0], rtol=1e-8, atol=1e-10)
    assert np.allclose(whole[1], blocks[1], rtol=1e-8)


def test_lambda_is_chosen_without_looking_at_val():
    """Noise wants a large lambda; what val holds does not change the choice."""
    train = blobs(60, 2, noise=6)
    fits = [
        fit_ridge(train, val, classes=2, spec=RidgeSpec())
        for val in (None, blobs(50, 2, seed=1))
    ]
    assert fits[0].chosen == fits[1].chosen
    calm = fit_ridge(blobs(60, 2, noise=0.3), None, classes=2, spec=RidgeSpec())
    assert fits[0].chosen["chosen_lambda"] > calm.chosen["chosen_lambda"]
    assert fits[0].record.val_accuracy is None
    assert fits[1].record.val_accuracy is not None


def test_probabilities_are_calibrated():
    """The folded temperature is about the best that new samples could ask for."""
    train, new = blobs(200, 3), blobs(2000, 3, seed=1)
    head = fit_ridge(train, None, classes=3, spec=RidgeSpec()).head
    scores = head.scores(new.X)
    losses = {s: cross_entropy(s * scores, new.y) for s in (0.25, 0.5, 1, 2, 4)}
    assert min(losses, key=losses.__getitem__) == 1
    assert accuracy(scores, new.y) > 0.6


def test_a_class_of_one_image_is_no_obstacle():
    """Nothing is held out, so nothing has to remain."""
    train = blobs(9, 2)
    y = np.array([0] * 8 + [1], np.int32)
    fitted = fit_ridge(
        Features(train.X, y, train.sample_index), None, classes=2, spec=RidgeSpec()
    )
    assert np.isfinite(fitted.head.weight).all()


def test_features_that_do_not_vary_give_the_shares():
    """No direction is left; the bias alone speaks."""
    train = blobs(12, 3)
    still = Features(np.ones_like(train.X), train.y, train.sample_index)
    fitted = fit_ridge(still, None, classes=3, spec=RidgeSpec())
    assert np.allclose(fitted.head.probabilities(still.X), 1 / 3, atol=1e-4)


def test_the_edge_of_the_grid_is_told():
    """A single value is no choice, so there is nothing to warn of."""
    train = blobs(60, 2, noise=6)
    narrow = fit_ridge(train, None, classes=2, spec=RidgeSpec(lambdas=(1e-6, 1e-5)))
    assert "1e-05, is the largest that was tried; larger ones may" in narrow.notes[0]
    alone = fit_ridge(train, None, classes=2, spec=RidgeSpec(lambdas=(1e-5,)))
    assert alone.notes == ()
