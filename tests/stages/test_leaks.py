"""Leaks: pictures that stand in a data set more than once are told of."""

import shutil

import pytest

import featcache
from featcache.core.specs import ExtractSpec, SgdSpec
from tests.stages.test_extraction import Listener, sampled_pixels

ONCE = SgdSpec(epochs=1, lr=1e-6)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Sampled pixels in the network's place; the test's own folder."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)
    monkeypatch.chdir(tmp_path)


def extracted(photos, **spec):
    """Extract; return the cache and the lines about copies."""
    listener = Listener()
    cache = featcache.extract(
        photos, ExtractSpec(**spec), weights="random:0", progress=listener
    )
    return cache, [line for line in listener.lines if "duplicate" in line]


def warnings_of_fit(cache):
    listener = Listener()
    featcache.fit_head(cache, ONCE, progress=listener)
    return [line for line in listener.lines if line.startswith("warning")]


def test_a_clean_folder_is_passed_in_silence(photos):
    """No line from extract, none from fit_head, and a zero in the report."""
    cache, lines = extracted(photos)
    assert (lines, cache.report.duplicates) == ([], 0)
    assert warnings_of_fit(cache) == []


def test_copies_are_counted_as_long_as_they_are_there(photos):
    """Across splits, across classes, and within one class; on a warm start, too."""
    ants, bees = photos / "train" / "ants", photos / "train" / "bees"
    shutil.copy(ants / "00.jpg", ants / "again.jpg")
    shutil.copy(ants / "01.jpg", bees / "mislabelled.jpg")
    shutil.copy(bees / "00.jpg", photos / "val" / "bees" / "leak.jpg")
    cache, lines = extracted(photos)
    expected = (
        "3 exact duplicates of 3 pictures; pictures in several splits: 1, "
        "in several classes: 1"
    )
    assert (lines, cache.report.duplicates) == ([expected], 3)
    again, lines = extracted(photos)
    assert (lines, again.report.computed) == ([expected], 0)


@pytest.mark.parametrize("split", ["val", "test"])
def test_fit_head_names_both_paths_of_the_first_leak(photos, split):
    """The count is of pictures, not of copies."""
    for name in ("ants", "bees"):
        (photos / split / name).mkdir(parents=True, exist_ok=True)
    ants = photos / "train" / "ants"
    shutil.copy(ants / "03.jpg", photos / split / "ants" / "x.jpg")
    shutil.copy(ants / "03.jpg", photos / split / "ants" / "y.jpg")
    shutil.copy(ants / "04.jpg", photos / split / "bees" / "z.jpg")
    cache, _ = extracted(photos)
    expected = (
        "warning: 2 pictures of train also in val or test, such as "
        f"train/ants/03.jpg and {split}/ants/x.jpg: accuracy there promises too much"
    )
    assert warnings_of_fit(cache) == [expected]


def test_copies_within_a_split_are_no_leak(photos):
    """They are told by extract, and cost no honesty."""
    ants = photos / "train" / "ants"
    shutil.copy(ants / "03.jpg", ants / "x.jpg")
    cache, lines = extracted(photos)
    assert len(lines) == 1
    assert warnings_of_fit(cache) == []


def test_images_that_cannot_be_used_are_no_duplicates(photos):
    """Two empty files are two bad images and nothing else."""
    for name in ("00.jpg", "01.jpg"):
        (photos / "train" / "ants" / name).write_bytes(b"")
    cache, lines = extracted(photos, on_error="skip")
    assert (lines, cache.report.duplicates) == ([], 0)
