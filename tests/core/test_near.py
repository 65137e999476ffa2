"""Near duplicates: no pair is lost, whatever the shape of the features."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core import near
from featcache.core.features import Features
from featcache.core.heads import unit_rows
from featcache.core.near import Nearest, near_pairs


def as_features(X):
    return Features(X, np.zeros(len(X), np.int32), np.arange(len(X)))


def found(X, threshold):
    """Return the pairs, and how often each was given."""
    return [
        pair
        for i, j, _ in near_pairs(as_features(X), threshold)
        for pair in zip(i.tolist(), j.tolist(), strict=True)
    ]


@given(
    n=st.integers(1, 60),
    D=st.sampled_from([2, 64, 65, 100]),
    noise=st.sampled_from([0.01, 0.3, 3.0]),
    seed=st.integers(0, 99),
)
def test_the_pairs_are_those_of_the_full_product(n, D, noise, seed):
    """Each once, also where more than 64 directions matter and blocks are small."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(5, D))[random.integers(0, 5, n)]
    X = (X + noise * random.normal(size=(n, D))).astype(np.float32)
    cosines = unit_rows(X) @ unit_rows(X).T
    sure = np.triu(cosines >= 0.9 + 1e-5, 1)
    never = ~np.triu(cosines >= 0.9 - 1e-5, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "_QUERIES", 7)
        patch.setattr(near, "_KEYS", 16)
        pairs = found(X, 0.9)
    assert len(set(pairs)) == len(pairs)
    assert set(zip(*np.nonzero(sure), strict=True)) <= set(pairs)
    assert not any(never[pair] for pair in pairs)


def test_short_products_spare_nearly_all_long_ones(monkeypatch):
    """Only pairs that may be near are computed over all of D."""
    random = np.random.default_rng(0)
    X = (random.normal(size=(300, 10)) @ random.normal(size=(10, 200))).astype("f")
    X[7] = X[3] * 2
    asked = []
    exact = near.exact_pairs
    monkeypatch.setattr(
        near,
        "exact_pairs",
        lambda f, i, *rest: asked.append(len(i)) or exact(f, i, *rest),
    )
    assert found(X, 0.95) == [(3, 7)]
    assert sum(asked) < 10


def test_the_nearest_of_several_is_kept_in_any_order():
    """Of equally near ones the first."""
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        nearest = Nearest(3)
        cosines = np.array([0.9, 0.95, 0.95, 0.93], np.float32)
        partners = np.array([2, 9, 4, 1])
        for k in order:
            nearest.hear(np.array([1]), partners[[k]], cosines[[k]])
        assert nearest.partner.tolist() == [-1, 4, -1]
    nearest = Nearest(3)
    nearest.hear(np.array([1, 1, 1, 0]), np.array([2, 9, 4, 1]), cosines)
    assert nearest.partner.tolist() == [1, 4, -1]
    assert nearest.cosine.tolist() == np.array([0.93, 0.95, 0], np.float32).tolist()


def test_pairs_in_plenty_come_in_parts(monkeypatch):
    """Where all are near each other; each pair once, and never many at a time."""
    monkeypatch.setattr(near, "_FULL", 50)
    X = 1 + np.random.default_rng(0).uniform(0, 0.1, (40, 8)).astype(np.float32)
    parts = [len(i) for i, _, _ in near_pairs(as_features(X), 0.9)]
    assert sum(parts) == 40 * 39 // 2
    assert max(parts) <= 50


def test_images_of_nothing_are_near_nothing():
    assert found(np.zeros((4, 8), np.float32), 0.9) == []
