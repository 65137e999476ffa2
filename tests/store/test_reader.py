"""Reading: rows at memory speed, and no damage goes unseen."""

import mmap
import os

import numpy as np
import pytest

from featcache.core.errors import (
    CacheCorruptError,
    CacheError,
    DamagedRowsError,
    SpecError,
    StorageError,
)
from featcache.core.manifest import TRAIN, VAL
from featcache.core.status import Status
from featcache.core.text import shown
from featcache.store import reader
from featcache.store.reader import FeatureCache, open_cache
from featcache.store.writer import partial_path

FLIPS = 300


def test_a_cache_says_what_it_holds(content, cache):
    """Columns, classes and identity are those that were written."""
    assert len(cache) == 20
    assert cache.embed_dim == 512
    assert cache.classes == content.manifest.classes
    assert cache.spec == content.spec
    assert cache.fingerprint == content.spec.fingerprint
    assert cache.skipped == 1
    for name, values in {**content.manifest.columns(), **content.rows}.items():
        assert np.array_equal(cache.columns[name], values)
    assert cache.paths[-1] == b"\xff.jpg"


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        pytest.param("train", [*range(3), *range(4, 15)], id="train"),
        pytest.param("val", range(15, 20), id="val"),
        pytest.param("test", [], id="no test"),
        pytest.param(None, [*range(3), *range(4, 20)], id="all"),
    ],
)
def test_features_of_a_split(content, cache, split, rows):
    """Features, labels and rows; that of the damaged image, row 3, is left out."""
    features = cache.features(split)
    rows = list(rows)
    assert len(features) == len(rows)
    assert features.sample_index.tolist() == rows
    assert np.array_equal(features.X, content.rows["features"][rows])
    assert np.array_equal(features.y, content.manifest.labels[rows])
    assert features.X.shape == (len(rows), 512)


@pytest.mark.parametrize(("split", "shared"), [("val", True), ("train", False)])
def test_rows_that_lie_together_are_not_copied(cache, split, shared):
    """They are a read-only view of the file."""
    X = cache.features(split).X
    assert np.shares_memory(X, cache.columns["features"]) == shared
    assert X.flags.writeable != shared


def test_an_unknown_split_is_refused(cache):
    """The error lists the splits."""
    message = "unknown split 'valid'; expected train, val, test"
    with pytest.raises(SpecError, match=message):
        cache.features("valid")


def test_arrays_outlive_the_cache(content, path):
    """Whoever still holds an array may read it after the cache is closed."""
    with open_cache(path) as cache:
        X = cache.features("val").X
    assert np.array_equal(X, content.rows["features"][15:])
    cache.close()


@pytest.mark.parametrize("asked", ["classes", "labels", "source", "features"])
def test_a_closed_cache_says_so(path, asked):
    """Not a KeyError; what is known without the file stays known."""
    cache = open_cache(path)
    cache.close()
    with pytest.raises(CacheError, match=r"\.h5 is closed; featcache.open_cache opens"):
        cache.features("val") if asked == "features" else getattr(cache, asked)
    assert (len(cache), cache.embed_dim) == (20, 512)


def test_reading_leaves_the_file_as_it_is(path):
    """Not a byte and not the time of change."""
    before = path.read_bytes(), path.stat().st_mtime_ns
    with open_cache(path) as cache:
        cache.features("train")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_every_flipped_bit_of_the_content_is_found(path):
    """Whichever column it is in, `check` says that the cache is damaged."""
    data = path.read_bytes()
    with FeatureCache(path) as cache:
        columns = cache.header.columns
    random = np.random.default_rng(0)
    spans = [(c.offset, c.nbytes) for c in columns.values()]
    ends = random.choice(spans, FLIPS // 3)
    places = [
        *(offset for offset, _ in spans),
        *(offset + size - 1 for offset, size in spans),
        *(offset + random.integers(size) for offset, size in random.choice(spans, 200)),
        *(offset + random.integers(min(size, 64)) for offset, size in ends),
    ]
    assert len(places) >= FLIPS
    with path.open("r+b") as file:
        for place in places:
            file.seek(place)
            file.write(bytes([data[place] ^ (1 << random.integers(8))]))
            file.flush()
            with pytest.raises(CacheCorruptError, match="is damaged"):
                open_cache(path)
            file.seek(place)
            file.write(data[place : place + 1])
    open_cache(path).close()


def test_check_names_every_wrong_row(content, path):
    """How many blocks, which rows, which images; and it tells how far it is."""
    with FeatureCache(path) as cache:
        features = cache.header.columns["features"]
    data = bytearray(path.read_bytes())
    for row in (9, 17):
        data[features.row_offset(row)] ^= 1
    path.write_bytes(data)
    message = r"2 blocks of rows .* the first at row 8 \(00008.jpg, 00009.jpg, .*--rep"
    seen = []
    with FeatureCache(path) as cache:
        with pytest.raises(DamagedRowsError, match=message) as caught:
            cache.check(seen.append)
        assert [row.path for row in caught.value.rows] == [
            shown(path) for path in cache.paths[8:]
        ]
        assert [cache.sound(block) for block in cache.blocks()] == [True, False, False]
    assert seen == [8, 8, 4]


def test_a_damaged_manifest_is_told_apart(path):
    """A wrong label is not a wrong feature."""
    with FeatureCache(path) as cache:
        labels = cache.header.columns["labels"]
    data = bytearray(path.read_bytes())
    data[labels.offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(CacheCorruptError, match="its paths or labels do not match"):
        open_cache(path)


@pytest.mark.parametrize("cut", [1, 4096, 20_000, 40_000])
def test_a_truncated_file_is_refused(path, cut):
    """The error says that the file is cut off, and what to do."""
    os.truncate(path, path.stat().st_size - cut)
    with pytest.raises(CacheCorruptError, match=r"truncated file.*; delete it and run"):
        open_cache(path)


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(("labels", 0, 3), "labels go from 0 to 3, not", id="C"),
        pytest.param(("labels", 5, -1), "labels go from -1 to 2", id="negative"),
        pytest.param(("splits", 2, 3), "splits go from 0 to 3", id="split"),
        pytest.param(("status", 19, max(Status) + 1), "status go from 1", id="status"),
        pytest.param(("status", 8, 0), "never finished: 1 row not", id="pending"),
    ],
)
def test_values_that_cannot_be_are_refused(
    contents, tmp_path, monkeypatch, change, message, size
):
    """Even where every digest matches, since whoever made the file made those too."""
    if size == "large":
        monkeypatch.setattr(reader, "CHECKED_ON_OPEN", 0)
    content = contents(20)
    name, row, value = change
    column = {**content.manifest.columns(), **content.rows}[name]
    column[row] = value
    path = content.complete(tmp_path / "cache.h5")
    with pytest.raises(CacheCorruptError, match=message):
        open_cache(path)


def test_large_caches_are_not_read_on_opening(path, monkeypatch):
    """Their rows are for `verify` to check."""
    with FeatureCache(path) as cache:
        features = cache.header.columns["features"]
    data = bytearray(path.read_bytes())
    data[features.offset] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(reader, "CHECKED_ON_OPEN", len(data) - 1)
    with open_cache(path) as cache, pytest.raises(CacheCorruptError, match="row 0"):
        cache.check()


def test_an_unfinished_cache_under_the_final_name_is_refused(content, tmp_path):
    """Renaming it by hand does not complete it."""
    path = tmp_path / "cache.h5"
    content.begin(path)
    partial_path(path).rename(path)
    with pytest.raises(CacheCorruptError, match="never finished: 20 rows not computed"):
        open_cache(path)


def test_a_file_that_cannot_be_mapped_is_an_error(path, monkeypatch):
    """Too little address space is no damage."""

    def refuse(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(StorageError, match=r"cannot map .*Cannot allocate memory"):
        open_cache(path)


def test_splits_are_numbered(cache):
    """As the manifest's list has them."""
    assert set(cache.splits.tolist()) == {TRAIN, VAL}
    assert cache.status[3] == Status.DAMAGED
