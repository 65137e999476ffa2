"""Hashed splits: a choice that follows from each path alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.manifest import TRAIN, VAL
from featcache.core.splits import VAL_SHARE, hash_fraction, hashed_splits

SAMPLES = st.dictionaries(
    st.binary(min_size=1, max_size=8).map(lambda b: b.replace(b"\0", b"0")),
    st.integers(0, 4),
    max_size=60,
)


def split(samples: dict[bytes, int]) -> dict[bytes, int]:
    """Return the split of each path."""
    labels = np.array(list(samples.values()), np.int32)
    splits = hashed_splits(np.array(list(samples), np.bytes_), labels)
    assert splits.dtype == np.uint8
    return dict(zip(samples, splits.tolist(), strict=True))


@given(samples=SAMPLES)
def test_every_sample_is_in_train_or_val(samples):
    """The splits are disjoint and together complete."""
    splits = split(samples)
    assert len(splits) == len(samples)
    assert set(splits.values()) <= {TRAIN, VAL}


@given(samples=SAMPLES)
def test_a_class_has_both_sides_from_two_samples_on(samples):
    """Two samples are one and one; a single one is trained on."""
    splits = split(samples)
    for label in set(samples.values()):
        inside = [splits[path] for path, c in samples.items() if c == label]
        assert set(inside) == ({TRAIN, VAL} if len(inside) > 1 else {TRAIN})


@given(samples=SAMPLES, added=SAMPLES)
def test_added_files_move_no_other(samples, added):
    """Of each class at most the one sample moves that had been put on its side."""
    before, after = split(samples), split({**added, **samples})
    moved = [path for path in samples if before[path] != after[path]]
    labels = [samples[path] for path in moved]
    assert len(labels) == len(set(labels))
    for path in moved:
        alone = list(samples.values()).count(samples[path]) == 1
        assert alone or after[path] == by_hash(path)


@given(samples=SAMPLES, order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(samples, order):
    """A split belongs to the path, not to its row."""
    shuffled = dict(order.sample(list(samples.items()), len(samples)))
    assert split(shuffled) == split(samples)


def by_hash(path: bytes) -> int:
    """Return the split that a path's own hash asks for."""
    return VAL if hash_fraction(path) < VAL_SHARE else TRAIN


def test_about_a_fifth_is_held_out():
    """A large class comes near the share that is promised."""
    splits = split({b"ants/%d.jpg" % i: 0 for i in range(10_000)})
    held = sum(s == VAL for s in splits.values())
    assert held == pytest.approx(10_000 * VAL_SHARE, rel=0.05)


def test_the_hash_is_the_one_of_every_other_version():
    """Known fractions: a change here would move everybody's validation set."""
    assert hash_fraction(b"ants/0.jpg") == pytest.approx(0.47166788635108964)


def test_no_samples():
    """An empty manifest has empty splits."""
    assert split({}) == {}
