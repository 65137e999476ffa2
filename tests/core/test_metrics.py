"""Metrics: scikit-learn's numbers, whatever the order of the rows."""

import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.heads import softmax
from featcache.core.metrics import accuracy, cross_entropy, measure


@st.composite
def scored(draw):
    """Draw float32 scores (n, C) and labels (n,)."""
    n, C = draw(st.integers(1, 30)), draw(st.integers(2, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = random.uniform(-14, 14, (n, C)).astype(np.float32)
    if draw(st.booleans()):
        scores = scores.round()  # ties
    return scores, random.integers(0, C, n, np.int32)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
@given(data=scored())
def test_metrics_are_those_of_scikit_learn(data):
    """All four numbers, also where a class has no sample."""
    scores, y = data
    ours, predictions = measure(scores, y), scores.argmax(axis=1)
    C = range(scores.shape[1])
    assert ours.accuracy == pytest.approx(
        sklearn.metrics.accuracy_score(y, predictions)
    )
    assert ours.mean_per_class_recall == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(y, predictions)
    )
    assert ours.log_loss == pytest.approx(
        sklearn.metrics.log_loss(y, softmax(scores.astype(np.float64)), labels=C),
        rel=1e-9,
        abs=1e-12,
    )
    expected = sklearn.metrics.confusion_matrix(y, predictions, labels=C)
    assert ours.confusion == expected.tolist()


@given(data=scored(), seed=st.integers(0, 2**32))
def test_the_order_of_the_rows_does_not_matter(data, seed):
    """Metrics are of a set of samples."""
    scores, y = data
    order = np.random.default_rng(seed).permutation(len(y))
    ours, shuffled = measure(scores, y), measure(scores[order], y[order])
    assert ours.confusion == shuffled.confusion
    assert ours.accuracy == shuffled.accuracy
    assert ours.mean_per_class_recall == shuffled.mean_per_class_recall
    assert ours.log_loss == pytest.approx(shuffled.log_loss)


@given(data=scored(), shift=st.floats(-100, 100, width=32))
def test_log_loss_is_that_of_the_softmax(data, shift):
    """What is added to all scores of a row changes nothing."""
    scores, y = data
    shifted = cross_entropy(scores + np.float32(shift), y)
    assert shifted == pytest.approx(cross_entropy(scores, y), abs=1e-4)


def test_large_scores_do_not_overflow():
    """A sure and wrong head has a large loss, not an infinite one."""
    scores = np.array([[3e38, -3e38]], np.float32)
    assert cross_entropy(scores, np.array([0], np.int32)) == 0
    assert math.isfinite(cross_entropy(scores, np.array([1], np.int32)))


def test_accuracy_counts_hits():
    """Three of four."""
    scores = np.eye(4, dtype=np.float32)
    assert accuracy(scores, np.array([0, 1, 2, 0], np.int32)) == 0.75
