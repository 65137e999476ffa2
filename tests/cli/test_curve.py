"""curve on the command line."""

import json

import pytest
from click.testing import CliRunner

import featcache
from featcache.cli.main import main


@pytest.fixture(scope="module")
def cache(shared_photos, tmp_path_factory):
    """The shared photos through a random ResNet-18."""
    path = tmp_path_factory.mktemp("cache") / "it.h5"
    return featcache.extract(shared_photos, weights="random:0", cache=path).path


@pytest.fixture
def run(cache, tmp_path, monkeypatch):
    """Type curve on that cache, in the test's own folder."""
    monkeypatch.chdir(tmp_path)

    def typed(*words, code=0):
        result = CliRunner().invoke(main, ["curve", str(cache), *words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return typed


def test_a_line_for_each_number_of_images(run):
    """Then the folder and its files."""
    printed = run("--solver", "centroid", "--seeds", "2", "--out", "there").stdout
    title, table, files = printed.split("\n\n")
    assert title == (
        "accuracy of centroid on 8 images of val, photos, resnet18, random:0"
    )
    first = [line.split()[0] for line in table.splitlines()]
    assert first == ["per", "1", "2", "4", "all"]
    assert files.startswith("there: curve.csv, curve.png, curve.svg, report.json; ")


def test_json_is_one_object_with_every_accuracy(run):
    words = ("--shots", "1, 3", "--epochs", "2", "--seeds", "3", "--json")
    report = json.loads(run(*words).stdout)
    assert [p["shots"] for p in report["points"]] == [1, 3, None]
    assert [len(p["accuracies"]) for p in report["points"]] == [3, 3, 3]
    assert (report["solver"], report["val_images"]) == ("sgd", 8)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("--shots 1 --shares 0.5", 2, "--shares does nothing with --shots"),
        ("--lr 0.1,0.2", 2, "--lr takes one value with curve"),
        ("--solver ridge --epochs 3", 2, "--epochs does nothing with --solver ridge"),
        ("--shots 9", 1, "has 6 usable training images of ants, fewer than the 9"),
        ("--seeds 0", 2, "Invalid value for '--seeds'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(run, words, code, message):
    assert message in run(*words.split(), code=code).stderr
