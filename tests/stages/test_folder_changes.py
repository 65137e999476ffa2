"""status: what changed in a folder, and what extract will have to compute."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import featcache
from featcache.cli.main import main
from featcache.core.errors import (
    BadImagesError,
    CacheNotFoundError,
    DataError,
    Interrupted,
)
from featcache.core.specs import ExtractSpec
from featcache.stages.changes import status
from tests.conftest import picture
from tests.stages.test_extraction import Listener, age, sampled_pixels

ROOT = Path(__file__).parents[2]
WITHOUT_TORCH = """
import sys
from featcache.cli.main import main
try:
    main(sys.argv[1:])
finally:
    assert "torch" not in sys.modules
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Sampled pixels in the network's place; the test's own folder."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)
    monkeypatch.chdir(tmp_path)


def extract(photos, spec=None, **settings):
    return featcache.extract(photos, spec, weights="random:0", **settings)


def rework(photos: Path) -> None:
    """Rename a class, touch files, edit one image, add ten, delete five."""
    for split in ("train", "val"):
        (photos / split / "ants").rename(photos / split / "wasps")
    for path in (photos / "train" / "bees").iterdir():
        os.utime(path, (1e9, 1e9))
    picture(77, (1, 2, 3)).save(photos / "train" / "wasps" / "00.jpg")
    for number in range(10):
        picture(90 + number, (9, 9, 9)).save(photos / "val" / "bees" / f"n{number}.png")
    for number in range(1, 6):
        next((photos / "train" / "bees").glob(f"{number:02d}.*")).unlink()


@pytest.mark.parametrize("old", [True, False], ids=["old files", "files just made"])
def test_a_reworked_folder_is_told_and_costs_eleven(photos, old):
    """Every change by name; exactly what extract then computes."""
    if old:
        age(photos)
    extract(photos)
    rework(photos)
    report = status()
    # Renamed and edited: under the old name it is gone, under the new one it is new.
    assert "train/wasps/00.jpg" in report.added
    assert len(report.added) == 11
    assert report.changed == report.relabelled == ()
    assert len(report.removed) == 6
    assert len(report.renamed) == 9
    assert ("val/ants/02.png", "val/wasps/02.png") in report.renamed
    assert report.unchanged == 1 + 4  # one touched, four of val
    assert report.to_compute == 11
    assert extract(photos).report.computed == 11
    assert status().to_compute == 0


def test_an_edited_image_is_changed(photos):
    """Other bytes under the same path."""
    extract(photos)
    picture(77, (1, 2, 3)).save(photos / "train" / "ants" / "00.jpg")
    report = status()
    assert (report.changed, report.to_compute) == (("train/ants/00.jpg",), 1)
    assert report.unchanged == 19


def test_contents_that_changed_places_cost_nothing(photos):
    """Both files are changed, but both pictures are known."""
    extract(photos)
    one, two = (photos / "train" / name / "00.jpg" for name in ("ants", "bees"))
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)
    report = status()
    assert (len(report.changed), report.to_compute) == (2, 0)
    assert extract(photos).report.computed == 0


def test_an_unchanged_old_folder_is_not_read(photos, monkeypatch):
    """Path, size and time are enough, as they are for extract."""
    age(photos)
    extract(photos)
    monkeypatch.setattr("featcache.stages.changes.image_digest", None)
    report = status()
    assert (report.unchanged, report.to_compute) == (20, 0)


def test_a_held_out_image_of_another_split_is_relabelled(photos):
    """Without a val folder the split follows from a hash; with one it may be another.

    The images of train keep path and content here.
    """
    shutil.rmtree(photos / "val")
    extract(photos)
    (photos / "val" / "ants").mkdir(parents=True)
    picture(1, (1, 1, 1)).save(photos / "val" / "ants" / "x.png")
    report = status()
    assert report.added == ("val/ants/x.png",)
    assert report.relabelled
    assert len(report.relabelled) + report.unchanged == 12
    assert report.to_compute == extract(photos).report.computed == 1


@pytest.mark.slow
def test_what_an_interrupted_run_computed_is_counted_as_known(photos):
    """The rows of an unfinished cache are found again by extract, so by status."""
    extract(photos)
    for number in range(20):
        picture(200 + number, (9, 9, 9)).save(photos / "train" / f"bees/n{number}.png")
    assert status().to_compute == 20
    with pytest.raises(Interrupted):
        extract(photos, ExtractSpec(workers=1), progress=Listener(24))
    left = status().to_compute
    assert 0 < left < 20
    assert extract(photos).report.computed == left


@pytest.mark.slow
def test_images_known_to_be_bad_are_not_computed(photos):
    """Unchanged or renamed, a damaged image needs no forward."""
    bad = photos / "train" / "ants" / "00.jpg"
    bad.write_bytes(b"no image")
    with pytest.raises(BadImagesError):
        extract(photos)
    extract(photos, ExtractSpec(on_error="skip"))
    assert (status().unchanged, status().to_compute) == (20, 0)
    bad.rename(bad.with_name("other.jpg"))
    report = status()
    assert report.renamed == (("train/ants/00.jpg", "train/ants/other.jpg"),)
    assert report.to_compute == 0
    again = extract(photos, ExtractSpec(on_error="skip"))
    assert again.report.computed == 0


def test_another_folder_can_be_named(photos, tmp_path):
    """A copy elsewhere is the same data, whatever its times."""
    cache = extract(photos).path
    copy = shutil.copytree(photos, tmp_path / "copy")
    shutil.rmtree(photos)
    with pytest.raises(DataError, match=r"no .*/photos; name the folder: featcache st"):
        status(cache)
    report = status(cache, copy)
    assert (report.unchanged, report.to_compute) == (20, 0)
    assert report.data == str(copy)


def test_what_is_missing_is_named(photos):
    """No cache at all, no such cache, no such folder."""
    with pytest.raises(CacheNotFoundError, match="make one with 'featcache extract'"):
        status()
    with pytest.raises(CacheNotFoundError, match=r"no cache gone\.h5"):
        status("gone.h5")
    extract(photos)
    with pytest.raises(DataError, match="there is no folder gone"):
        status(None, "./gone")


def test_the_command_prints_signs_and_counts(photos):
    """For people at most twenty lines of a kind; for programs everything."""
    extract(photos)
    for number in range(25):
        picture(90 + number, (9, 9, 9)).save(photos / "val" / "bees" / f"n{number}.png")
    old = photos / "train" / "bees" / "00.jpg"
    old.rename(old.with_name("zz.jpg"))
    (photos / "train" / "bees" / "01.jpg").unlink()
    lines = CliRunner().invoke(main, ["status"]).stdout.splitlines()
    assert lines[1] == ("+25 ~0 -1 >1, unchanged 18; extract would compute 25 images")
    assert "+ val/bees/n0.png" in lines
    assert "+ and 5 more: see --json" in lines
    assert sum(line.startswith("+ ") for line in lines) == 21
    assert lines[-2:] == [
        "- train/bees/01.jpg",
        "> train/bees/00.jpg -> train/bees/zz.jpg",
    ]
    result = CliRunner().invoke(main, ["status", "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert list(report) == [
        "cache", "data", "added", "changed", "removed", "renamed", "relabelled",
        "unchanged", "to_compute",
    ]  # fmt: skip
    assert len(report["added"]) == 25
    assert report["renamed"] == [["train/bees/00.jpg", "train/bees/zz.jpg"]]


@pytest.mark.slow
def test_the_command_needs_no_torch(photos):
    """It answers in a moment: torch alone would take seconds to load."""
    extract(photos)
    rework(photos)
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "status", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["to_compute"] == 11
