"""Changes: every row of a cache and of a folder is told of once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.changes import Changes, compare, rows_by_path, trusted
from featcache.core.status import Status

FILES = st.dictionaries(  # path -> content, class, split
    st.sampled_from([b"a", b"b", b"c", b"dd", b"eee"]),
    st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 1)),
    min_size=1,
)


def columns(files, classes=(b"ants", b"bees")):
    """Return the columns of files: path -> (content, class, split)."""
    content, labels, splits = zip(*files.values(), strict=True)
    digests = np.zeros((len(files), 32), np.uint8)
    digests[:, 3] = content  # content 0 could not be read
    return {
        "paths": np.array(list(files), np.bytes_),
        "classes": np.array(classes, np.bytes_),
        "labels": np.array(labels, np.int32),
        "splits": np.array(splits, np.uint8),
        "digests": digests,
        "sizes": np.array(content, np.int64),
        "mtimes_ns": np.full(len(files), 1000),
        "status": np.full(len(files), Status.OK, np.uint8),
    }


def compared(old, new, **settings) -> tuple[Changes, dict, dict]:
    """Compare two dictionaries of files; also their columns."""
    old, new = columns(old), columns(new, **settings)
    changes = compare(old, new, rows_by_path(old, new), new["digests"])
    return changes, old, new


def test_each_kind_of_change():
    """One file of each."""
    changes, *_ = compared(
        {
            b"same": (1, 0, 0),
            b"edited": (2, 0, 0),
            b"gone": (3, 0, 0),
            b"was": (4, 0, 0),
            b"moved": (5, 0, 0),
        },
        {
            b"same": (1, 0, 0),
            b"edited": (9, 0, 0),
            b"is": (4, 1, 0),
            b"moved": (5, 0, 1),
            b"new": (6, 0, 0),
        },
    )
    assert changes.added.tolist() == [4]
    assert changes.changed.tolist() == [1]
    assert changes.removed.tolist() == [2]
    assert changes.renamed.tolist() == [[3, 2]]
    assert changes.relabelled.tolist() == [3]
    assert changes.unchanged == 1


def test_a_class_is_its_name():
    """A new class before the others moves all numbers and relabels nothing."""
    changes, *_ = compared(
        {b"x": (1, 0, 0), b"y": (2, 1, 0)},
        {b"w": (3, 0, 0), b"x": (1, 1, 0), b"y": (2, 2, 0)},
        classes=(b"aaa", b"ants", b"bees"),
    )
    assert (changes.added.tolist(), changes.unchanged) == ([0], 2)


def test_a_copy_of_what_is_still_there_is_added():
    """It is no renaming, and needs no forward."""
    changes, old, new = compared({b"x": (1, 0, 0)}, {b"x": (1, 0, 0), b"y": (1, 0, 0)})
    assert (changes.added.tolist(), changes.renamed.tolist()) == ([1], [])
    assert changes.fresh(new["digests"], old["digests"]) == 0


def test_each_copy_of_a_removed_picture_is_renamed_once():
    """Two gone and three new of one content are two renamings and one addition."""
    changes, *_ = compared(
        {b"a": (7, 0, 0), b"b": (7, 0, 0)},
        {b"c": (7, 0, 0), b"d": (7, 0, 0), b"e": (7, 0, 0)},
    )
    assert changes.renamed.tolist() == [[0, 0], [1, 1]]
    assert (changes.added.tolist(), changes.removed.tolist()) == ([2], [])


def test_files_that_cannot_be_read_are_not_one_picture():
    """Of their content nothing is known: not renamed, and not computed either."""
    changes, old, new = compared({b"a": (0, 0, 0)}, {b"b": (0, 0, 0)})
    assert (changes.added.tolist(), changes.removed.tolist()) == ([0], [0])
    assert changes.fresh(new["digests"], old["digests"]) == 0


@given(old=FILES, new=FILES)
def test_every_row_is_told_once(old, new):
    """The kinds of change are a partition of either side."""
    changes, before, after = compared(old, new)
    both = [len(changes.changed), len(changes.relabelled), changes.unchanged]
    assert sum(both) + len(changes.renamed) + len(changes.added) == len(new)
    assert sum(both) + len(changes.renamed) + len(changes.removed) == len(old)
    assert sum(both) == len(old.keys() & new.keys())
    known = {content for content, *_ in old.values()} | {0}
    expected = sum(content not in known for content, *_ in new.values())
    assert changes.fresh(after["digests"], before["digests"]) == expected


@pytest.mark.parametrize(
    ("column", "value", "holds"),
    [
        pytest.param("sizes", 1, True, id="as it was"),
        pytest.param("sizes", 2, False, id="size"),
        pytest.param("mtimes_ns", 999, False, id="time"),
        pytest.param("paths", b"y", False, id="path"),
    ],
)
def test_trust_takes_path_size_and_time(column, value, holds):
    """Anything else is read."""
    old, new = columns({b"x": (1, 0, 0)}), columns({b"x": (1, 0, 0)})
    new[column] = np.array([value])
    rows = rows_by_path(old, new)
    assert trusted(old, new, rows, 1001).tolist() == [holds]
    assert trusted(old, new, rows, 1000).tolist() == [False]


def test_a_file_that_could_not_be_read_is_tried_again():
    """A permission changes neither size nor time."""
    old = columns({b"x": (1, 0, 0)})
    old["status"][:] = Status.UNREADABLE
    assert trusted(old, old, np.zeros(1, np.int64), 1001).tolist() == [False]
