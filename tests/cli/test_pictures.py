"""The commands that draw: show, and predict --grid."""

import json

import pytest
from click.testing import CliRunner

from featcache.cli.main import main
from tests.stages.test_predicting import model  # noqa: F401 - a fixture


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Type a command in the test's own folder."""
    monkeypatch.chdir(tmp_path)

    def typed(*words, code=0):
        result = CliRunner().invoke(main, [*map(str, words)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return typed


def test_show_prints_where_the_picture_is(run, shared_photos, tmp_path):
    """Its name says of what it is; png or svg by the ending; one JSON object."""
    assert run("show", shared_photos).stdout == "runs/show-photos-train.png\n"
    words = ("show", shared_photos, "--augmented", "--json")
    assert json.loads(run(*words).stdout) == {"out": "runs/show-photos-augmented.png"}
    words = ("--per-class", 1, "--last", "--split", "val", "--classes", "bees")
    run("show", shared_photos, *words, "--out", "new/p.svg")
    assert (tmp_path / "new/p.svg").read_text().startswith("<?xml")
    files = sorted((tmp_path / "runs").iterdir())
    assert [file.read_bytes()[:4] for file in files] == [b"\x89PNG"] * 2


def test_a_grid_of_predictions_leaves_stdout_alone(run, model, shared_photos, tmp_path):  # noqa: F811
    """What was drawn, and how the truth is known, is said on stderr."""
    words = ("predict", model, shared_photos / "val", "--json")
    drawn = run(*words, "--grid", "g.svg", "--grid-size", 3)
    assert drawn.stdout == run(*words).stdout
    assert "g.svg: 3 of 8 images: " in drawn.stderr
    assert "truth: the name of the folder that an image lies in" in drawn.stderr
    assert (tmp_path / "g.svg").read_text().startswith("<?xml")


def test_where_no_image_can_be_used_there_is_no_grid(run, model, tmp_path):  # noqa: F811
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    told = run("predict", model, "bad.jpg", "--grid", "g.png", code=1)
    assert "no grid g.png: no image could be used" in told.stderr
    assert not (tmp_path / "g.png").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("show photos --augmented --last", 2, "--last does nothing with --augmented"),
        ("show photos --seed 1", 2, "--seed does nothing without --augmented"),
        ("show photos --augmented --seed -1", 2, "-1 is not in the range x>=0"),
        ("show photos --per-class 241", 2, "241 is not in the range 1<=x<=240"),
        ("show photos --out p.gif", 1, "a picture's file ends in .png or .svg, got"),
        ("show photos --out d.png", 1, "d.png is a folder; name a file"),
        ("predict m x.jpg --grid p.pdf", 1, "a picture's file ends in .png or .svg"),
        ("predict m x.jpg --grid-size 3", 2, "--grid-size does nothing without --grid"),
        ("predict m --watch d --grid p.png", 2, "--grid does nothing with --watch"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(run, words, code, says, tmp_path):
    """Before an image is read."""
    (tmp_path / "d.png").mkdir()
    assert says in run(*words.split(), code=code).stderr
