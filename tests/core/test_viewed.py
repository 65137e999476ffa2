"""Views: who has how many, how they are drawn, which an epoch sees."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.manifest import TEST, TRAIN, VAL
from featcache.core.specs import AugmentSpec
from featcache.core.viewed import adopt, epoch_views, view_counts, view_random

KNOWN = [0.9828984322766254, 0.9192493682892772, 0.9523211153593576, 335]


def test_only_training_images_have_several():
    """One view of val and test."""
    splits = np.array([TRAIN, VAL, TEST, TRAIN], np.uint8)
    assert view_counts(splits, 5).tolist() == [5, 1, 1, 5]


@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=50),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
)
def test_an_epoch_sees_a_view_that_is_there(counts, seed, epoch):
    """Never one beyond a sample's own; equal arguments, equal views."""
    counts = np.array(counts, np.int64)
    views = epoch_views(counts, seed=seed, epoch=epoch)
    assert ((views >= 0) & (views < counts)).all()
    assert np.array_equal(views, epoch_views(counts, seed=seed, epoch=epoch))


def test_every_view_is_as_likely():
    """Over many epochs; and epochs differ."""
    counts = np.full(100, 4)
    drawn = np.stack([epoch_views(counts, seed=0, epoch=e) for e in range(200)])
    shares = np.bincount(drawn.ravel(), minlength=4) / drawn.size
    assert shares == pytest.approx(0.25, abs=0.015)  # five standard errors
    assert not np.array_equal(drawn[0], drawn[1])


def test_draws_are_the_ones_of_every_other_machine():
    """Known numbers: a change here makes other views of the same fingerprint."""
    random = view_random(AugmentSpec(seed=7), hashlib.sha256(b"bytes").digest(), 3)
    found = [*random.random(2), random.uniform(-1, 1), int(random.integers(1000))]
    assert found == pytest.approx(KNOWN, abs=0)


def test_draws_depend_on_seed_bytes_and_view():
    """Another one of these is another draw."""
    digests = [hashlib.sha256(data).digest() for data in (b"a", b"b")]
    draws = {
        view_random(AugmentSpec(seed=seed), digest, view).random()
        for seed in (0, 1)
        for digest in digests
        for view in (1, 2)
    }
    assert len(draws) == 8


def test_a_row_takes_over_what_is_known():
    """All views that are wanted, or nothing."""
    known = np.array([[1.0, 2], [3, 4], [5, 6]])
    only_val = np.array([[1.0, 2], [np.nan] * 2, [np.nan] * 2])
    into = np.full((3, 2), np.nan)
    assert not adopt(into, only_val, 3)
    assert np.isnan(into).all()
    assert adopt(into, known, 1)
    assert np.array_equal(into, only_val, equal_nan=True)
    assert adopt(into, known, 3)
    assert np.array_equal(into, known)
    plain = np.zeros(2)
    assert adopt(plain, known[0], 1)
    assert plain.tolist() == [1, 2]
