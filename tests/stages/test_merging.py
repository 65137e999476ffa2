"""Merging: one file of several, as if one folder had been extracted."""

import shutil

import pytest

import featcache
from featcache.core.errors import (
    CacheCorruptError,
    CacheMismatchError,
    CacheNotFoundError,
)
from featcache.store.writer import partial_path
from tests.conftest import make_photos
from tests.stages.test_extraction import contents, sampled_pixels

WANTED = ("features", "labels", "splits", "paths", "digests", "status", "classes")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Put sampled pixels in the network's place."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)


@pytest.fixture
def extract(tmp_path):
    """Extract a folder into a cache of a name."""
    return lambda data, name, **settings: extracted(data, tmp_path, name, **settings)


def extracted(data, root, name, **settings):
    path = root / f"{name}.h5"
    with featcache.extract(data, weights="random:0", cache=path, **settings):
        return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder, the same cut in two, and their three caches."""
    root = tmp_path_factory.mktemp("merged") / "root"
    whole = make_photos(root / "photos", {"train": 12, "val": 6})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featcache.vision.forward.embedder", sampled_pixels)
        extracted(whole, root, "whole")
        for name, digits in (("even", "02468"), ("odd", "13579")):
            half = root / name
            shutil.copytree(whole, half)
            for path in half.rglob("*.*"):
                if path.stem[-1] not in digits:
                    path.unlink()
            extracted(half, root, name)
    return root


@pytest.fixture
def halves(made, tmp_path):
    """Return the whole's cache and those of the halves, the test's own."""
    for name in ("whole", "odd", "even"):
        shutil.copy(made / f"{name}.h5", tmp_path)
    return tmp_path / "whole.h5", [tmp_path / "odd.h5", tmp_path / "even.h5"]


def test_the_merged_cache_is_the_wholes(halves, tmp_path):
    """Every column, byte for byte; and it verifies."""
    whole, parts = halves
    target = tmp_path / "cache" / "merged.h5"
    report = featcache.merge(parts, target)
    assert (report.images, report.sources, report.repeated) == (36, 2, 0)
    with featcache.open_cache(whole) as wanted, featcache.open_cache(target) as merged:
        assert contents(merged) == contents(wanted)
        assert merged.provenance["merged"] == [str(p) for p in parts]
        assert merged.provenance["weights"]["source"] == "random:0"
        assert "data" not in merged.provenance
    assert featcache.verify(target).rows == 36
    assert [p.name for p in target.parent.iterdir()] == ["merged.h5"]


def test_the_same_cache_twice_is_taken_once(halves, made, tmp_path):
    """Repeated images are counted; the folder is still known."""
    whole, _ = halves
    report = featcache.merge([whole, whole], tmp_path / "merged.h5")
    assert (report.images, report.repeated) == (36, 36)
    with featcache.open_cache(tmp_path / "merged.h5") as merged:
        assert merged.provenance["data"] == str(made / "photos")


def test_a_damaged_source_makes_no_file(halves, tmp_path):
    """The digests are checked on the way, and the damaged rows named."""
    _, parts = halves
    data = bytearray(parts[1].read_bytes())
    data[-1] ^= 1
    parts[1].write_bytes(data)
    with pytest.raises(CacheCorruptError, match=r"even.h5 is damaged.*val/bees/0"):
        featcache.merge(parts, tmp_path / "merged.h5")
    assert not (tmp_path / "merged.h5").exists()
    assert not partial_path(tmp_path / "merged.h5").exists()


def test_what_is_there_is_not_replaced_unasked(halves, tmp_path):
    """Neither a cache nor an interrupted extraction; one of the sources may be it."""
    whole, parts = halves
    with pytest.raises(CacheMismatchError, match="is there already"):
        featcache.merge(parts, whole)
    shutil.copy(whole, partial_path(tmp_path / "merged.h5"))
    with pytest.raises(CacheMismatchError, match="interrupted extraction"):
        featcache.merge(parts, tmp_path / "merged.h5")
    assert featcache.merge(parts, parts[0], overwrite=True).images == 36
    assert featcache.verify(parts[0]).rows == 36


def test_other_settings_and_missing_files_are_refused(halves, made, extract, tmp_path):
    """By field, and by name."""
    whole, _ = halves
    other = extract(made / "photos", "other", dtype="float16")
    with pytest.raises(CacheMismatchError, match="dtype is 'float16' in"):
        featcache.merge([whole, other], tmp_path / "merged.h5")
    with pytest.raises(CacheNotFoundError, match=r"nowhere\.h5"):
        featcache.merge([whole, tmp_path / "nowhere.h5"], tmp_path / "merged.h5")
