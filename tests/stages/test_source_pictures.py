"""Pictures of images in tars: as those of files, and as far as they are there."""

from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.core.errors import DataError
from featcache.core.specs import SgdSpec
from featcache.stages.tiles import CHANGED, GONE, TileSource
from tests.shards import age, make_tar, shard
from tests.stages.test_extraction import Listener, sampled_pixels
from tests.stages.test_showing import pixels_of

TARS = "tars/{train,val}-{000..001}.tar"


@pytest.fixture
def tars(photos, tmp_path, monkeypatch):
    """The photos in four tars, and a cache of them, whose features are pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)
    for split in ("train", "val"):
        shard(photos, tmp_path / "tars", split)
    for path in Path("tars").iterdir():
        age(path)
    featcache.extract(TARS, weights="random:0", cache="it.h5").close()
    return photos


def test_show_takes_tars_and_their_cache(tars):
    """Their pictures are those of the folder, to the pixel."""
    expected = pixels_of(featcache.show(tars, per_class=3))
    for data in (TARS, "it.h5"):
        assert np.array_equal(pixels_of(featcache.show(data, per_class=3)), expected)


@pytest.mark.slow
def test_the_augmented_batch_of_tars_is_that_of_the_folder(tars):
    """Tars that are written in the folder's order."""
    one, two = (
        pixels_of(featcache.show(data, augmented=True)) for data in (tars, TARS)
    )
    assert np.array_equal(one, two)


def test_what_became_of_an_image_in_a_tar_is_said(tars):
    """Another one of its name, and one that is in no tar any more."""
    with featcache.open_cache("it.h5") as cache:
        paths = cache.paths.tolist()
        other = (tars / "train/bees/01.jpg").read_bytes()
        members = [("ants/00.jpg", other), ("ants/00.cls", b"ants")]
        bee = (tars / "train/bees/00.jpg").read_bytes()
        members += [("bees/00.jpg", bee), ("bees/00.cls", b"bees")]
        make_tar(Path("tars/train-000.tar"), members)
        notes = {
            path.decode(): tile.note
            for path, tile in zip(
                paths, TileSource.of_cache(cache).tiles(range(len(paths))), strict=True
            )
        }
    assert notes["train-000.tar/ants/00.jpg"] == CHANGED
    assert notes["train-000.tar/ants/01.jpg"] == GONE
    assert notes["val-001.tar/bees/03.jpg"] == ""


def test_show_says_which_tars_are_gone(tars):
    """By the pattern that the cache recorded."""
    for path in Path("tars").iterdir():
        path.unlink()
    Path("tars").rmdir()
    with pytest.raises(DataError, match=r"there is no .*tars/\{train,val\}"):
        featcache.show("it.h5")


@pytest.mark.slow
def test_a_report_has_the_pictures_of_tars(tars):
    """Of the cache's rows; without the tars the numbers alone, and it says why."""
    featcache.fit_head("it.h5", SgdSpec(epochs=1, lr=1e-6), out="run")
    made = featcache.report("run", data="it.h5")
    assert made.pictures > 0
    named = featcache.report("run", data=TARS, split="train")
    assert named.pictures > 0
    Path("tars/val-001.tar").unlink()
    listener = Listener()
    assert featcache.report("run", data="it.h5", progress=listener).pictures == 0
    assert any("no pictures of the images of it.h5" in line for line in listener.lines)
