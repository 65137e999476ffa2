"""The commands compare and evaluate: what they print of intervals."""

import json
import re

import pytest
from click.testing import CliRunner

from featcache.cli.main import main


@pytest.fixture
def run(tmp_path, monkeypatch, shared_photos):
    """Type a command in a folder with a cache and two heads, one of them untrained."""
    monkeypatch.chdir(tmp_path)

    def typed(*words, code=0):
        result = CliRunner().invoke(main, [str(w) for w in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    typed("extract", shared_photos, "--weights", "random:0")
    typed("fit-head", "--lr", "1e-4", "--out", "good")
    typed("fit-head", "--lr", "1e-12", "--epochs", 1, "--out", "poor")
    return typed


def test_compare_prints_both_models_and_a_verdict(run):
    """For people: accuracies with intervals, the counts, a plain sentence."""
    text = run("compare", "good", "poor").stdout
    first, second, _, head, a, *_, counts, verdict = text.splitlines()
    assert first == "A  good, cached head, on cache/photos-resnet18.h5"
    assert second == "B  poor, cached head, on cache/photos-resnet18.h5"
    assert head.split() == ["accuracy", "95", "%", "interval", "seconds", "images/s"]
    assert re.fullmatch(r"A +100.00 % +67.56 to 100.00 % +\d\.\d\d +-", a)
    assert counts.startswith("8 images of split val: right in both ")
    assert verdict.startswith("not distinguishable: with 8 images, of which ")


def test_compare_as_json_is_one_object(run):
    """The same numbers by name."""
    report = json.loads(
        run("compare", "good", "poor", "cache/photos-resnet18.h5", "--json").stdout
    )
    assert set(report) == {
        "a", "b", "split", "images", "unpaired", "both_right", "only_a_right",
        "only_b_right", "both_wrong", "difference", "difference_interval", "p_value",
        "distinguishable", "smallest_visible", "verdict", "bad_images",
        "models", "pairs", "adjusted_p_value", "worth",
    }  # fmt: skip
    assert set(report["a"]) == {
        "model", "data", "accuracy", "accuracy_interval", "skipped",
        "kind", "backbone", "seconds", "images_per_second",
    }  # fmt: skip
    assert [report["a"], report["b"]] == report["models"]
    assert report["a"]["accuracy"] - report["b"]["accuracy"] == report["difference"]


def test_compare_of_one_file_gives_no_p_value(run):
    """Named as a folder and as a file."""
    text = run("compare", "good", "good/model.safetensors").stdout
    assert "McNemar" not in text
    assert text.endswith("A and B are the same file: there is nothing to compare\n")


def test_compare_of_several_prints_a_line_for_each_pair(run):
    """And says that p values are corrected."""
    run("fit-head", "--solver", "centroid", "--out", "third")
    text = run("compare", "good", "poor", "third", "cache/photos-resnet18.h5").stdout
    assert "Holm's correction for 3 pairs" in text
    for pair in ("A - B", "A - C", "B - C"):
        line = rf"^{pair} +[+-]\d+\.\d\d +.* to .* \d, \d +[\d.]+ +not disting"
        assert re.search(line, text, re.MULTILINE), text
    report = json.loads(run("compare", "good", "poor", "third", "--json").stdout)
    assert [m["model"] for m in report["models"]] == ["good", "poor", "third"]
    assert len(report["pairs"]) == 3


@pytest.mark.slow
def test_compare_says_whether_fine_tuning_is_worth_it(run, shared_photos):
    """The folder is the one that was trained on; a cached head takes its cache."""
    words = ("--full", "--epochs", 1, "--weights", "random:0", "--out", "tuned")
    run("finetune", shared_photos, *words)
    told = run("compare", "tuned", "good")
    assert "A  tuned, fine-tuned, on " in told.stdout
    assert "seconds of a cached head are those of its fit" in told.stdout
    assert "fine-tun" in told.stdout.splitlines()[-1]
    assert f"on the images of {shared_photos}" in told.stderr


def test_evaluate_tells_how_sure_its_numbers_are(run):
    """Intervals and calibration error, also as JSON; no top-5 of two classes."""
    text = run("evaluate", "good", "cache/photos-resnet18.h5").stdout
    assert "100.00 % (95 % interval: 67.56 to 100.00 %)" in text
    assert "calibration error" in text
    assert "top-5" not in text
    report = json.loads(
        run("evaluate", "good", "cache/photos-resnet18.h5", "--json").stdout
    )
    assert report["accuracy_interval"] == pytest.approx([0.6756, 1], abs=1e-4)
    assert report["mean_per_class_recall_interval"] == [1, 1]
    assert report["top5_accuracy"] is None
    assert 0 <= report["ece"] <= 1
