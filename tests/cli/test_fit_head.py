"""fit-head on the command line: lists of values, sweeps, and their output."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

import featcache
from featcache.cli.main import main
from featcache.core.training_specs import AXES


@pytest.fixture(scope="module")
def cache(shared_photos, tmp_path_factory):
    """The shared photos through a random ResNet-18."""
    path = tmp_path_factory.mktemp("cache") / "it.h5"
    return featcache.extract(shared_photos, weights="random:0", cache=path).path


@pytest.fixture
def run(cache, tmp_path, monkeypatch):
    """Type fit-head on that cache, in the test's own folder."""
    monkeypatch.chdir(tmp_path)

    def typed(*words, code=0):
        words = ["fit-head", str(cache), *map(str, words)]
        result = CliRunner().invoke(main, words)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return typed


def test_lists_of_values_are_compared_in_a_table(run):
    """A line per combination, best first; the notes go to stderr."""
    result = run(
        *("--lr", "1e-4, 1e-3", "--standardize", "none,zscore,l2"),
        *("--gamma", "0.1,0.5", "--epochs", 2),
    )
    table, fields = result.stdout.split("\n\n")
    title, *lines = table.splitlines()
    assert title.split()[0] == "lr"
    for word in ("weight decay", "gamma", "standardize", "best epoch", "val loss"):
        assert word in title
    assert "momentum" not in title  # all heads have the same
    assert len(lines) == 12
    assert fields.startswith("model  ")
    assert "standard error" in result.stderr


def test_json_has_every_head_with_its_settings(run):
    """One object on stdout; best first."""
    words = ("--lr", "1e-4,1e30", "--weight-decay", "10", "--epochs", 2, "--json")
    report = json.loads(run(*words).stdout)
    first, last = report["heads"]
    assert set(AXES) < set(first)
    assert (first["lr"], first["diverged"]) == (1e-4, None)
    assert (last["lr"], last["diverged"], last["accuracy"]) == (1e30, 1, None)
    assert report["select_on"] == "val"


def test_the_sweep_takes_further_values(run):
    """--sweep fills in what was not given."""
    words = ("--sweep", "--lr", "1e-4", "--epochs", 1, "--json")
    heads = json.loads(run(*words).stdout)["heads"]
    assert {h["lr"] for h in heads} == {1e-4}
    assert len(heads) == 9


def test_one_head_can_be_chosen_on_train_refitted_and_repeated(run):
    """No table for a single head; what was done stands in the fields."""
    result = run("--select-on", "train", "--refit", "--seeds", 3, "--epochs", 3)
    assert result.stdout.startswith("model  ")
    assert "over 3 seeds" in result.stdout
    assert "standard deviation" in result.stdout
    assert "train and val" in result.stdout


def test_a_single_head_prints_what_it_always_did(run):
    """Nine lines; the JSON has no list of heads."""
    names = [line.split("  ")[0] for line in run("--epochs", 1).stdout.splitlines()]
    assert names == [
        "model", "solver", "epochs", "train accuracy", "val accuracy", "val recall",
        "val loss", "val calibration error", "seconds",
    ]  # fmt: skip
    assert "heads" not in json.loads(run("--epochs", 1, "--json").stdout)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--lr", "0.1,x"], 2, "Invalid value for '--lr': 'x' is not a valid float"),
        (["--step-size", "7,1.5"], 2, "Invalid value for '--step-size': '1.5'"),
        (["--standardize", "none,l1"], 2, "'l1' is not one of 'none', 'zscore', 'l2'"),
        (["--lr", "0.1,-1"], 1, "lr must be positive and finite, got -1.0"),
        (["--nesterov", "--momentum", "0"], 1, "nesterov needs a momentum above 0"),
        (["--solver", "logreg", "--sweep"], 2, "--sweep does nothing with --solver"),
        (["--solver", "logreg", "--refit"], 2, "--refit does nothing with --solver"),
        (
            ["--solver", "logreg", "--standardize", "none,l2"],
            2,
            "--standardize takes one value with --solver logreg",
        ),
        (["--lr", "1e30,1e31", "--weight-decay", "10"], 1, "all 2 heads diverged"),
        (
            ["--solver", "ridge", "--cv", "3"],
            2,
            "--cv does nothing with --solver ridge",
        ),
        (["--cv", "3"], 2, "--cv does nothing with --solver sgd"),
        (
            ["--solver", "knn", "--seed", "3"],
            2,
            "--seed does nothing with --solver knn",
        ),
        (
            ["--solver", "knn", "--lambda", "3"],
            2,
            "--lambda does nothing with --solver",
        ),
        (["--solver", "centroid", "--k", "3"], 2, "--k does nothing with --solver"),
        (["--solver", "knn", "--k", "0"], 1, "k must be a whole number, at least 1"),
        (["--solver", "logreg", "--cv", "1"], 1, "cv must be 0, or a whole number"),
        (["--solver", "ridge", "--lambda", "1,0"], 1, "lambdas must be some values"),
        (["--shots", "7"], 1, "has 6 usable training images of ants, fewer than the 7"),
        (["--shots", "0"], 2, "Invalid value for '--shots'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_is_said_in_one_line(run, words, code, message):
    """Wrong usage is 2, what the numbers forbid is 1."""
    assert message in run(*words, code=code).stderr


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ("logreg --C 0.01,0.1 --C 1 --cv 3 --standardize l2", "chosen C "),
        ("ridge --lambda 1,10,100", "chosen lambda "),
        ("knn --k 3 --temperature 0.1", "leaving each image out"),
        ("centroid --shots 2 --seed 4", "2 training images of each class"),
    ],
)
def test_every_solver_has_its_options_and_its_rows(run, words, row):
    """No epochs are told of where there are none; accuracy has its interval."""
    printed = run("--solver", *words.split()).stdout
    assert row in printed
    assert "epochs" not in printed
    assert "95 % interval" in printed
    report = json.loads(run("--solver", *words.split(), "--json").stdout)
    assert report["solver"] == words.split()[0]
    assert report["val_mean_per_class_recall"] >= 0


def test_environment_variables_hold_lists_too(run, monkeypatch):
    """As every option."""
    monkeypatch.setenv("FEATCACHE_FIT_HEAD_LR", "1e-4,1e-3")
    assert len(json.loads(run("--epochs", 1, "--json").stdout)["heads"]) == 2


def test_neither_a_head_nor_the_sweep_loads_numba_or_torch(cache, tmp_path):
    """They are done before these would be there."""
    program = (
        "import sys; from featcache.cli.main import main\n"
        f"main(['fit-head', {str(cache)!r}, *sys.argv[1:]], standalone_mode=False)\n"
        "print({'numba', 'torch', 'sklearn'} & set(sys.modules))"
    )
    for words in ([], ["--sweep"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.slow
def test_the_whole_process_takes_a_moment(cache, tmp_path):
    """A head 0.6 s, the sweep 2 s, in time of the processor, since cores are shared."""
    for words, limit in (([], 0.6), (["--sweep"], 2.0)):
        seconds = []
        for _ in range(3):
            before = os.times()
            command = [sys.executable, "-m", "featcache", "fit-head", str(cache)]
            subprocess.run(
                [*command, *words], cwd=tmp_path, check=True, capture_output=True
            )
            after = os.times()
            seconds.append(
                after.children_user
                + after.children_system
                - before.children_user
                - before.children_system
            )
        assert min(seconds) < limit
