"""Writing: resumed equals never interrupted, byte for byte."""

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.core.errors import CacheCorruptError, StorageError
from featcache.store.reader import FeatureCache, open_cache
from featcache.store.writer import CacheWriter, old_path, partial_path

ROOT = Path(__file__).parents[2]


def names(folder):
    """Return what lies in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


def unfinished(partial, content):
    """Return the blocks whose bytes do not match the journal."""
    with FeatureCache(partial) as cache:
        return [block for block in content.blocks() if not cache.sound(block)]


def resume(partial, content, path):
    """Do what is left; return the whole file."""
    todo = unfinished(partial, content)
    with CacheWriter(partial) as writer:
        content.write(writer, todo)
        writer.finish(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that the examples of a property share."""
    return tmp_path_factory.mktemp("caches")


@settings(max_examples=25)
@given(n=st.integers(1, 40), dtype=st.sampled_from(["float32", "float16"]), d=st.data())
def test_resumed_equals_never_interrupted(contents, folder, n, dtype, d):
    """Any blocks in any order, a stop, the rest: the bytes are the same."""
    content = contents(n, dtype=dtype, bad=n // 2)
    expected = content.complete(folder / "whole.h5").read_bytes()
    path = folder / "resumed.h5"
    partial = content.begin(path)
    done = d.draw(st.lists(st.sampled_from(content.blocks()), unique=True))
    with CacheWriter(partial) as writer:
        content.write(writer, done)
    assert not set(unfinished(partial, content)) & set(done)
    assert resume(partial, content, path) == expected
    assert not partial.exists()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_torn_bytes_are_computed_again(contents, folder, seed, data):
    """Rows that the disk lost or changed are found, and only theirs are redone."""
    content = contents(40, bad=3)
    expected = content.complete(folder / "whole.h5").read_bytes()
    path = folder / "torn.h5"
    partial = content.begin(path)
    with CacheWriter(partial) as writer:
        content.write(writer, content.blocks())
        columns = writer.header.columns
    block = data.draw(st.sampled_from(content.blocks()))
    name = data.draw(st.sampled_from(["features", "digests", "status", "journal"]))
    row = block.index if name == "journal" else block.start
    rows = 1 if name == "journal" else block.size
    start = columns[name].row_offset(row)
    length = columns[name].row_offset(row + rows) - start
    torn = bytearray(partial.read_bytes())
    for at in np.random.default_rng(seed).integers(start, start + length, 5):
        torn[at] = (torn[at] + 1) % 256
    partial.write_bytes(torn)
    assert unfinished(partial, content) == [block]
    assert resume(partial, content, path) == expected


def test_rows_without_their_line_in_the_journal_do_not_count(content, tmp_path):
    """A page that reached the disk before its journal is as good as none."""
    partial = content.begin(tmp_path / "cache.h5")
    whole = content.complete(tmp_path / "whole.h5").read_bytes()
    with CacheWriter(partial) as writer:
        journal = writer.header.columns["journal"]
    data = bytearray(whole)
    data[journal.offset : journal.offset + journal.nbytes] = bytes(journal.nbytes)
    partial.write_bytes(data)
    assert unfinished(partial, content) == content.blocks()


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from conftest import make_content
from pathlib import Path
from featcache.store.writer import CacheWriter
content = make_content(40, bad=3)
writer = CacheWriter(content.begin(Path(sys.argv[2])))
content.write(writer, content.blocks()[:3])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_a_killed_process_keeps_its_blocks(contents, tmp_path):
    """What was written is there, what was not is computed, the bytes are equal."""
    path, content = tmp_path / "cache.h5", contents(40, bad=3)
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, Path(__file__).parent, path],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == -signal.SIGKILL
    assert names(tmp_path) == ["cache.h5.partial"]
    assert unfinished(partial_path(path), content) == content.blocks()[3:]
    expected = content.complete(tmp_path / "whole.h5").read_bytes()
    assert resume(partial_path(path), content, path) == expected


def test_blocks_may_come_from_several_threads(contents, tmp_path):
    """Whoever is first, the bytes are the same."""
    content = contents(200)
    path = tmp_path / "cache.h5"
    with CacheWriter(content.begin(path)) as writer:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda b: content.write(writer, [b]), content.blocks()[::-1]))
        writer.finish(path)
    expected = content.complete(tmp_path / "whole.h5").read_bytes()
    assert path.read_bytes() == expected


def test_finish_refuses_while_a_block_is_missing(content, tmp_path):
    """A `.h5` that is there is complete."""
    path = tmp_path / "cache.h5"
    with CacheWriter(content.begin(path)) as writer:
        content.write(writer, content.blocks()[1:])
        with pytest.raises(CacheCorruptError, match=r"cache.h5.partial still lacks"):
            writer.finish(path)
    assert names(tmp_path) == ["cache.h5.partial"]


def test_a_reader_keeps_the_file_that_it_opened(contents, tmp_path):
    """A cache that is replaced goes on to be read; the next reader gets the new one."""
    old, new = contents(20, seed=1), contents(20, seed=2)
    path = old.complete(tmp_path / "cache.h5")
    with open_cache(path) as reader:
        new.complete(path)
        assert np.array_equal(reader.features().X, old.rows["features"])
        reader.check()
    with open_cache(path) as reader:
        assert np.array_equal(reader.features().X, new.rows["features"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"features": np.zeros((7, 512), "f4")},
            r"features of block 0 are \(7, 512\), expected \(8, 512\)",
            id="too few rows",
        ),
        pytest.param(
            {"features": np.zeros((8, 2048), "f4")}, "features of block", id="other D"
        ),
        pytest.param({"status": np.zeros((8, 1), "u1")}, "status of block", id="shape"),
    ],
)
def test_rows_of_another_shape_are_refused(content, tmp_path, change, message):
    """They would overwrite their neighbours."""
    block = content.blocks()[0]
    rows = {k: v[block.rows] for k, v in content.rows.items()}
    with (
        CacheWriter(content.begin(tmp_path / "cache.h5")) as writer,
        pytest.raises(ValueError, match=message),
    ):
        writer.write(block, **{**rows, **change})


def test_rows_of_another_dtype_are_stored_in_the_caches(contents, tmp_path):
    """What is digested is what is stored."""
    content = contents(8, dtype="float16")
    wide = {**content.rows, "features": content.rows["features"].astype("f8")}
    path = tmp_path / "cache.h5"
    with CacheWriter(content.begin(path)) as writer:
        writer.write(content.blocks()[0], **wide)
        writer.finish(path)
    with open_cache(path) as cache:
        assert np.array_equal(cache.features().X, content.rows["features"])


def test_create_replaces_an_earlier_partial_file(contents, tmp_path):
    """It begins anew, with no block done."""
    path = tmp_path / "cache.h5"
    earlier, content = contents(40), contents(20)
    with CacheWriter(earlier.begin(path)) as writer:
        earlier.write(writer, earlier.blocks())
    assert unfinished(content.begin(path), content) == content.blocks()


def test_a_damaged_partial_file_is_refused(content, tmp_path):
    """Nothing is written into what is no cache."""
    partial = content.begin(tmp_path / "cache.h5")
    partial.write_bytes(partial.read_bytes()[:5000])
    with pytest.raises(CacheCorruptError, match="truncated file"):
        CacheWriter(partial)


@pytest.mark.parametrize("call", ["pwrite", "fsync", "posix_fallocate", "open"])
def test_a_full_disk_leaves_no_file_behind(content, tmp_path, monkeypatch, call):
    """The error has its remedy; what was there before is there still."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StorageError, match="No space left on device; make room"):
            content.begin(tmp_path / "cache.h5")
    assert names(tmp_path) == []


@pytest.mark.parametrize("call", ["pwrite", "fsync", "open"])
def test_a_disk_that_fills_up_later_keeps_what_is_done(
    content, tmp_path, monkeypatch, call
):
    """The same command goes on when there is room."""
    path = tmp_path / "cache.h5"
    partial = content.begin(path)
    blocks = content.blocks()
    with CacheWriter(partial) as writer:
        content.write(writer, blocks[:2])

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    def go_on():
        with CacheWriter(partial) as writer:
            content.write(writer, blocks[2:])
            writer.finish(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StorageError, match="No space left on device; make room"):
            go_on()
    assert names(tmp_path) == ["cache.h5.partial"]
    expected = content.complete(tmp_path / "whole.h5").read_bytes()
    assert resume(partial, content, path) == expected


@pytest.mark.parametrize("missing", ["pwrite", "posix_fallocate"])
def test_other_systems_write_equal_files(content, path, tmp_path, monkeypatch, missing):
    """Without a call of POSIX the bytes are the same."""
    monkeypatch.delattr(os, missing)
    other = content.complete(tmp_path / "other.h5")
    assert other.read_bytes() == path.read_bytes()


def test_names_of_unfinished_files():
    """All beside the cache, so that a rename stays on one disk."""
    path = Path("cache/ants.h5")
    assert partial_path(path) == Path("cache/ants.h5.partial")
    assert old_path(path) == Path("cache/ants.h5.partial.old")
