"""Nearest neighbours: scikit-learn's votes, whatever the size of the blocks."""

import numpy as np
import pytest
from blobs import blobs
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from featcache.core import knn
from featcache.core.features import Features
from featcache.core.solver_specs import KnnSpec
from featcache.train.knn import fit_knn


def shares_in_a_loop(train, X, classes, k, temperature):
    """DINO's votes, one sample at a time, and the extra vote for all classes."""
    bank = train.X / np.linalg.norm(train.X, axis=1, keepdims=True)
    result = []
    for x in X:
        cosines = bank @ (x / np.linalg.norm(x))
        nearest = np.argsort(-cosines)[:k]
        votes = np.zeros(classes)
        for row in nearest:
            votes[train.y[row]] += np.exp(cosines[row] / temperature)
        m = len(nearest)
        result.append((m * votes / votes.sum() + 1 / classes) / (m + 1))
    return np.array(result)


@given(
    n=st.integers(1, 40),
    k=st.integers(1, 50),
    classes=st.integers(2, 4),
    seed=st.integers(0, 2**32),
    temperature=st.sampled_from([0.07, 1.0]),
)
def test_votes_are_those_of_a_plain_loop(n, k, classes, seed, temperature):
    """Also with fewer samples than neighbours are asked for."""
    train, new = blobs(n, classes, seed), blobs(7, classes, seed + 1)
    spec = KnnSpec(k=k, temperature=temperature)
    head = fit_knn(train, None, classes=classes, spec=spec).head
    expected = shares_in_a_loop(train, new.X, classes, k, temperature)
    assert np.allclose(head.probabilities(new.X), expected, atol=1e-5)
    assert np.allclose(head.probabilities(new.X).sum(axis=1), 1, atol=1e-5)
    assert np.isfinite(head.scores(new.X)).all()


def test_votes_are_scikit_learns():
    """KNeighborsClassifier with cosine and a weight function; dinov2's numbers."""
    train, new = blobs(150, 4), blobs(60, 4, seed=1)
    theirs = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(train.X, train.y)
    head = fit_knn(train, None, classes=4, spec=KnnSpec()).head
    expected = (20 * theirs.predict_proba(new.X) + 1 / 4) / 21
    assert np.allclose(head.probabilities(new.X), expected, atol=1e-5)
    assert np.array_equal(head.scores(new.X).argmax(axis=1), theirs.predict(new.X))


def test_blocks_change_nothing_but_memory(monkeypatch):
    """Five queries against seven rows of the bank at a time."""
    train, new = blobs(60, 3), blobs(33, 3, seed=1)
    head = fit_knn(train, None, classes=3, spec=KnnSpec()).head
    whole = head.neighbours(new.X, 20)
    monkeypatch.setattr(knn, "_QUERIES", 5)
    monkeypatch.setattr(knn, "_KEYS", 7)
    blocks = head.neighbours(new.X, 20)
    assert np.allclose(whole[0], blocks[0], atol=1e-6)
    assert np.array_equal(whole[1], blocks[1])
    assert (np.diff(blocks[0], axis=1) <= 0).all()


def test_training_accuracy_leaves_each_sample_out():
    """Labels without any pattern: seen by itself, every sample would be right."""
    train = blobs(200, 2)
    y = np.random.default_rng(0).integers(0, 2, 200, np.int32)
    fitted = fit_knn(
        Features(train.X, y, train.sample_index),
        None,
        classes=2,
        spec=KnnSpec(k=1),
    )
    assert (fitted.head.scores(train.X).argmax(axis=1) == y).all()
    assert 0.3 < fitted.record.train_accuracy < 0.7


def test_copies_of_a_sample_do_not_upset_leaving_one_out():
    """Forty equal rows: itself may not be among the nearest of them."""
    same = Features(
        np.ones((40, 3), np.float32), np.arange(40, dtype=np.int32) % 2, np.arange(40)
    )
    fitted = fit_knn(same, same, classes=2, spec=KnnSpec(k=4))
    assert np.isfinite(fitted.record.train_loss)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_length_does_not_matter(dtype):
    """Cosine: only the direction of a feature counts."""
    train, new = blobs(50, 3), blobs(20, 3, seed=1)
    X = train.X.astype(dtype)
    short = Features(X * dtype(0.5), train.y, train.sample_index)
    a = fit_knn(
        Features(X, train.y, train.sample_index), None, classes=3, spec=KnnSpec()
    )
    b = fit_knn(short, None, classes=3, spec=KnnSpec())
    assert np.allclose(a.head.scores(new.X), b.head.scores(3 * new.X), atol=1e-3)


@given(
    b=st.integers(1, 5),
    m=st.integers(1, 900),
    k=st.integers(1, 30),
    digits=st.sampled_from([0, 1, 6]),
    seed=st.integers(0, 2**32),
)
def test_the_highest_are_those_of_a_sort(b, m, k, digits, seed):
    """Few columns or many, in groups and beside them, with equal values or without."""
    values = np.random.default_rng(seed).normal(size=(b, m)).round(digits)
    found = knn._highest(values.astype(np.float32), k)
    assert all(len(set(row)) == min(k, m) for row in found.tolist())
    highest = np.sort(np.take_along_axis(values, found, 1), axis=1)
    np.testing.assert_array_equal(highest, np.sort(values, axis=1)[:, -k:])
