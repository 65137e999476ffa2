"""Held-out parts: stratified, seeded, and never a whole class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.errors import TrainingError
from featcache.train.folds import held_out


@st.composite
def labelled(draw):
    """Draw labels of two to five classes with two samples or more each."""
    counts = draw(st.lists(st.integers(2, 12), min_size=2, max_size=5))
    y = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return np.random.default_rng(draw(st.integers(0, 2**32))).permutation(y)


@given(y=labelled(), cv=st.integers(2, 12), seed=st.integers(0, 99))
def test_folds_hold_every_sample_once_and_leave_every_class(y, cv, seed):
    """Disjoint, complete, of nearly equal size, overall and in each class."""
    masks = held_out(y, holdout=0.2, cv=cv, seed=seed)
    assert (np.sum(masks, axis=0) == 1).all()
    sizes = [mask.sum() for mask in masks]
    assert max(sizes) - min(sizes) <= 1
    for label in np.unique(y):
        held = [(y[mask] == label).sum() for mask in masks]
        assert max(held) - min(held) <= 1
        assert max(held) < (y == label).sum()


@given(y=labelled(), holdout=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_a_share_of_each_class_is_held_out(y, holdout, seed):
    """At least one sample of each, and one stays."""
    (mask,) = held_out(y, holdout=holdout, cv=0, seed=seed)
    for label in np.unique(y):
        held, count = (y[mask] == label).sum(), (y == label).sum()
        assert held == min(max(1, round(holdout * count)), count - 1)


def test_the_seed_decides():
    """Equal seeds, equal parts."""
    y = np.arange(40, dtype=np.int32) % 4
    first, again, other = (
        held_out(y, holdout=0.2, cv=5, seed=seed) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_class_of_one_image_cannot_be_held_out():
    """The message says which, and the way round."""
    y = np.array([0] * 8 + [1], np.int32)
    for cv in (0, 3):
        with pytest.raises(TrainingError, match="class number 1 has a single training"):
            held_out(y, holdout=0.2, cv=cv, seed=0)
