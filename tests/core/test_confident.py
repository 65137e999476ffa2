"""Confident learning: its rule, case by case."""

import numpy as np
import pytest

from featcache.core.confident import class_thresholds, suspects


def test_a_threshold_is_the_mean_probability_of_the_own_class():
    own = np.array([0.9, 0.5, 0.6], np.float32)
    found = class_thresholds(own, np.array([0, 0, 2], np.int32), 3)
    assert found == pytest.approx([0.7, np.inf, 0.6])


@pytest.mark.parametrize(
    ("P", "label", "likely"),
    [
        pytest.param([0.8, 0.2], 0, 0, id="agrees"),
        pytest.param([0.1, 0.9], 0, 1, id="contradicts with confidence"),
        pytest.param([0.45, 0.55], 0, 0, id="more probable, but below the threshold"),
        pytest.param([0.65, 0.35], 1, 1, id="nothing reaches its threshold"),
        pytest.param([0.61, 0.6], 0, 0, id="the label is more probable still"),
    ],
)
def test_only_confidence_contradicts_a_label(P, label, likely):
    rows, y = np.array([P], np.float32), np.array([label], np.int32)
    found = suspects(rows, y, np.array([0.7, 0.6]))
    assert found.likely.tolist() == [likely]
    margin = 0 if likely == label else P[likely] - P[label]
    assert found.margin == pytest.approx([margin])


@pytest.mark.parametrize("seed", range(20))
def test_suspects_are_cleanlabs(seed):
    """Its filter by confident learning, and its confident joint off the diagonal."""
    count = pytest.importorskip("cleanlab.count")
    random = np.random.default_rng(seed)
    C = int(random.integers(2, 8))
    n = int(random.integers(3 * C, 300))
    y = random.integers(0, C, n).astype(np.int32)
    y[: 2 * C] = np.repeat(np.arange(C), 2)
    P = random.dirichlet(np.full(C, 0.4), n)
    P[np.arange(n), y] += random.uniform(0, 1.5, n)
    P = (P / P.sum(axis=1, keepdims=True)).astype(np.float32)
    found = suspects(P, y, class_thresholds(P[np.arange(n), y], y, C))
    ours = np.flatnonzero(found.likely != y).tolist()
    assert ours
    assert (found.margin[ours] > 0).all()

    labels, wide = y.astype(int), P.astype(np.float64)
    how = {"calibrate": False, "return_indices_of_off_diagonals": True}
    _, apart = count.compute_confident_joint(labels, wide, **how)
    assert ours == sorted(row for row in apart if P[row].argmax() != y[row])
    issues = pytest.importorskip("cleanlab.filter").find_label_issues
    flags = issues(labels, wide, filter_by="confident_learning", n_jobs=1)
    assert ours == np.flatnonzero(flags).tolist()
