"""The command line: what each command prints, and with which exit code."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from featcache.cli.main import main
from featcache.core.timing import START, WORK


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Type a command in the test's own folder."""
    monkeypatch.chdir(tmp_path)

    def typed(*words, code=0):
        result = CliRunner().invoke(main, [str(w) for w in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return typed


@pytest.fixture
def cached(run, shared_photos):
    """The shared photos, extracted into cache/."""
    run("extract", shared_photos, "--weights", "random:0")


def test_verbose_says_which_pieces_work_and_what_takes_the_time(run, shared_photos):
    """-v names the implementations before the work, and the stages after it."""
    result = run("extract", shared_photos, "--weights", "random:0", "-v")
    assert "forward: " in result.stderr
    assert "work: " in result.stderr
    for stage in (*START, *WORK):
        assert f"\n  {stage} " in result.stdout
    assert "  cores busy: " in result.stdout
    quiet = run("extract", shared_photos, "--weights", "random:0", "--overwrite")
    assert "forward: " not in quiet.stderr
    assert "bound by" not in quiet.stdout  # nothing was computed


def test_the_three_commands_end_in_a_classifier(run, shared_photos):
    """extract, fit-head and predict, typed one after the other."""
    result = run("extract", shared_photos, "--weights", "random:0", "--json")
    report = json.loads(result.stdout)
    assert report["computed"] == report["images"] == 20
    assert report["cache"] == "cache/photos-resnet18.h5"
    assert set(report) == {
        "cache", "images", "computed", "reused", "skipped", "embed_dim", "classes",
        "fingerprint", "seconds", "images_per_second", "bad_images", "duplicates",
        "pieces", "stages", "busy", "bottleneck",
    }  # fmt: skip
    assert set(report["stages"]) == {*START, *WORK}
    assert report["stages"]["forward"] > 0
    assert "bound by" in report["bottleneck"]
    again = json.loads(
        run("extract", shared_photos, "--weights", "random:0", "--json").stdout
    )
    assert again["computed"] == 0
    assert again["bottleneck"] == ""
    fitted = json.loads(run("fit-head", "--lr", "1e-4", "--json").stdout)
    assert set(fitted) == {
        "model", "solver", "epochs", "best_epoch", "train_accuracy", "val_accuracy",
        "val_loss", "val_accuracy_interval", "val_mean_per_class_recall", "val_ece",
        "test_accuracy", "skipped", "seconds",
    }  # fmt: skip
    assert fitted["val_accuracy"] == 1.0
    result = run("predict", fitted["model"], shared_photos / "val", "--json")
    predictions = json.loads(result.stdout)
    assert len(predictions) == 8
    for prediction in predictions:
        assert f"/{prediction['label']}/" in prediction["path"]


def test_fit_head_prints_the_numbers(run, cached):
    """For people: model, epochs, accuracies, in two columns."""
    lines = dict(
        line.split("  ", 1)
        for line in run("fit-head", "--epochs", 2).output.splitlines()
    )
    assert lines["solver"].strip() == "sgd"
    assert lines["epochs"].strip().startswith("2 (best: ")
    assert " % (95 % interval: " in lines["val accuracy"]


def test_predict_prints_one_line_each_and_names_bad_images(
    run, cached, shared_photos, tmp_path
):
    """Path, class and probability by tab; a bad image costs only itself and exit 1."""
    model = json.loads(run("fit-head", "--lr", "1e-4", "--json").stdout)["model"]
    (tmp_path / "bad.jpg").write_bytes(b"nonsense")
    good = shared_photos / "val" / "ants" / "00.jpg"
    result = run("predict", model, tmp_path / "bad.jpg", good, code=1)
    path, label, probability = result.stdout.rstrip("\n").split("\t")
    assert (path, label) == (str(good), "ants")
    assert 0.5 < float(probability) <= 1
    assert "1 image could not be used" in result.stderr
    assert "no image format that Pillow knows" in result.stderr


@pytest.mark.slow
def test_evaluate_prints_the_confusion_matrix(run, cached, shared_photos):
    """On a folder and on a cache the numbers are the same."""
    model = json.loads(run("fit-head", "--lr", "1e-4", "--json").stdout)["model"]
    text = run("evaluate", model, shared_photos).stdout
    assert "accuracy               100.00 %" in text
    assert "ants" in text.splitlines()[-2]
    folder = json.loads(run("evaluate", model, shared_photos, "--json").stdout)
    cache = json.loads(
        run("evaluate", model, "cache/photos-resnet18.h5", "--json").stdout
    )
    assert folder["confusion"] == cache["confusion"] == [[4, 0], [0, 4]]
    assert folder["log_loss"] == pytest.approx(cache["log_loss"], rel=1e-3)


def test_info_tells_what_is_in_a_cache_and_in_a_model(run, cached):
    """Both are recognised; --json is one object."""
    cache = json.loads(run("info", "cache/photos-resnet18.h5", "--json").stdout)
    assert (cache["kind"], cache["images"]) == ("cache", 20)
    assert cache["splits"] == {"train": 12, "val": 8}
    model = json.loads(run("fit-head", "--json").stdout)["model"]
    described = json.loads(run("info", model, "--json").stdout)
    assert (described["kind"], described["backbone"]) == ("model", "resnet18")
    assert "spec.view.resize" in run("info", "cache/photos-resnet18.h5").stdout


def test_verify_says_that_all_is_well(run, cached):
    """Every row of an untouched cache matches."""
    result = run("verify", "cache/photos-resnet18.h5")
    assert "20 rows in 3 blocks match their digests" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetune", "x"], "say what to train: --full, --head-only or --unf"),
        (["finetune", "x", "--head-only", "--full"], "--head-only or --unfreeze"),
        (["finetune", "x", "--full", "--unfreeze", "layer4"], "--head-only or --unf"),
        (["finetune", "x", "--head-only", "--head-lr-mult", "2"], "--head-lr-mult do"),
        (["finetune", "--full", "--schedule", "cosine", "--gamma", "1"], "--gamma"),
        (["finetune", "--full", "--optimizer", "adamw", "--momentum", "0"], "--mom"),
        (["finetune", "--resume", "r", "--lr", "1"], "--lr does nothing with --resume"),
        (["finetune", "x", "--head-only", "--from-scratch"], "--from-scratch does"),
        (["finetune", "x", "--full", "--from-scratch", "--weights", "w"], "--weights"),
        (["fit-head", "--solver", "logreg", "--lr", "1"], "--lr does nothing with"),
        (["fit-head", "--C", "1"], "--C does nothing with --solver sgd"),
        (["fit-head", "--solver", "svm"], "Invalid value for '--solver'"),
        (["extract", "--no-such-option"], "No such option"),
    ],
)
def test_a_wrong_usage_exits_with_2(run, words, message):
    """An option that would do nothing is refused, not ignored."""
    assert message in run(*words, code=2).stderr


@pytest.mark.slow
def test_an_environment_variable_sets_an_option(run, shared_photos, monkeypatch):
    """FEATCACHE_COMMAND_OPTION; the typed option wins."""
    monkeypatch.setenv("FEATCACHE_EXTRACT_WEIGHTS", "random:0")
    monkeypatch.setenv("FEATCACHE_EXTRACT_BACKBONE", "no_such_thing")
    assert "no_such_thing" in run("extract", shared_photos, code=1).stderr
    run("extract", shared_photos, "--backbone", "resnet18")


def test_completion_knows_commands_and_backbones():
    """Pressing tab completes a command, and the name of a backbone."""
    environment = {
        **os.environ,
        "_FEATCACHE_COMPLETE": "bash_complete",
        "COMP_WORDS": "featcache extract --backbone wide",
        "COMP_CWORD": "3",
    }
    completed = subprocess.run(
        [
            sys.executable,
            "-c",
            "from featcache.cli.main import main; main(prog_name='featcache')",
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "wide_resnet50_2" in completed.stdout
