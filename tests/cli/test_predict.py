"""The command predict: what it prints, and which words it refuses."""

import json
import os
from dataclasses import replace

import pytest
from click.testing import CliRunner

import featcache
from featcache.cli.main import main
from featcache.core.predictions import Entry
from featcache.stages import predicting
from featcache.store.artifacts import save_model
from tests.stages.test_predicting import model  # noqa: F401 - a fixture


@pytest.fixture
def run(model, monkeypatch, tmp_path):  # noqa: F811 - the fixture
    """Type predict with that model, in the test's own folder."""
    monkeypatch.chdir(tmp_path)

    def typed(*words, code=0):
        result = CliRunner().invoke(main, ["predict", str(model), *map(str, words)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return typed


def test_lines_array_and_file_say_the_same(run, shared_photos, tmp_path):
    """Text and JSON on stdout, and a file with its summary."""
    lines = run(shared_photos / "val", "--top", 2).stdout.splitlines()
    array = json.loads(run(shared_photos / "val", "--top", 2, "--json").stdout)
    report = json.loads(
        run(shared_photos / "val", "--top", 2, "--out", "p.jsonl", "--json").stdout
    )
    assert (report["out"], report["images"], report["bad"]) == ("p.jsonl", 8, 0)
    rows = [json.loads(x) for x in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(lines) == len(array) == len(rows) == 8
    for line, told, row in zip(lines, array, rows, strict=True):
        assert line.split("\t")[:2] == [told["path"], told["label"]]
        assert told == {name: row[name] for name in told}
        assert [t["label"] for t in told["top"]] == line.split("\t")[1::2]
    again = run(shared_photos / "val", "--top", 2, "--out", "p.jsonl")
    assert "p.jsonl: 8 images, 8 of them there before, 0 bad" in again.stdout


def test_names_of_classes_break_no_line(run, model, shared_photos):  # noqa: F811
    """A line for each image, whatever letters a folder's name has."""
    told = featcache.open_model(model)
    hostile = ("fire\nants", os.fsdecode(b"bees\xff"))
    save_model(replace(told, classes=hostile), model)
    for line in run(shared_photos / "val").stdout.splitlines():
        _, label, _ = line.split("\t")
        assert label in (r"fire\nants", r"bees\xff")


def test_bad_images_are_named_and_exit_with_1(run, shared_photos, tmp_path):
    """Also when all was done by an earlier run."""
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    words = ["bad.jpg", shared_photos / "val", "--out", "p.csv"]
    assert "bad.jpg: " in run(*words, code=1).stderr
    again = run(*words, code=1)
    assert "1 image could not be used" in again.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name IMAGES, or a folder with --watch DIR"),
        (["x.jpg", "--watch", "d"], "name IMAGES, or a folder with --watch DIR"),
        (["x.jpg", "--interval", "1"], "--interval does nothing with IMAGES"),
        (["x.jpg", "--overwrite"], "--overwrite does nothing without --out"),
        (["--watch", "d", "--json"], "--watch has no end to print --json at"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, words, says):
    assert says in run(*words, code=2).stderr


def test_watch_prints_until_ctrl_c(run, monkeypatch, tmp_path):
    """It ends with 0 and no traceback."""
    entry = Entry("a.jpg", (("ants", 0.75),), "", 1, 2)

    def watch(self, folder, interval, tell):
        assert (folder.name, interval) == (tmp_path.name, 2.0)
        tell(entry)

    monkeypatch.setattr(predicting.PredictionRun, "watch", watch)
    assert run("--watch", tmp_path).stdout == "a.jpg\tants\t0.7500\n"
