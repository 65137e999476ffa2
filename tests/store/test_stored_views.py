"""Caches with several views of each training image."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from featcache.core.blocks import Block
from featcache.core.errors import SpecError
from featcache.core.manifest import TRAIN
from featcache.core.specs import AugmentSpec
from featcache.store.frames import arrow_table, pandas_frame
from featcache.store.opening import open_cache
from featcache.store.reader import FeatureCache
from featcache.store.reuse import Reuse
from tests.store.conftest import EMBED_DIM, make_spec
from tests.store.test_parts import part_of

VIEWS = 3


@pytest.fixture(scope="module")
def several(contents):
    """Twenty rows, fifteen of train with three views."""
    return contents(20, views=VIEWS)


@pytest.fixture
def opened(several, tmp_path):
    """The cache of these, opened and checked."""
    with open_cache(several.complete(tmp_path / "views.h5")) as cache:
        yield cache


@pytest.fixture
def parted(several, tmp_path):
    """The same as two files."""
    halves = [part_of(several, rows) for rows in (slice(0, 9), slice(9, 20))]
    paths = [h.complete(tmp_path / f"{i}.h5") for i, h in enumerate(halves)]
    with open_cache(paths) as cache:
        yield cache


def test_h5py_sees_rows_by_views_by_features(opened):
    """(N, V, D), in any program."""
    with h5py.File(opened.path) as file:
        assert file["features"].shape == (20, VIEWS, EMBED_DIM)
    assert (opened.embed_dim, opened.spec.views) == (EMBED_DIM, VIEWS)


@pytest.mark.parametrize("split", ["train", "val", None])
def test_features_are_the_first_view(opened, parted, several, split):
    """A strided part of the map; of several files a copy."""
    found = opened.features(split)
    expected = several.rows["features"][found.sample_index, 0]
    assert np.array_equal(expected, found.X)
    assert np.shares_memory(found.X, opened.columns["features"])
    rows = np.array([7, 2, 19])
    assert np.array_equal(several.rows["features"][rows, 0], opened.take(rows))
    by_path = dict(zip(parted.paths.tolist(), parted.features().X, strict=True))
    for path, feature in zip(opened.paths.tolist(), opened.features().X, strict=True):
        assert np.array_equal(feature, by_path[path])


def test_all_views_are_mapped_where_rows_lie_together(opened, several):
    """(n, V, D) of train; val has one."""
    views = opened.views("train")
    assert np.array_equal(several.rows["features"][:15], views)
    assert np.shares_memory(views, opened.columns["features"])
    assert opened.views("val").shape == (5, 1, EMBED_DIM)
    assert np.isfinite(opened.views("val")).all()
    with pytest.raises(SpecError, match="unknown split"):
        opened.views("valid")


def test_a_cache_with_one_view_has_one(cache):
    """(n, 1, D), of the same memory."""
    views, features = cache.views("val"), cache.features("val")
    assert np.array_equal(views[:, 0], features.X)
    assert np.shares_memory(views, cache.columns["features"])


def test_views_as_rows(opened, parted):
    """`flat` numbers them row by row, for one file and for several."""
    for table in (opened, parted):
        flat, every = table.source.flat(), np.arange(15)
        expected = table.take_views(every, VIEWS)
        found = flat.take((every[:, None] * VIEWS + np.arange(VIEWS)).ravel())
        assert np.array_equal(expected.reshape(-1, EMBED_DIM), found)
        rows = np.array([5, 4, 30, 31, 2])
        out = np.empty((5, EMBED_DIM), np.float32)
        flat.read(rows, out)
        assert np.array_equal(flat.take(rows), out)
        first = np.empty((15, EMBED_DIM), np.float32)
        table.source.read(every, first)
        assert np.array_equal(expected[:, 0], first)


def test_a_digest_covers_every_view(several, tmp_path):
    """A changed bit in a view beyond the first is found."""
    path = several.complete(tmp_path / "views.h5")
    with FeatureCache(path) as cache:
        at = cache.header.columns["features"].row_offset(4) + 2 * EMBED_DIM * 4
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff")
    with FeatureCache(path) as cache:
        assert [block.index for block in cache.unsound()] == [4 // 8]


def test_other_readers_get_the_first_view(opened):
    """The torch data set, Arrow and pandas are as of a cache with one view."""
    features = opened.features("train")
    for at, (feature, label) in enumerate(opened.dataset("train")):
        assert torch.equal(feature, torch.tensor(features.X[at]))
        assert label == features.y[at]
    frame = opened.frame(opened.rows("train"))
    pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    table = arrow_table(frame)
    assert table["features"].to_pylist()[2] == pytest.approx(features.X[2].tolist())
    assert np.array_equal(pandas_frame(frame)["f5"], features.X[:, 5])


def test_another_split_takes_over_what_it_needs(opened, several):
    """From train to val the first view; from val to train the rest is missing."""
    manifest = several.manifest
    moved = manifest.splits.copy()
    moved[0], moved[19] = moved[19], TRAIN
    rows = prefilled_views(moved, several, opened)
    assert rows["status"].tolist() == [1] * 19 + [0]
    assert np.array_equal(rows["features"][0, 0], several.rows["features"][0, 0])
    assert np.isnan(rows["features"][0, 1:]).all()
    assert np.array_equal(rows["features"][1:15], several.rows["features"][1:15])


def prefilled_views(splits, content, cache):
    """Return all rows as reuse fills them in, for other splits."""
    manifest = replace(content.manifest, splits=splits)
    rows = {
        "features": np.full((20, VIEWS, EMBED_DIM), np.nan, "f4"),
        "digests": np.zeros((20, 32), "u1"),
        "status": np.zeros(20, "u1"),
    }
    Reuse(manifest, [cache], rehash=False).prefill(Block(0, 0, 20), **rows)
    return rows


def test_of_equal_images_the_one_with_all_views_is_found(contents, tmp_path):
    """Wherever the one in val stands."""
    content = contents(20, views=VIEWS)
    content.rows["digests"][:2] = content.rows["digests"][18:]
    for first in (0, 18):
        content.manifest.splits[:] = TRAIN
        content.manifest.splits[first : first + 2] = TRAIN + 1
        content.rows["features"][:, 1:] = 1.0
        content.rows["features"][first : first + 2, 1:] = np.nan
        with FeatureCache(content.complete(tmp_path / f"{first}.h5")) as cache:
            reuse = Reuse(content.manifest, [cache], rehash=True)
            for row in (0, 1):
                known = reuse.lookup(content.rows["digests"][row].tobytes())
                assert np.isfinite(known).all()


def test_one_view_is_stored_as_ever(content, contents, tmp_path):
    """Settings of views that are not there change no byte."""
    other = contents(bad=3, augment=AugmentSpec(seed=9))
    paths = [c.complete(tmp_path / f"{i}.h5") for i, c in enumerate((content, other))]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert make_spec(views=VIEWS).fingerprint != make_spec().fingerprint
