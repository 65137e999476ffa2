"""report: one file for runs, with what a person wants to see of them."""

import json
import re
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import featcache
from featcache.cli.main import main
from featcache.core.errors import (
    CacheMismatchError,
    DataError,
    ModelError,
    SpecError,
    StorageError,
)
from featcache.core.manifest import VAL
from featcache.core.pages import SHEET
from featcache.core.progress import SILENT
from featcache.core.solver_specs import RidgeSpec
from featcache.core.specs import ViewSpec
from featcache.stages.report_pictures import Album, draw, even_sample
from featcache.stages.reporting import MOST_BYTES
from featcache.stages.tiles import TileSource
from featcache.vision.sheets import middle_square, sheet_bytes
from tests.stages.made_runs import make_cache, make_images, make_run
from tests.stages.test_extraction import Listener

COUNTS = {"train": 12, "val": 8}
SCRIPT = re.compile(
    r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with a data set of three classes, its cache and two runs."""
    root = tmp_path_factory.mktemp("made")
    make_images(root / "photos", ["ants", "bees", "wasps"], COUNTS)
    cache = make_cache(root / "photos", root / "cache" / "photos.h5", recorded="photos")
    make_run(cache, root / "first")
    make_run(cache, root / "second", lr=1e-6, epochs=1)
    return root


@pytest.fixture
def there(made, tmp_path, monkeypatch):
    """The same, the test's own, and the current folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data(file):
    return json.loads(SCRIPT.search(Path(file).read_text("utf-8"))[1])


def report(*runs, **options):
    return featcache.report(*runs, **{"data": "cache/photos.h5", **options})


@pytest.fixture(scope="module")
def reported(made):
    """The report of the second run, whose mistakes are many."""
    return featcache.report(made / "second", data=made / "cache" / "photos.h5")


def test_the_numbers_are_those_of_evaluate(made, reported):
    evaluated = featcache.evaluate(made / "second", made / "cache" / "photos.h5")
    assert reported.report == made / "second" / "report.html"
    assert reported.bytes == reported.report.stat().st_size <= MOST_BYTES
    assert (reported.runs, reported.images) == (1, 24)
    assert reported.accuracy == evaluated.accuracy
    assert reported.accuracy_interval == evaluated.accuracy_interval
    cells = np.zeros((3, 3), int)
    for true, predicted, count in data(reported.report)["runs"]["A"]["cells"]:
        cells[true, predicted] = count
    assert cells.tolist() == evaluated.confusion


def test_mistakes_are_those_of_the_model_the_surest_first(made, reported):
    said = data(reported.report)
    model = featcache.open_model(made / "second")
    cache = featcache.open_cache(made / "cache" / "photos.h5")
    val = cache.features("val")
    probabilities = model.head.probabilities(val.X)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != val.y)
    order = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
    expected = [cache.paths[val.sample_index[row]].decode() for row in order]
    assert len(expected) > 3
    assert said["path"][: len(expected)] == expected
    run = said["runs"]["A"]
    guesses = dict(zip(run["picture"], run["guess"], strict=True))
    labels = probabilities[order].argmax(axis=1).tolist()
    assert [guesses[at] for at in range(len(expected))] == labels


def test_several_runs_are_compared(there):
    """One of them has no epochs, and so no curves."""
    featcache.fit_head("cache/photos.h5", RidgeSpec(), out="third")
    made = report("second", "third")
    assert made.report == Path("report.html")
    text = made.report.read_text("utf-8")
    pair = featcache.compare("second", "third", data="cache/photos.h5").pairs[0]
    assert pair.verdict[1:] in text
    assert set(data(made.report)["runs"]) == {"A", "B"}
    assert "was fitted by ridge, which has no epochs" in text
    assert text.count('class="chart"') == 3


def test_a_report_that_fails_leaves_the_file_that_was_there(there):
    Path("page.html").write_text("old")
    with pytest.raises(DataError, match="no usable image"):
        report("first", out="page.html", split="test")
    assert Path("page.html").read_text() == "old"


def test_images_that_moved_or_changed_say_so(there):
    Path("photos/val/ants/0000.jpg").unlink()
    Image.new("RGB", (48, 36)).save("photos/val/bees/0001.jpg")
    Path("page.html").write_text("old")
    made = report("first", out="page.html")
    assert made.bytes == Path("page.html").stat().st_size
    said = data("page.html")
    notes = {said["path"][int(at)]: note for at, note in said["note"].items()}
    assert notes == {
        "val/ants/0000.jpg": "not there any more",
        "val/bees/0001.jpg": "changed since the cache was made",
    }
    assert sum(tile < 0 for tile in said["tile"]) == 2


@pytest.mark.slow
def test_a_folder_that_moved_is_found_where_the_user_says(there):
    Path("photos").rename("moved")
    listener = Listener()
    assert report("first", progress=listener).pictures == 0
    assert any("--data FOLDER says" in line for line in listener.lines)
    made = report("first", data=["cache/photos.h5", "moved"])
    assert made.pictures == 60


@pytest.mark.slow
def test_the_command_prints_where_the_file_is(there):
    """Without --data, the newest fitting cache is taken."""
    ran = CliRunner().invoke(main, ["report", "first"])
    assert ran.exit_code == 0, ran.output
    expected = r"of 24 images of val \(.*\)\nfirst.report.html: .*, 60 pictures"
    assert re.search(expected, ran.stdout)
    assert "photos.h5" in Path("first/report.html").read_text("utf-8")


def test_the_command_prints_json(there):
    ran = CliRunner().invoke(
        main, ["report", "first", "--out", "x/page.html", "--json"]
    )
    printed = json.loads(ran.stdout)
    assert Path(printed["report"]) == Path("x/page.html")
    assert printed["bytes"] == Path("x/page.html").stat().st_size
    assert printed["pictures"] == 60


def test_what_is_no_run_is_refused(there, made):
    with pytest.raises(ModelError, match="one run or more, got none but photos"):
        featcache.report("photos")
    with pytest.raises(DataError, match="there is no nowhere"):
        featcache.report("nowhere")
    with pytest.raises(StorageError, match="is a folder; expected the name of a file"):
        report("first", out="photos")
    with pytest.raises(SpecError, match=r"an .html file, got page.jpg"):
        report("first", out="page.jpg")
    with pytest.raises(DataError, match="unknown split 'valid'"):
        report("first", split="valid")
    shutil.rmtree("cache")
    (made / "cache").rename(made / "gone")  # that the run was fitted on
    try:
        with pytest.raises(CacheMismatchError, match=r"no cache .* belongs to first"):
            featcache.report("first")
    finally:
        (made / "gone").rename(made / "cache")


def test_pictures_take_no_more_than_their_room_the_first_come_first(tmp_path):
    """Sheet by sheet: 200 images are four."""
    make_images(tmp_path, ["ants"], {"val": 200}, (64, 64))
    names = [b"val/ants/%04d.jpg" % i for i in range(200)]
    source = TileSource(tmp_path, ViewSpec(), {"paths": np.array(names, "S")})
    album = Album(["ants"])
    for name in reversed(names):
        album.add(name, "ants", VAL)
    found = []
    for room in (0, 60_000, 120_000, 10_000_000):
        pictures, sheets = draw(album, [source], room, SILENT)
        assert sum(map(len, sheets)) <= room
        tiles = [picture.tile for picture in pictures]
        drawn = sum(tile >= 0 for tile in tiles)
        assert tiles == [*range(drawn), *[-1] * (200 - drawn)]
        assert len(sheets) == -(-drawn // SHEET**2)
        found.append(drawn)
    assert found == [0, 64, 128, 200]


@pytest.mark.slow
def test_a_fine_tuned_run_is_scored_on_its_folder(photos, tmp_path, monkeypatch):
    """Its features are in no cache; the map is of the one that has its images."""
    monkeypatch.chdir(tmp_path)
    (photos / "val" / "ants" / "broken.jpg").write_bytes(b"no image")
    weights = {"weights": "random:0", "backbone": "resnet18"}
    spec = featcache.FinetuneSpec(epochs=1)
    featcache.finetune("photos", spec, **weights, out="tuned", on_error="skip")
    made = featcache.report("tuned")
    assert (made.images, made.pictures) == (8, 8)
    assert [Path(bad.path).name for bad in made.bad_images] == ["broken.jpg"]
    text = made.report.read_text("utf-8")
    assert text.count("No cache in the folder") == 2
    assert text.count('class="chart"') == 3

    featcache.extract("photos", featcache.ExtractSpec(on_error="skip"), **weights)
    made = featcache.report("tuned")
    assert made.pictures == 20
    text = made.report.read_text("utf-8")
    assert "No cache in the folder" not in text
    assert "(features of resnet18)" in text

    shutil.copytree(photos, "others")
    made = featcache.report("tuned", data="others", out="others.html")
    assert "No cache in the folder" in made.report.read_text("utf-8")


def test_an_even_sample_takes_one_of_each_class_first():
    labels = np.repeat(np.arange(5, dtype=np.int32), [100, 50, 3, 1, 20])
    rows = even_sample(labels, 30)
    assert len(set(rows.tolist())) == 30
    assert sorted(labels[rows[:5]].tolist()) == [0, 1, 2, 3, 4]
    assert np.bincount(labels[rows]).tolist() == [9, 9, 3, 1, 8]
    assert sorted(even_sample(labels, 1000).tolist()) == list(range(174))
    assert len(even_sample(labels[:0], 10)) == 0


def test_a_sheet_holds_each_square_at_its_place():
    colours = np.random.default_rng(0).integers(0, 256, (SHEET**2, 3))
    squares = [np.full((16, 16, 3), colour, np.uint8) for colour in colours]
    sheet = Image.open(BytesIO(sheet_bytes(squares, SHEET, 16, quality=95)))
    pixels = np.asarray(sheet.convert("RGB"), int).reshape(SHEET, 16, SHEET, 16, 3)
    # Colours bleed over the edge by a pixel or two, as in any JPEG file.
    found = pixels[:, 4:12, :, 4:12].mean(axis=(1, 3)).reshape(-1, 3)
    assert np.abs(found - colours).max() < 3


@pytest.mark.parametrize("size", [(200, 80), (80, 200), (3, 5), (64, 64), (1, 500)])
def test_a_square_is_the_middle_of_a_picture(size):
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    edge = min(size)
    top, left = (size[1] - edge) // 2, (size[0] - edge) // 2
    pixels[top : top + edge, left : left + edge] = 200
    square = middle_square(pixels, 64)
    assert square.shape == (64, 64, 3)
    assert (square == 200).all()
