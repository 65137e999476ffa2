"""Export: npy, Parquet and CSV hold what the cache holds, whole or not at all."""

import csv
import json
import sys
import tracemalloc

import numpy as np
import pytest

import featcache
from featcache.core.errors import (
    CacheBusyError,
    DependencyError,
    SpecError,
    StorageError,
)
from featcache.stages import exporting
from featcache.store.frames import Frame
from featcache.store.lock import writing
from featcache.store.opening import open_cache
from featcache.store.tables import FORMATS
from tests.store.conftest import make_content

pytest.importorskip("pyarrow")
import pyarrow.parquet as pq

ROWS = 40


@pytest.fixture(params=["float32", "float16"])
def dtype(request):
    """Of the stored features."""
    return request.param


@pytest.fixture
def path(tmp_path, dtype):
    """A cache of 40 rows; row 3 is of a damaged image."""
    return make_content(ROWS, bad=3, dtype=dtype).complete(tmp_path / "made.h5")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Seven rows of float32 a piece, so that there are several."""
    monkeypatch.setattr(exporting, "_PIECE", 7 * 512 * 4)


def test_npy_is_a_folder_that_can_be_mapped(path, tmp_path, dtype):
    """X, y, splits, paths and what they are."""
    report = featcache.export(path, "npy")
    assert report.out == tmp_path / "made-npy"
    assert (report.images, report.skipped, report.embed_dim) == (ROWS - 1, 1, 512)
    assert report.bytes == sum(f.stat().st_size for f in report.out.iterdir())
    expected = open_cache(path).features()
    X = np.load(report.out / "X.npy", mmap_mode="r")
    assert X.dtype == dtype
    assert np.array_equal(X, expected.X)
    assert np.array_equal(np.load(report.out / "y.npy"), expected.y)
    assert np.bincount(np.load(report.out / "splits.npy")).tolist() == [29, 10]
    lines = (report.out / "paths.txt").read_text("utf-8").splitlines()
    assert (lines[0], lines[-1]) == ("00000.jpg", "\\xff.jpg")
    meta = json.loads((report.out / "meta.json").read_text("utf-8"))
    assert meta["format"] == "featcache-export"
    assert meta["classes"] == ["ants", "bees", "caf\\xe9"]
    assert meta["fingerprint"] == open_cache(path).fingerprint
    assert (meta["images"], meta["skipped"]) == (ROWS - 1, 1)


def test_parquet_has_a_row_group_a_piece(path, tmp_path, dtype):
    """Equal to the cache's own Arrow table."""
    report = featcache.export(path, "parquet")
    assert report.out == tmp_path / "made.parquet"
    file = pq.ParquetFile(report.out)
    assert file.num_row_groups == -(-39 // (7 if dtype == "float32" else 14))
    assert file.read().to_pydict() == open_cache(path).to_arrow().to_pydict()
    meta = json.loads(file.schema_arrow.metadata[b"featcache"])
    assert meta["classes"][0] == "ants"


def test_csv_reads_back_as_the_same_numbers(path, tmp_path, dtype):
    """Nine digits of a float32, five of a float16."""
    report = featcache.export(path, "csv")
    with report.out.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header[:5] == ["path", "split", "label", "class_name", "f0"]
    expected = open_cache(path).features()
    assert np.array_equal(np.array([line[4:] for line in lines], dtype), expected.X)
    assert lines[3][:4] == ["00004.jpg", "train", "1", "bees"]


def test_several_files_are_exported_as_one(path, tmp_path, dtype):
    """By a pattern, or opened."""
    make_content(10, seed=1, dtype=dtype)
    with open_cache(str(tmp_path / "mad*.h5")) as joined:
        report = featcache.export(joined, "npy", out=tmp_path / "out")
    assert report.images == ROWS - 1
    again = featcache.export(str(tmp_path / "mad*.h5"), "csv")
    assert again.out == tmp_path / "made.csv"


def test_nothing_is_overwritten_unasked(path, tmp_path):
    """Asked, the earlier export is replaced as a whole."""
    for to in FORMATS:
        report = featcache.export(path, to)
        with pytest.raises(StorageError, match=r"is there already.*--overwrite"):
            featcache.export(path, to)
        stale = report.out / "stale.npy" if to == "npy" else report.out
        stale.write_bytes(b"stale")
        assert featcache.export(path, to, overwrite=True).bytes == report.bytes
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"made.h5", "made-npy", "made.parquet", "made.csv"}


def test_a_folder_of_anything_else_is_never_replaced(path, tmp_path):
    """Nor is the cache itself, nor a folder by a file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "only-copy.jpg").touch()
    with pytest.raises(StorageError, match="not a folder that 'featcache export'"):
        featcache.export(path, "npy", out=folder, overwrite=True)
    with pytest.raises(StorageError, match="is a folder"):
        featcache.export(path, "csv", out=folder, overwrite=True)
    with pytest.raises(StorageError, match="is the cache itself"):
        featcache.export(path, "csv", out=path, overwrite=True)
    assert (folder / "only-copy.jpg").exists()


@pytest.mark.parametrize("to", list(FORMATS))
def test_an_export_that_fails_leaves_what_was_there(path, tmp_path, monkeypatch, to):
    """The earlier one if there is one, and no piece of the new one."""

    def names():
        return sorted(p.name for p in tmp_path.iterdir())

    def fail(frame):
        if frame.sample_index[0] > 10:
            raise OSError(28, "No space left on device")
        return before(frame)

    before = Frame.names.fget
    empty = names()
    for _ in range(2):
        with monkeypatch.context() as broken:
            broken.setattr(Frame, "names", property(fail))
            with pytest.raises(StorageError, match="No space left"):
                featcache.export(path, to, overwrite=True)
        assert names() == empty
        report = featcache.export(path, to, overwrite=True)
        empty = names()
    assert report.images == ROWS - 1


def test_what_a_kill_left_is_removed_by_the_next_run(path, tmp_path):
    """A file and a folder under a passing name."""
    (tmp_path / f".made.csv.{'0' * 32}.partial").write_bytes(b"half")
    left = tmp_path / f".made-npy.{'0' * 32}.partial"
    left.mkdir()
    (left / "X.npy").write_bytes(b"half")
    featcache.export(path, "csv")
    featcache.export(path, "npy")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "made-npy",
        "made.csv",
        "made.h5",
    ]


def test_two_exports_do_not_write_one_file(path, tmp_path):
    """The second is told what to do."""
    with (
        writing(tmp_path / "made.csv"),
        pytest.raises(CacheBusyError, match="another place with --out"),
    ):
        featcache.export(path, "csv")


def test_memory_stays_bounded(tmp_path, monkeypatch):
    """However many rows: pieces of 64 KiB of a cache of 1 MiB."""
    monkeypatch.setattr(exporting, "_PIECE", 1 << 16)
    path = make_content(512).complete(tmp_path / "large.h5")
    with open_cache(path) as cache:
        for to in ("npy", "csv"):
            tracemalloc.start()
            featcache.export(cache, to)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 1 << 19


def test_what_cannot_be_exported_is_refused(path, tmp_path, monkeypatch):
    """An unknown format, a model, a missing library."""
    with pytest.raises(SpecError, match=r"unknown format 'npz'; did you mean 'npy'"):
        featcache.export(path, "npz")
    (tmp_path / "run").mkdir()
    for model in ("run", "model.safetensors"):
        with pytest.raises(SpecError, match="is no cache; --to csv takes"):
            featcache.export(tmp_path / model, "csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"pip install 'featcache\[export\]'"):
        featcache.export(path, "parquet")
    assert [p.name for p in tmp_path.glob("made*")] == ["made.h5"]


def test_a_damaged_cache_is_not_exported(path, tmp_path, monkeypatch):
    """Also one too large to be checked when it is opened."""
    monkeypatch.setattr("featcache.store.reader.CHECKED_ON_OPEN", 0)
    monkeypatch.setattr(exporting, "CHECKED_ON_OPEN", 0)
    with open_cache(path) as cache:
        place = cache.header.columns["features"].row_offset(9)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(featcache.FeatcacheError, match="is damaged"):
        featcache.export(path, "csv")
    assert not (tmp_path / "made.csv").exists()
