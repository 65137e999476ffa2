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
    ],
)
def test_only_confidence_contradicts_a_label(P, label, likely):
    rows, y = np.array([P], np.float32), np.array([label], np.int32)
    found = suspects(rows, y, np.array([0.7, 0.6]))
    assert found.likely.tolist() == [likely]
    margin = 0 if likely == label else P[likely] - P[label]
    assert found.margin == pytest.approx([margin])
