"""Reuse: a row is taken over only where nothing can make it a wrong one."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.blocks import Block
from featcache.core.manifest import Manifest
from featcache.core.status import Status
from featcache.store.header import read_header
from featcache.store.reader import FeatureCache
from featcache.store.reuse import RACY_NS, Reuse

OK, PENDING = Status.OK, Status.PENDING


def prefilled(manifest, *sources, rehash=False):
    """Return all rows of a manifest as reuse fills them in, as one block."""
    n = len(manifest)
    rows = {
        "features": np.zeros((n, 512), "f4"),
        "digests": np.zeros((n, 32), "u1"),
        "status": np.zeros(n, "u1"),
    }
    reuse = Reuse(manifest, sources, rehash=rehash)
    reuse.prefill(Block(0, 0, n), **rows)
    return rows


def selected(manifest, rows):
    """Return a manifest of some rows in another order."""
    columns = {
        f.name: getattr(manifest, f.name)[rows]
        for f in fields(Manifest)
        if isinstance(getattr(manifest, f.name), np.ndarray)
    }
    return replace(manifest, **columns)


def changed(manifest, name, row, value):
    """Return a manifest in which one value is another."""
    column = getattr(manifest, name).copy()
    column[row] = value
    return replace(manifest, **{name: column})


@pytest.fixture(scope="module")
def source(content, tmp_path_factory):
    """A complete cache of `content`, for reading only."""
    path = content.complete(tmp_path_factory.mktemp("source") / "cache.h5")
    with FeatureCache(path) as opened:
        yield opened


def test_unchanged_files_are_taken_over(content, source):
    """All rows but that of the damaged image, which may have been mended."""
    rows = prefilled(content.manifest, source)
    good = content.rows["status"] == OK
    assert rows["status"].tolist() == np.where(good, OK, PENDING).tolist()
    for name in ("features", "digests"):
        assert np.array_equal(rows[name][good], content.rows[name][good])
        assert not rows[name][~good].any()


@given(rows=st.lists(st.integers(0, 19), max_size=25), new=st.integers(0, 5))
def test_rows_follow_their_files(content, source, rows, new):
    """Whatever was added, removed or moved, a path gets its own feature."""
    manifest = selected(content.manifest, np.array(rows, int))
    paths = [b"new%d.jpg" % i if i < new else p for i, p in enumerate(manifest.paths)]
    manifest = replace(manifest, paths=np.array(paths, np.bytes_))
    found = prefilled(manifest, source)
    for at, row in enumerate(rows):
        known = at >= new and row != 3
        assert found["status"][at] == (OK if known else PENDING)
        expected = content.rows["features"][row] if known else 0
        assert (found["features"][at] == expected).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("sizes", 1), ("mtimes_ns", 1), ("paths", b"renamed")],
)
def test_changed_files_are_not_taken_by_name(content, source, name, value):
    """Another size, time or path is another file until its bytes are read."""
    rows = prefilled(changed(content.manifest, name, 7, value), source)
    assert np.flatnonzero(rows["status"] == PENDING).tolist() == [3, 7]


def test_a_label_is_no_part_of_a_feature(content, source):
    """Relabelled images are taken over."""
    manifest = changed(content.manifest, "labels", 7, 2)
    assert (prefilled(manifest, source)["status"] == OK).sum() == 19


@pytest.mark.parametrize(
    ("age", "taken"),
    [
        pytest.param(RACY_NS + 1, True, id="old enough"),
        pytest.param(RACY_NS, False, id="within the tick of a clock"),
        pytest.param(0, False, id="as extraction began"),
        pytest.param(-(10**15), False, id="in the future"),
    ],
)
def test_young_files_are_read_again(contents, tmp_path, age, taken):
    """A file that changed twice within a tick of the clock keeps its time."""
    content = contents(20)
    began = 1_700_000_000_000_000_000
    manifest = changed(content.manifest, "mtimes_ns", 7, began - age)
    path = replace(content, manifest=manifest).complete(tmp_path / "cache.h5")
    with FeatureCache(path) as source:
        assert source.header.provenance["began_ns"] == began
        status = prefilled(manifest, source)["status"]
    assert (status[7] == OK) == taken
    assert (np.delete(status, 7) == OK).all()


def test_rehash_trusts_no_name(content, source):
    """Only what has the same bytes is the same."""
    rows = prefilled(content.manifest, source, rehash=True)
    assert not rows["status"].any()
    reuse = Reuse(content.manifest, [source], rehash=True)
    digest = content.rows["digests"][7].tobytes()
    assert np.array_equal(reuse.lookup(digest), content.rows["features"][7])


def test_images_are_found_by_their_bytes(content, source):
    """Each good row by its digest; no other."""
    reuse = Reuse(content.manifest, [source], rehash=False)
    for row, digest in enumerate(content.rows["digests"]):
        found = reuse.lookup(digest.tobytes())
        if row == 3:
            assert found is None
        else:
            assert np.array_equal(found, content.rows["features"][row])
    assert reuse.lookup(bytes(32)) is None
    assert reuse.lookup(b"\xff" * 32) is None


def test_digests_may_end_in_zeros(contents, tmp_path):
    """They differ in the bytes before."""
    content = contents(9)
    digests = content.rows["digests"]
    digests[:] = 0
    digests[:, 0] = range(9)
    path = content.complete(tmp_path / "cache.h5")
    with FeatureCache(path) as source:
        reuse = Reuse(content.manifest, [source], rehash=False)
        for row, digest in enumerate(digests):
            found = reuse.lookup(digest.tobytes())
            assert np.array_equal(found, content.rows["features"][row])
        assert reuse.lookup(b"\x01\x01" + bytes(30)) is None


@pytest.mark.parametrize("column", ["features", "digests", "status", "journal"])
def test_damaged_blocks_are_not_used(content, path, column):
    """Neither by name nor by bytes; the other blocks are."""
    columns = read_header(path).columns
    data = bytearray(path.read_bytes())
    row = 1 if column == "journal" else 9
    data[columns[column].row_offset(row) + 0] ^= 2
    path.write_bytes(data)
    with FeatureCache(path) as source:
        status = prefilled(content.manifest, source)["status"]
        assert np.flatnonzero(status == PENDING).tolist() == [3, *range(8, 16)]
        reuse = Reuse(content.manifest, [source], rehash=False)
        known = [reuse.lookup(d.tobytes()) is not None for d in content.rows["digests"]]
        assert np.flatnonzero(np.logical_not(known)).tolist() == [3, *range(8, 16)]


def test_the_first_source_is_trusted_most(contents, tmp_path):
    """A second one serves what the first does not have."""
    one, two = contents(20, seed=1, bad=5), contents(20, seed=2, bad=6)
    with (
        FeatureCache(one.complete(tmp_path / "1.h5")) as first,
        FeatureCache(two.complete(tmp_path / "2.h5")) as second,
    ):
        rows = prefilled(one.manifest, first, second)
        reuse = Reuse(one.manifest, [first, second], rehash=False)
        digest = two.rows["digests"][9].tobytes()
        assert np.array_equal(reuse.lookup(digest), two.rows["features"][9])
    assert (rows["status"] == OK).all()
    expected = one.rows["features"].copy()
    expected[5] = two.rows["features"][5]
    assert np.array_equal(rows["features"], expected)


def test_without_a_source_nothing_is_known(content):
    """The first extraction of a folder."""
    assert not prefilled(content.manifest)["status"].any()
    assert Reuse(content.manifest, [], rehash=False).lookup(bytes(32)) is None


def test_an_unfinished_source_gives_what_it_has(content, tmp_path):
    """Blocks that were done before the folder changed."""
    from featcache.store.writer import CacheWriter

    partial = content.begin(tmp_path / "cache.h5")
    with CacheWriter(partial) as writer:
        content.write(writer, content.blocks()[1:])
    with FeatureCache(partial) as source:
        status = prefilled(content.manifest, source)["status"]
    assert np.flatnonzero(status == OK).tolist() == list(range(8, 20))
