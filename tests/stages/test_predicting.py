"""predict for real work: streamed, kept, resumed, of folders that fill up."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.core.errors import (
    BadImage,
    CacheBusyError,
    DataError,
    SpecError,
)
from featcache.core.heads import initial_head
from featcache.core.predictions import Entry, ImageFile
from featcache.core.progress import SILENT
from featcache.core.specs import SgdSpec, ViewSpec
from featcache.stages.image_files import list_images
from featcache.stages.predicting import predicting
from featcache.stages.watching import Watcher
from featcache.store.artifacts import Model, save_model
from featcache.store.predictions import PredictionFile
from featcache.vision import pipeline
from featcache.vision.pipeline import Extractor
from tests.conftest import make_photos, picture

IMAGES = 40


def a_model(path, seed):
    """A head on a backbone that the tests replace."""
    model = Model(
        head=initial_head(2, 512, seed=seed),
        classes=("ants", "bees"),
        view=ViewSpec(),
        backbone="resnet18",
        weights_sha256="0" * 64,
        weights="random:0",
        state=None,
        report={},
    )
    save_model(model, path)
    return path


def sampled_pixels(pixels):
    """Stand in for a network: the feature is 512 pixels of the view."""
    return pixels.reshape(len(pixels), -1)[:, ::294].astype(np.float32) / 255


@pytest.fixture
def model(tmp_path_factory, monkeypatch):
    """A model without the slow part; the rest of the way is the real one."""

    def quick(opened, *_):
        return Extractor(sampled_pixels, opened.view, 8, workers=2)

    for module in ("prediction", "predicting"):
        monkeypatch.setattr(f"featcache.stages.{module}.model_extractor", quick)
    return a_model(tmp_path_factory.mktemp("model") / "m.safetensors", 0)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """40 images, of which two are none."""
    folder = make_photos(tmp_path_factory.mktemp("many"), {"all": IMAGES // 2})
    for name in ("all/ants/03.jpg", "all/bees/07.jpg"):
        (folder / name).write_bytes(b"no image")
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """Hear of every image that is read."""
    names = []
    plain = pipeline.read_file

    def noting(path):
        names.append(path)
        return plain(path)

    monkeypatch.setattr(pipeline, "read_file", noting)
    return names


def write(model, out, *images, tell=lambda _: None, **options):
    """Predict into a file and return the report."""
    files = list_images(images, SILENT)
    with predicting(model, out=out, progress=SILENT, **options) as run:
        run.work(files, tell)
        return run.report


def rows_of(path):
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_predictions_come_lazily_and_in_order(model, many, decoded):
    """Taking one prediction reads a few blocks, not the folder."""
    one_block = [many / "all/ants/00.jpg"] * 400
    told = featcache.iter_predictions(model, one_block)
    first = list(islice(told, 3))
    time.sleep(0.5)  # the threads run as far ahead as they may
    assert 3 <= len(decoded) < 200
    told.close()
    assert [p.path for p in first] == [str(one_block[0])] * 3


def test_streamed_predictions_are_those_of_predict(model, many):
    """Bad images stand where they were named."""
    told = list(featcache.iter_predictions(model, [many], top=2))
    result = featcache.predict(model, [many])
    bad = [t for t in told if isinstance(t, BadImage)]
    good = [t for t in told if not isinstance(t, BadImage)]
    assert tuple(bad) == result.bad_images
    assert [Path(b.path).name for b in bad] == ["03.jpg", "07.jpg"]
    expected = [(p.path, p.label, p.probability) for p in result.predictions]
    assert [(p.path, p.label, p.probability) for p in good] == expected
    assert [t.path for t in told] == sorted(t.path for t in told)


def test_all_classes_together_are_certain(model, many):
    """The top C probabilities sum to one, the best first; more than C are C."""
    for told in featcache.iter_predictions(model, [many / "all/bees/00.jpg"], top=9):
        assert len(told.top) == 2
        assert sum(p for _, p in told.top) == pytest.approx(1, abs=2e-6)
        assert told.top[0] == (told.label, told.probability)
        assert told.top[0][1] >= told.top[1][1]


def test_no_classes_cannot_be_asked_for(model, many):
    with pytest.raises(SpecError, match="top must be at least 1, got 0"):
        featcache.iter_predictions(model, [many], top=0)


def test_patterns_stand_for_what_they_match(many):
    """With ** and in the order of the names; one that matches nothing is an error."""
    found = list_images([str(many / "all" / "**" / "0*.jpg")], SILENT)
    assert len(found) == 14
    assert [f.name for f in found] == sorted(f.name for f in found)
    with pytest.raises(DataError, match=r"no file matches .*\*\.gif"):
        list_images([str(many / "*.gif")], SILENT)


def test_a_cache_is_no_image(model, tmp_path):
    """It is told what it is, and what can be done with it."""
    cache = tmp_path / "it.h5"
    cache.write_bytes(b"\x89HDF\r\n\x1a\n and more")
    with pytest.raises(DataError, match=r"it\.h5 is an HDF5 file.*evaluate MODEL"):
        featcache.predict(model, [cache])


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("top", [1, 2])
def test_a_file_has_a_row_for_every_image(model, many, tmp_path, ending, top):
    """Class and probability, or the error; size, time and the model's fingerprint."""
    out = tmp_path / f"p{ending}"
    report = write(model, out, many, top=top)
    assert (report.images, report.reused, report.bad) == (IMAGES, 0, 2)
    if ending == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        rows = parquet.read_table(out).to_pylist()
    else:
        rows = rows_of(out)
    expected = list(featcache.iter_predictions(model, [many], top=top))
    assert [row["path"] for row in rows] == [e.path for e in expected]
    for row, told in zip(rows, expected, strict=True):
        if isinstance(told, BadImage):
            assert row["error"] == told.reason
            assert not row["label"]
        else:
            assert not row["error"]
            assert (row["label"], float(row["probability"])) == told.top[0]
            assert int(row["size"]) == Path(told.path).stat().st_size
    assert len({row["model"] for row in rows}) == 1
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    again = write(model, out, many, top=top)
    assert (again.images, again.reused, again.bad) == (IMAGES, IMAGES, 2)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(
    model, many, tmp_path, ending, decoded
):
    """What is in whole lines is kept; only the open block is computed again."""
    out = tmp_path / f"p{ending}"
    write(model, out, many, top=2)
    whole, lines = out.read_bytes(), out.read_bytes().splitlines(keepends=True)
    for length in (0, 5, len(lines[0]) - 1, len(whole) // 2, len(whole) - 1):
        out.write_bytes(whole[:length])
        decoded.clear()
        write(model, out, many, top=2)
        assert out.read_bytes() == whole
    assert len(decoded) <= 8


def test_new_and_rewritten_images_are_added(model, many, tmp_path, decoded):
    """The folder has grown between: the rows that are there stay."""
    folder, out = tmp_path / "photos", tmp_path / "p.jsonl"
    shutil.copytree(many, folder)
    write(model, out, folder)
    before = out.read_text()
    picture(999, (10, 200, 10)).save(folder / "all/ants/00.jpg")
    shutil.copy(many / "all/ants/01.jpg", folder / "all/ants/new.jpg")
    decoded.clear()
    report = write(model, out, folder)
    assert (report.images, report.reused) == (IMAGES + 1, IMAGES - 1)
    assert out.read_text().startswith(before)
    names = [Path(row["path"]).name for row in rows_of(out)[IMAGES:]]
    assert names == ["00.jpg", "new.jpg"]
    assert len(decoded) == 2


def test_parquet_goes_on_from_its_rows(model, many, tmp_path):
    """An unfinished one from its lines, a finished one from itself."""
    parquet = pytest.importorskip("pyarrow.parquet")
    folder, out = tmp_path / "photos", tmp_path / "p.parquet"
    shutil.copytree(many, folder)

    def stop(entry):
        if entry.path.endswith("12.jpg"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"what is done is kept in .*p\.parq"):
        write(model, out, folder, tell=stop)
    assert not out.exists()
    assert 0 < write(model, out, folder).reused < IMAGES
    shutil.copy(many / "all/ants/01.jpg", folder / "all/ants/new.jpg")
    assert write(model, out, folder).reused == IMAGES
    assert parquet.read_table(out).num_rows == IMAGES + 1


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_file_of_something_else_is_refused(model, many, tmp_path, ending):
    """It is not touched, unless --overwrite says so."""
    out = tmp_path / f"p{ending}"
    out.write_text("name,age\nEve,7\n")
    with pytest.raises(DataError, match="pass --overwrite"):
        write(model, out, many)
    assert out.read_text() == "name,age\nEve,7\n"
    assert write(model, out, many, overwrite=True).reused == 0


def test_what_another_model_said_is_refused(model, many, tmp_path):
    """Both fingerprints are named."""
    out, image = tmp_path / "p.csv", many / "all/ants/00.jpg"
    write(model, out, image)
    other = a_model(tmp_path / "other.safetensors", 1)
    with pytest.raises(DataError, match=r"another model said \(\w{16}; this one is"):
        write(other, out, image)
    with pytest.raises(DataError, match=r"line 1 .* --top 2' writes"):
        write(model, out, image, top=2)


def test_an_unknown_ending_is_refused(model, many, tmp_path):
    with pytest.raises(SpecError, match=r"must end with \.csv, \.jsonl, \.parquet"):
        write(model, tmp_path / "p.xlsx", many)


def test_two_cannot_write_the_same_file(tmp_path):
    out = tmp_path / "p.csv"
    with (
        PredictionFile(out, "m", 1),
        pytest.raises(CacheBusyError, match="choose another file with --out"),
        PredictionFile(out, "m", 1),
    ):
        pass


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_any_name_is_one_line_and_read_again(tmp_path, ending):
    """Commas, quotes, line ends and letters of any script."""
    label = 'a "b", c'
    entries = [
        Entry('x, "y".jpg', ((label, 0.75), ("\u8702", 0.25)), "", 1, 2),
        Entry("z.jpg", (), "not, an image", 3, 4),
    ]
    out = tmp_path / f"p{ending}"
    with PredictionFile(out, "m", 2) as file:
        file.append(entries)
    with PredictionFile(out, "m", 2) as file:
        assert list(file.entries()) == entries
        assert file.is_known(ImageFile("z.jpg", 3, 4))
        assert file.is_bad(ImageFile("z.jpg", 3, 4))
        assert not file.is_known(ImageFile("z.jpg", 3, 5))
        file.forget()
        file.append([Entry("new.jpg", (), "bad", 5, 6)])
        assert not file.is_known(ImageFile("z.jpg", 3, 4))
        assert not file.is_known(ImageFile("new.jpg", 5, 6))
        assert len(list(file.entries())) == 3


def test_watching_takes_a_file_once_it_is_whole(tmp_path):
    """Not while it grows, once when it rests, and again when it is rewritten."""
    done = set()
    watcher = Watcher(tmp_path, done.__contains__, SILENT)
    file = tmp_path / "slow.jpg"

    def look():
        ready = watcher.look()
        done.update(ready)
        return [Path(image.name).name for image in ready]

    for length in (1, 2, 3):
        file.write_bytes(b"x" * length)
        assert look() == []
    assert look() == ["slow.jpg"]
    assert look() == []
    file.rename(tmp_path / "other.jpg")
    assert look() == []
    assert look() == ["other.jpg"]
    (tmp_path / "other.jpg").write_bytes(b"rewritten")
    assert look() == []
    assert look() == ["other.jpg"]


def test_watching_wants_a_folder(tmp_path):
    with pytest.raises(DataError, match=r"no folder .*gone to watch"):
        Watcher(tmp_path / "gone", lambda _: False, SILENT)


def test_a_watched_folder_ends_by_ctrl_c_and_goes_on(model, many, tmp_path):
    """What was done is kept, and a second watch does not do it again."""
    folder, out = tmp_path / "inbox", tmp_path / "p.csv"
    folder.mkdir()

    def watch(*arrivals):
        arriving = iter(arrivals)

        def sleep(seconds):
            assert seconds == 1.5
            name = next(arriving, None)
            if name is None:
                raise KeyboardInterrupt
            if name:
                shutil.copy(many / "all/ants" / name, folder)

        with predicting(model, out=out, progress=SILENT) as run:
            run.watch(folder, 1.5, lambda _: None, sleep)
            return run.report

    assert watch("00.jpg", "", "", "03.jpg", "", "").images == 2
    before = out.read_text()
    assert before.count("\n") == 3
    report = watch("", "01.jpg", "", "")
    assert (report.images, report.bad) == (1, 0)
    assert out.read_text().startswith(before)
    assert [Path(r["path"]).name for r in rows_of(out)] == [
        "00.jpg",
        "03.jpg",
        "01.jpg",
    ]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_killed_and_run_again_is_the_file_of_one_run(shared_photos, tmp_path):
    """SIGKILL of the process that works, wherever it is; the bytes are the same."""
    cache = featcache.extract(
        shared_photos, weights="random:0", cache=tmp_path / "it.h5"
    )
    model = featcache.fit_head(cache, SgdSpec(lr=1e-4), out=tmp_path / "run").model
    folder = make_photos(tmp_path / "photos", {"all": 150})
    command = [sys.executable, "-m", "featcache", "predict", str(model), str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    whole, out = tmp_path / "whole.csv", tmp_path / "killed.csv"
    subprocess.run([*command, "--out", str(whole)], check=True, **quiet)
    with subprocess.Popen([*command, "--out", str(out)], **quiet) as child:
        while not (out.exists() and out.stat().st_size > 2000):
            assert child.poll() is None
            time.sleep(0.005)
        child.kill()
    time.sleep(0.5)  # the worker dies with its parent
    assert out.stat().st_size < whole.stat().st_size
    subprocess.run([*command, "--out", str(out)], check=True, **quiet)
    assert out.read_bytes() == whole.read_bytes()
