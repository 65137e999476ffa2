"""Outliers: planted foreign images are found, and nothing is made up of nothing."""

import numpy as np
import pytest

from featcache.core import outliers
from featcache.core.features import Features
from featcache.core.outliers import FAR, outlier_scores


def two_classes(n=100, D=32):
    """Return two clouds about a direction each, the second twice as wide."""
    random = np.random.default_rng(0)
    y = np.repeat([0, 1], n).astype(np.int32)
    width = np.where(y == 0, 0.1, 0.2)[:, None]
    X = np.eye(D)[y] * 3 + width * random.normal(size=(2 * n, D))
    return X.astype(np.float32), y


def scores(X, y):
    return outlier_scores(Features(X, y, np.arange(len(y))), 3)


@pytest.mark.parametrize("bank", [16_384, 40])
def test_planted_images_are_the_farthest(monkeypatch, bank):
    """In a wide and in a narrow class, and where the bank is a part of it."""
    monkeypatch.setattr(outliers, "_BANK", bank)
    X, y = two_classes()
    for row, axis in ((5, 9), (50, 10), (120, 11)):
        X[row] = 3 * np.eye(32)[axis]
    found = scores(X, y)
    assert set(np.argsort(-found)[:3].tolist()) == {5, 50, 120}
    assert (found[[5, 50, 120]] > FAR).all()


def test_a_wide_class_is_no_class_of_outliers():
    X, y = two_classes()
    assert (scores(X, y) > FAR).sum() <= 4


def test_what_has_no_middle_has_no_outliers():
    """A class of two images has no score, equal images have none above zero."""
    X, y = two_classes()
    y[:2] = 2
    assert np.isnan(scores(X, y)[:2]).all()
    assert (scores(np.ones((9, 4), np.float32), np.zeros(9, np.int32)) == 0).all()
    assert np.isnan(scores(X[:2], y[:2])).all()
