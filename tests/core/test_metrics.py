"""Metrics: scikit-learn's numbers, whatever the order of the rows."""

import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.heads import softmax
from featcache.core.metrics import (
    accuracy,
    cross_entropy,
    expected_calibration_error,
    measure,
    top_accuracy,
)


@st.composite
def scored(draw):
    """Draw float32 scores (n, C) and labels (n,)."""
    n, C = draw(st.integers(1, 30)), draw(st.integers(2, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = random.uniform(-14, 14, (n, C)).astype(np.float32)
    if draw(st.booleans()):
        scores = scores.round()  # ties
    return scores, random.integers(0, C, n, np.int32)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
@given(data=scored())
def test_metrics_are_those_of_scikit_learn(data):
    """Four numbers, also where a class has no sample."""
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
    assert ours.top5_accuracy == shuffled.top5_accuracy
    assert ours.ece == pytest.approx(shuffled.ece)


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


def ece_in_a_loop(scores, y):
    """Guo et al.'s equation 3, bin by bin."""
    probabilities = softmax(scores.astype(np.float64))
    confidence, predicted = probabilities.max(axis=1), scores.argmax(axis=1)
    total = 0.0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            gap = (predicted == y)[inside].mean() - confidence[inside].mean()
            total += inside.mean() * abs(gap)
    return total


@given(data=scored())
def test_the_calibration_error_is_that_of_its_paper(data):
    """Fifteen bins, each closed at its upper end."""
    assert expected_calibration_error(*data) == pytest.approx(ece_in_a_loop(*data))


def test_a_calibrated_head_has_no_calibration_error():
    """Confidence 3/4, three of four right; and the same head when it is too sure."""
    y = np.array([0, 0, 0, 1], np.int32)
    honest = np.tile(np.log(np.array([3, 1], np.float32)), (4, 1))
    assert expected_calibration_error(honest, y) == pytest.approx(0, abs=1e-7)
    sure = np.tile(np.array([30, 0], np.float32), (4, 1))
    assert expected_calibration_error(sure, y) == pytest.approx(0.25)


@given(data=scored(), k=st.integers(1, 9))
def test_top_k_accuracy_follows_the_order_of_the_scores(data, k):
    """A stable sort from the highest score down; the first k count."""
    scores, y = data
    order = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")
    expected = (order[:, :k] == y[:, None]).any(axis=1).mean()
    assert top_accuracy(scores, y, k) == pytest.approx(expected)
    assert top_accuracy(scores, y, 1) == accuracy(scores, y)


def test_top5_accuracy_is_left_out_where_it_says_nothing():
    """Five classes: every label is among the five highest."""
    y = np.zeros(3, np.int32)
    assert measure(np.zeros((3, 5), np.float32), y).top5_accuracy is None
    assert measure(np.zeros((3, 6), np.float32), y).top5_accuracy == 1
