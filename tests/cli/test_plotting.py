"""The commands history and map, and evaluate --confusion: what they write and say."""

import json
import shutil
import sys
from dataclasses import asdict
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import featcache
from featcache.cli.main import main
from featcache.core.reports import EpochRecord
from featcache.store.checkpoints import save_checkpoint
from tests.store.conftest import make_content


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a cache and three runs, one of them without epochs."""
    root = tmp_path_factory.mktemp("made")
    (root / "cache").mkdir()
    cache = make_content(40).complete(root / "cache" / "it.h5")
    featcache.fit_head(cache, featcache.SgdSpec(epochs=2), out=root / "a/run")
    featcache.fit_head(cache, featcache.SgdSpec(epochs=3), out=root / "b/run")
    featcache.fit_head(cache, featcache.KnnSpec(k=1), out=root / "knn")
    return root


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """Type a command in a copy of that folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def typed(*words, code=0):
        result = CliRunner().invoke(main, [str(w) for w in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return typed


def is_png(path):
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 200


def test_history_lies_in_the_folder_of_its_run(run, tmp_path):
    assert run("history", "a/run").stdout == "a/run/history.png\n"
    assert is_png(tmp_path / "a/run/history.png")


def test_runs_that_are_called_alike_are_told_apart_by_their_paths(run, tmp_path):
    assert run("history", "a/run", "b/run", "--json").stdout == (
        '{"out": "runs/history.png"}\n'
    )
    assert is_png(tmp_path / "runs/history.png")
    picture = featcache.plot_history(["a/run", "b/run"])
    names = [text.get_text() for key in picture.legends for text in key.get_texts()]
    assert names[-2:] == ["a/run", "b/run"]


def test_a_run_that_goes_on_has_a_history(run, tmp_path):
    record = EpochRecord(1, 0.1, 1.0, 0.5, None, None, 1.0)
    about = {"history": [asdict(record)], "best": asdict(record)}
    folder = tmp_path / "new" / "checkpoint"
    save_checkpoint(folder, {"w": np.ones(2, np.float32)}, about)
    run("history", "new", "--out", "x/it.SVG")
    assert "new (unfinished)" in "".join(ET.parse("x/it.SVG").getroot().itertext())


def test_map_says_how_many_images_and_mistakes(run, tmp_path):
    result = run("map", "--method", "pca", "--model", "a/run")
    wrong = round(10 * (1 - featcache.evaluate("a/run", "cache/it.h5").accuracy))
    mistakes = f"{wrong} mistake" + "s" * (wrong != 1)
    expected = f"runs/map-it-pca.png: 40 images, {mistakes} marked\n"
    assert result.stdout == expected
    assert is_png(tmp_path / "runs/map-it-pca.png")


def test_map_as_json_is_one_object(run):
    result = run("map", "cache/it.h5", "--most", 12, "--out", "it.svg", "--json")
    assert json.loads(result.stdout) == {
        "out": "it.svg", "method": "tsne", "drawn": 12, "images": 40, "mistakes": None
    }  # fmt: skip
    assert "drawn: 12 of 40 images, at random (seed 0)" in result.stderr


def test_map_of_several_files_is_not_called_by_their_pattern(run, tmp_path):
    result = run("map", "cache/i*.h5", "--method", "pca")
    name, _, _ = result.stdout.partition(":")
    assert "*" not in name
    assert is_png(tmp_path / name)


def test_evaluate_draws_its_confusion(run, tmp_path):
    words = ("evaluate", "a/run", "cache/it.h5", "--confusion", "c.png")
    assert run(*words).stdout.splitlines()[-1] == "c.png"
    assert is_png(tmp_path / "c.png")
    report = json.loads(run(*words, "--json").stdout)
    assert report["out"] == "c.png"
    assert "out" not in json.loads(run(*words[:3], "--json").stdout)


def test_the_title_of_a_confusion_is_the_accuracy(run):
    report = featcache.evaluate("a/run", "cache/it.h5", split="train")
    picture = featcache.plot_confusion(report)
    share = f"{100 * report.accuracy:.1f} %"
    assert picture.get_suptitle() == f"{share} of 30 images of train right"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("history", "knn"), "Error: knn was fitted by knn, which has no epochs"),
        (("history", "nowhere"), "Error: nowhere is no folder"),
        (("history", "a/run", "--out", "it.pdf"), "ends in .png or .svg, got it.pdf"),
        (("map", "--out", "it"), "ends in .png or .svg, got it"),
        (("map", "cache/none.h5"), "Error: no cache cache/none.h5"),
        (
            ("evaluate", "none", "cache/it.h5", "--confusion", "c.jpg"),
            "ends in .png or .svg, got c.jpg",  # before the work
        ),
    ],
)
def test_errors_are_one_line(run, words, error):
    result = run(*words, code=1)
    assert error in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("history", "a/run"),
        ("map", "cache/it.h5"),
        ("evaluate", "a/run", "cache/it.h5", "--confusion", "c.png"),
    ],
)
def test_without_matplotlib_it_is_said_what_to_install(run, words, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'featcache[plot]'" in run(*words, code=1).stderr
