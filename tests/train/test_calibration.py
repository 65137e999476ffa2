"""The temperature: the minimum of a convex function, whatever the scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from featcache.train.calibration import fit_scale


def smoothed_loss(scale, scores, y):
    """Mean cross-entropy against targets smoothed by Laplace's rule."""
    n, C = scores.shape
    targets = (n * np.eye(C)[y] + 1) / (n + C)
    logits = scale * scores
    logits = logits - logits.max(axis=1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -(targets * logs).sum(axis=1).mean()


@given(
    n=st.integers(2, 60),
    classes=st.integers(2, 5),
    seed=st.integers(0, 2**32),
    unit=st.sampled_from([1e-4, 1.0, 1e4]),
)
def test_no_other_scale_is_better(n, classes, seed, unit):
    """scipy's scalar minimum, in any unit of the scores."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n, np.int32)
    scores = random.standard_normal((n, classes)) + np.eye(classes)[y]
    found = fit_scale(unit * scores, y) * unit
    best = minimize_scalar(
        smoothed_loss, args=(scores, y), bounds=(1e-6, 200), method="bounded"
    )
    assert found > 0
    assert (
        smoothed_loss(found, scores, y) <= best.fun + 1e-3
    )  # at the least scale, where they mislead


def test_scores_that_are_all_right_do_not_ask_for_certainty():
    """Ten of ten: about 11/12 each, not 1."""
    y = np.arange(10, dtype=np.int32) % 2
    scale = fit_scale(np.eye(2)[y], y)
    assert 1 / (1 + np.exp(-scale)) == pytest.approx(11 / 12)


def test_scores_that_mislead_are_hardly_believed():
    """A negative scale would be better; it would turn every prediction round."""
    y = np.arange(10, dtype=np.int32) % 2
    assert 0 < fit_scale(-np.eye(2)[y], y) < 0.01


def test_scores_that_say_nothing_stay_as_they_are():
    """Equal scores: no scale makes a difference."""
    assert fit_scale(np.ones((5, 3)), np.zeros(5, np.int32)) == 1
