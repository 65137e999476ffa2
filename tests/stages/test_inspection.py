"""Verifying, sampling and repairing: a cache is right, or says what is not."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.core.errors import (
    CacheCorruptError,
    CacheMismatchError,
    DamagedRowsError,
    DataError,
    SpecError,
    WeightsError,
)
from featcache.core.specs import FeatureSpec, ViewSpec
from featcache.core.status import Status
from featcache.core.tolerances import relative_errors, tolerance
from featcache.store.reader import FeatureCache
from featcache.store.writer import CacheWriter, create, partial_path
from tests.conftest import picture
from tests.stages.test_extraction import age, contents, sampled_pixels


@pytest.fixture
def quick(monkeypatch):
    """Put sampled pixels in the network's place."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)


@pytest.fixture
def made(photos, tmp_path, quick) -> Path:
    """A cache of the test's own photos; the stand-in network."""
    age(photos)
    path = tmp_path / "it.h5"
    featcache.extract(photos, weights="random:0", cache=path).close()
    return path


def flip(path: Path, column: str, row: int) -> None:
    """Change the lowest bit of a row's first byte."""
    with FeatureCache(path) as cache:
        offset = cache.header.columns[column].row_offset(row)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def rewritten(path: Path, change) -> None:
    """Write a cache anew with other columns or rows and right digests."""
    with FeatureCache(path) as cache:
        columns = {k: v.copy() for k, v in cache.columns.items()}
        provenance = dict(cache.provenance)
        change(columns, provenance)
        names = cache.manifest_columns()
        manifest = {name: columns[name] for name in names}
        partial = partial_path(path)
        create(partial, cache.spec, manifest, cache.embed_dim, provenance)
        blocks = list(cache.blocks())
    with CacheWriter(partial) as writer:
        for block in blocks:
            rows = {
                k: columns[k][block.rows] for k in ("features", "digests", "status")
            }
            writer.write(block, **rows)
        writer.finish(path)


@pytest.mark.slow
def test_a_sample_is_computed_again_and_agrees(shared_photos, tmp_path):
    """With the real network, in other batches than at first."""
    path = tmp_path / "it.h5"
    featcache.extract(shared_photos, weights="random:0", cache=path).close()
    report = featcache.verify(path, sample=5)
    assert (report.rows, report.blocks, report.skipped, report.sampled) == (20, 3, 0, 5)
    assert report.largest_error <= 1e-5
    assert report.bytes == path.stat().st_size
    assert featcache.verify(path).largest_error is None


def test_all_damaged_rows_are_named(made):
    """Those of every block that does not match, in the error and one by one."""
    flip(made, "features", 1)
    flip(made, "status", 17)
    with pytest.raises(DamagedRowsError, match=r"train/ants/00.jpg, .*run 'featcache "):
        featcache.verify(made)
    with pytest.raises(DamagedRowsError) as caught:
        featcache.verify(made)
    assert len(caught.value.rows) == 12
    assert {row.path for row in caught.value.rows} >= {
        "train/ants/01.jpg", "val/bees/01.jpg",
    }  # fmt: skip


def test_a_sample_notices_images_that_are_gone_or_changed(made, photos):
    """Each by its path; the other rows are still right."""
    (photos / "val" / "bees" / "00.jpg").unlink()
    picture(99, (1, 2, 3)).save(photos / "train" / "ants" / "00.jpg")
    with pytest.raises(DamagedRowsError, match="2 of 20 sampled rows") as caught:
        featcache.verify(made, sample=1000)
    reasons = {row.path: row.reason for row in caught.value.rows}
    assert reasons["train/ants/00.jpg"] == "its image has changed since"
    assert "cannot be read any more" in reasons["val/bees/00.jpg"]


def test_a_sample_notices_features_of_another_making(made):
    """Digests that match prove nothing of a file that somebody made up."""

    def shift(columns, _):
        columns["features"][4, 0] += columns["features"][4].max() * 1e-4

    rewritten(made, shift)
    assert featcache.verify(made).rows == 20
    with pytest.raises(DamagedRowsError, match=r"off by 0.0001 \(relative\), above 1e"):
        featcache.verify(made, sample=20)


@pytest.mark.slow
def test_the_seed_chooses_the_sample(made, photos):
    """The same rows each time; another seed, others."""
    (photos / "val" / "bees" / "00.jpg").unlink()

    def finds(seed):
        try:
            return featcache.verify(made, sample=10, seed=seed).sampled == 0
        except DamagedRowsError:
            return True

    found = [finds(seed) for seed in range(5)]
    assert len(set(found)) == 2
    assert finds(0) == found[0]


def test_moved_images_and_weights_are_found_where_they_are_said(made, photos, tmp_path):
    """Otherwise the error says what to pass."""
    photos.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="say with --data where the images"):
        featcache.verify(made, sample=1)
    assert featcache.verify(made, sample=3, data=tmp_path / "moved").sampled == 3
    with pytest.raises(CacheMismatchError, match="weights_sha256 is"):
        featcache.verify(made, sample=1, data=tmp_path / "moved", weights="random:1")
    with pytest.raises(WeightsError, match="no weights file"):
        featcache.verify(made, sample=1, data=tmp_path / "moved", weights="no.pth")


def test_a_cache_that_says_nothing_of_its_origin_asks(made, photos):
    """Both the folder and the weights may be given."""
    rewritten(made, lambda _, provenance: provenance.clear())
    with pytest.raises(DataError, match="does not say where its images are"):
        featcache.verify(made, sample=1)
    with pytest.raises(CacheMismatchError, match="does not say which weights"):
        featcache.verify(made, sample=1, data=photos)
    report = featcache.verify(made, sample=1, data=photos, weights="random:0")
    assert report.sampled == 1


@pytest.mark.parametrize("name", [b"../../x.jpg", b"/etc/x.jpg", b"train/../../x"])
def test_no_file_outside_the_folder_is_read(made, name):
    """A stranger's cache may name any path."""

    def rename(columns, _):
        columns["paths"][:] = name

    rewritten(made, rename)
    with pytest.raises(CacheCorruptError, match="names an image outside its folder"):
        featcache.verify(made, sample=1)


@pytest.mark.parametrize("setting", ["sample", "seed"])
def test_negative_numbers_are_refused(made, setting):
    """By name."""
    with pytest.raises(SpecError, match=f"{setting} must be at least 0, got -1"):
        featcache.verify(made, **{setting: -1})


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param([("features", 1), ("features", 18)], id="features"),
        pytest.param([("status", 9)], id="status"),
        pytest.param([("digests", 12)], id="digest"),
        pytest.param([("journal", 0)], id="journal"),
        pytest.param([("journal", 0), ("digests", 1)], id="journal and digest"),
    ],
)
def test_a_repaired_cache_is_as_it_was(made, damage):
    """Every column, byte for byte; the file says that it was repaired."""
    with FeatureCache(made) as cache:
        before = contents(cache), cache.columns["journal"].tobytes()
    for column, row in damage:
        flip(made, column, row)
    report = featcache.repair(made)
    assert report.repaired_blocks == len({row // 8 for _, row in damage})
    assert report.repaired_rows < report.rows
    with FeatureCache(made) as cache:
        assert (contents(cache), cache.columns["journal"].tobytes()) == before
        assert cache.provenance["repaired"]["rows"] == report.repaired_rows
        assert cache.provenance["weights"]["source"] == "random:0"
    assert not partial_path(made).exists()


def test_a_sound_cache_is_left_as_it_is(made):
    """Not even its time changes."""
    before = made.stat()
    assert featcache.repair(made).repaired_blocks == 0
    assert made.stat().st_mtime_ns == before.st_mtime_ns


def test_a_readers_open_file_is_never_written_to(made):
    """The repaired file is another one."""
    flip(made, "features", 1)
    damaged = made.read_bytes()
    with made.open("rb") as reader:
        featcache.repair(made)
        assert reader.read() == damaged


def test_a_repair_refuses_images_that_are_not_the_same(made, photos):
    """Each with its path, and nothing is changed."""
    flip(made, "features", 1)
    (photos / "train" / "ants" / "02.png").unlink()
    picture(99, (1, 2, 3)).save(photos / "train" / "ants" / "03.jpg")
    damaged = made.read_bytes()
    with pytest.raises(DamagedRowsError, match="left as it is: 2 images") as caught:
        featcache.repair(made)
    assert [row.path for row in caught.value.rows] == [
        "train/ants/02.png", "train/ants/03.jpg",
    ]  # fmt: skip
    assert made.read_bytes() == damaged
    assert not partial_path(made).exists()


def test_a_damaged_manifest_cannot_be_repaired(made):
    """Nothing tells which image a row is of."""
    flip(made, "paths", 3)
    with pytest.raises(CacheCorruptError, match="cannot be repaired"):
        featcache.repair(made)


def test_an_interrupted_extraction_is_not_thrown_away(made):
    """Its unfinished file stands where the repaired one would be written."""
    flip(made, "features", 1)
    shutil.copy(made, partial_path(made))
    with pytest.raises(CacheCorruptError, match="holds an interrupted extraction"):
        featcache.repair(made)
    assert partial_path(made).exists()


@pytest.mark.slow
def test_unusable_images_stay_unusable(photos, tmp_path, quick):
    """A repaired block says of them what it said before."""
    (photos / "train" / "ants" / "03.jpg").write_bytes(b"nonsense")
    path = tmp_path / "it.h5"
    spec = featcache.ExtractSpec(on_error="skip")
    featcache.extract(photos, spec, weights="random:0", cache=path).close()
    with FeatureCache(path) as cache:
        before = contents(cache)
    flip(path, "features", 3)
    assert featcache.repair(path).skipped == 1
    with FeatureCache(path) as cache:
        assert contents(cache) == before


def test_a_quarantined_image_is_tried_apart(made, monkeypatch):
    """What once crashed the decoder does not crash the repair."""

    def quarantine(columns, _):
        columns["status"][3] = Status.QUARANTINED
        columns["features"][3] = np.nan

    rewritten(made, quarantine)
    with FeatureCache(made) as cache:
        before = contents(cache)
    flip(made, "features", 1)
    monkeypatch.setattr("featcache.vision.isolation.suspicion", lambda *_: "crashes")
    assert featcache.repair(made).skipped == 1
    with FeatureCache(made) as cache:
        assert contents(cache) == before


@pytest.mark.parametrize(
    ("precision", "dtype", "limit"),
    [
        ("float32", "float32", 1e-5),
        ("float32", "float16", 1e-3),
        ("bfloat16", "float32", 2e-2),
        ("bfloat16", "float16", 2e-2),
    ],
)
def test_the_tolerance_is_that_of_the_coarser_numbers(precision, dtype, limit):
    """Of the arithmetic and of what is stored."""
    spec = FeatureSpec(
        backbone="resnet18", weights_sha256="0" * 64, view=ViewSpec(),
        precision=precision, dtype=dtype,
    )  # fmt: skip
    assert tolerance(spec) == limit


def test_errors_are_relative_to_the_rows_largest_value():
    """Two zero rows are equal; what is not a number is infinitely far."""
    stored = np.array([[2.0, -4], [0, 0], [0, 0], [np.nan, 1], [1, 1]], np.float32)
    found = np.array([[2.0, -3], [0, 0], [0, 1], [np.nan, 1], [1, np.nan]], np.float32)
    errors = relative_errors(stored, found).tolist()
    assert errors == [0.25, 0.0, np.inf, np.inf, np.inf]
