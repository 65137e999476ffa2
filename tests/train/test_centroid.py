"""Nearest class mean: directions of means, and a scale from leaving each one out."""

import numpy as np
from blobs import blobs
from sklearn.metrics.pairwise import cosine_similarity

from featcache.core.features import Features
from featcache.core.metrics import cross_entropy
from featcache.train import passes
from featcache.train.centroid import fit_centroid, leave_one_out
from featcache.train.passes import class_sums


def unit(X):
    X = X.astype(np.float64)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def test_scores_are_cosines_with_the_class_means():
    """scikit-learn's cosine similarity, times one scale."""
    train, new = blobs(90, 3), blobs(20, 3, seed=1)
    fitted = fit_centroid(train, None, classes=3)
    means = np.array([unit(train.X)[train.y == c].mean(axis=0) for c in range(3)])
    cosines = cosine_similarity(new.X, means)
    scale = 1 / fitted.chosen["chosen_temperature"]
    assert np.allclose(fitted.head.scores(new.X), scale * cosines, rtol=1e-4, atol=1e-4)
    assert fitted.head.normalize


def test_leave_one_out_is_that_of_new_means():
    """Each sample's own centroid without it; the others as they are."""
    train = blobs(24, 3)
    X, y = unit(train.X), train.y
    found = leave_one_out(train.X, y, class_sums(X, y, 3))
    for i in range(24):
        others = np.arange(24) != i
        means = np.array([X[others & (y == c)].mean(axis=0) for c in range(3)])
        assert np.allclose(found[i], cosine_similarity(X[[i]], means)[0], atol=1e-6)


def test_probabilities_are_calibrated():
    """The folded temperature is about the best that new samples could ask for."""
    train, new = blobs(300, 3), blobs(2000, 3, seed=1)
    scores = fit_centroid(train, None, classes=3).head.scores(new.X)
    losses = {s: cross_entropy(s * scores, new.y) for s in (0.25, 0.5, 1, 2, 4)}
    assert min(losses, key=losses.__getitem__) == 1


def test_one_image_a_class_is_enough():
    """No sample can be left out, so the scale is k-NN's."""
    fitted = fit_centroid(blobs(3, 3), None, classes=3)
    assert fitted.chosen["chosen_temperature"] == 0.07
    assert fitted.record.train_accuracy == 1


def test_blocks_change_nothing_but_memory(monkeypatch):
    """Seven rows at a time."""
    train = blobs(50, 3)
    whole = fit_centroid(train, None, classes=3).head.weight
    monkeypatch.setattr(passes, "_NUMBERS", 70)
    assert np.allclose(fit_centroid(train, None, classes=3).head.weight, whole)


def test_features_of_zeros_are_no_obstacle():
    """A row without a direction, and a class of such rows only."""
    train = blobs(12, 3)
    X = np.where(train.y[:, None] == 2, np.float32(0), train.X)
    fitted = fit_centroid(Features(X, train.y, train.sample_index), None, classes=3)
    assert np.isfinite(fitted.head.scores(X)).all()
