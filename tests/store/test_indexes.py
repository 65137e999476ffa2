"""Saved indexes: found as they were kept, of one state of one shard, or not at all."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.store.indexes import ShardIndexes

OLD = 1_600_000_000_000_000_000  # nanoseconds: 2020
SHARD = "/data/é\udcff.tar"
COLUMNS = {
    "members": np.array([b"a.jpg", b"long/name.jpg"]),
    "starts": np.array([512, 2048]),
    "codes": np.array([1, 0], np.int32),
    "none": np.array([], np.bytes_),
}


@pytest.fixture
def indexes(tmp_path):
    return ShardIndexes(tmp_path / "user/shards", pytest.fail)


def same(found, expected=COLUMNS):
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values), name
    return True


def test_what_was_kept_is_found(indexes):
    assert indexes.find(SHARD, 7, OLD) is None
    indexes.keep(SHARD, 7, OLD, COLUMNS)
    assert same(indexes.find(SHARD, 7, OLD))


@pytest.mark.parametrize(
    "state",
    [
        pytest.param((SHARD, 8, OLD), id="another size"),
        pytest.param((SHARD, 7, OLD + 1), id="another time"),
        pytest.param(("/data/b.tar", 7, OLD), id="another shard"),
    ],
)
def test_of_another_state_nothing_is_found(indexes, state):
    indexes.keep(SHARD, 7, OLD, COLUMNS)
    assert indexes.find(*state) is None


def test_a_shard_under_another_one_s_file_is_not_found(indexes, tmp_path):
    """The file itself says of which shard it is; its name alone is not believed."""
    for shard in (SHARD, "/data/b.tar"):
        indexes.keep(shard, 7, OLD, COLUMNS)
    first, second = (tmp_path / "user/shards").iterdir()
    first.replace(second)
    assert sum(indexes.find(s, 7, OLD) is None for s in (SHARD, "/data/b.tar")) == 2


def test_a_newer_state_takes_the_place_of_the_older(indexes, tmp_path):
    for number in range(3):
        indexes.keep(SHARD, 7 + number, OLD, COLUMNS)
    assert len(list((tmp_path / "user/shards").iterdir())) == 1
    assert same(indexes.find(SHARD, 9, OLD))


def test_of_a_shard_that_just_changed_nothing_is_kept(indexes):
    now = time.time_ns()
    indexes.keep(SHARD, 7, now, COLUMNS)
    assert indexes.find(SHARD, 7, now) is None


@given(st.data())
def test_a_damaged_file_is_as_good_as_none(tmp_path_factory, data):
    """Any byte another one, any length cut, anything behind the end."""
    folder = tmp_path_factory.mktemp("indexes")
    indexes = ShardIndexes(folder, pytest.fail)
    indexes.keep(SHARD, 7, OLD, COLUMNS)
    (path,) = folder.iterdir()
    sound = path.read_bytes()
    at = data.draw(st.integers(0, len(sound) - 1))
    flipped = bytearray(sound)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), sound[:at], sound + b"\0"):
        path.write_bytes(damaged)
        found = indexes.find(SHARD, 7, OLD)
        # Between the digest and the rest lies one byte that says nothing.
        assert found is None or (damaged[:64], damaged[65:]) == (sound[:64], sound[65:])
    indexes.keep(SHARD, 7, OLD, COLUMNS)
    assert same(indexes.find(SHARD, 7, OLD))


def test_threads_that_save_one_shard_leave_one_sound_file(tmp_path):
    """As processes do that start at once: no lock, the last one stays."""
    with ThreadPoolExecutor(8) as pool:
        for _ in range(40):
            pool.submit(
                ShardIndexes(tmp_path, pytest.fail).keep, SHARD, 7, OLD, COLUMNS
            )
            found = ShardIndexes(tmp_path, pytest.fail).find(SHARD, 7, OLD)
            assert found is None or same(found)
    assert same(ShardIndexes(tmp_path, pytest.fail).find(SHARD, 7, OLD))
    assert len(list(tmp_path.iterdir())) == 1


def test_where_nothing_can_be_written_it_is_said_once(tmp_path):
    (tmp_path / "file").write_text("")
    told = []
    indexes = ShardIndexes(tmp_path / "file", told.append)
    for shard in ("/data/a.tar", "/data/b.tar"):
        indexes.keep(shard, 7, OLD, COLUMNS)
        assert indexes.find(shard, 7, OLD) is None
    (line,) = told
    assert line.startswith(f"warning: cannot write {tmp_path}/file: ")
    assert line.endswith("each start will read the headers of all shards again")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
