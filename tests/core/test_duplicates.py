"""Duplicates: every picture that stands more than once, and no other."""

import time
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.duplicates import find_duplicates
from featcache.core.manifest import TEST, TRAIN, VAL
from featcache.core.status import Status


def digests_of(*texts: bytes) -> np.ndarray:
    """Return digests, each made of a few given bytes and zeros."""
    joined = b"".join(text.ljust(32, b"\0") for text in texts)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def found(*texts, status=None):
    """Find duplicates among good rows."""
    status = np.full(len(texts), Status.OK) if status is None else np.array(status)
    return find_duplicates(digests_of(*texts), status.astype(np.uint8))


def test_copies_are_counted_beyond_the_first():
    """Three rows of one picture and two of another are three copies of two."""
    duplicates = found(b"a", b"b", b"a", b"c", b"b", b"a")
    assert (duplicates.copies, duplicates.pictures) == (3, 2)


@pytest.mark.parametrize("texts", [[], [b"a"], [b"a", b"b"]], ids=len)
def test_pictures_that_differ_are_no_duplicates(texts):
    """Nor are no pictures at all."""
    duplicates = found(*texts)
    values = np.zeros(len(texts), np.uint8)
    assert (duplicates.copies, duplicates.pictures) == (0, 0)
    assert (duplicates.mixed(values), duplicates.leaks(values)) == (0, [])


def test_every_byte_counts():
    """Digests that share each of their words with another one are still different."""
    words = [b"xxxxxxxx", b"yyyyyyyy"]
    parts = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert found(*(2 * (words[i] + words[j]) for i, j in parts)).pictures == 0
    assert found(b"a" * 31 + b"\0", b"a" * 31 + b"\1").pictures == 0


def test_rows_without_a_feature_take_no_part():
    """Two empty files are no duplicates: neither reaches a head."""
    bad = Status.NOT_AN_IMAGE
    assert found(b"a", b"a", b"b", b"b", status=[1, bad, bad, bad]).copies == 0


def test_a_leak_names_the_first_row_on_either_side():
    """Train on one side, val or test on the other; copies inside a split are none."""
    duplicates = found(b"a", b"b", b"c", b"a", b"c", b"c", b"b", b"d", b"d")
    splits = [TRAIN, TRAIN, TRAIN, TRAIN, VAL, TEST, TEST, VAL, TEST]
    assert duplicates.leaks(np.array(splits, np.uint8)) == [(1, 6), (2, 4)]


def test_one_line_tells_what_does_harm():
    """How many stand in several splits, and how many in several classes."""
    duplicates = found(b"a", b"a", b"b", b"b", b"c", b"c", b"c")
    splits = np.array([0, 1, 0, 0, 2, 2, 2], np.uint8)
    labels = np.array([0, 1, 0, 0, 0, 1, 0], np.int32)
    assert duplicates.describe(splits, labels) == (
        "4 exact duplicates of 3 pictures; pictures in several splits: 1, "
        "in several classes: 2"
    )


@given(
    keys=st.lists(st.sampled_from([b"a", b"b", b"aaaaaaaab", b"c" * 32]), max_size=20),
    splits=st.lists(st.integers(0, 2), min_size=20, max_size=20),
)
def test_groups_are_those_of_a_plain_loop(keys, splits):
    """Whatever stands where, the vectorised answer is the simple one."""
    splits = np.array(splits[: len(keys)], np.uint8)
    groups = defaultdict(list)
    for row, key in enumerate(keys):
        groups[key].append(row)
    several = [rows for rows in groups.values() if len(rows) > 1]
    duplicates = found(*keys)
    ends = [*duplicates.starts.tolist(), len(duplicates.rows)][1:]
    pairs = zip(duplicates.starts.tolist(), ends, strict=True)
    assert sorted(duplicates.rows[a:b].tolist() for a, b in pairs) == sorted(several)
    expected = sum(len(set(splits[rows].tolist())) > 1 for rows in several)
    assert duplicates.mixed(splits) == expected


def test_a_million_rows_take_no_time():
    """Under two seconds, with half a million copies of a thousand pictures."""
    random = np.random.default_rng(0)
    digests = random.integers(0, 256, (1_000_000, 32), np.uint8)
    digests[500_000:] = digests[random.integers(0, 1000, 500_000)]
    began = time.process_time()
    duplicates = find_duplicates(digests, np.ones(1_000_000, np.uint8))
    assert time.process_time() - began < 2
    assert (duplicates.pictures, duplicates.copies) == (1000, 500_000)
