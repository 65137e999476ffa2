"""audit: what is planted in a cache is found, and what cannot be checked is said."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import featcache
from featcache.cli.main import main
from featcache.core.audits import KINDS
from featcache.core.errors import CacheMismatchError, SpecError
from featcache.core.manifest import TRAIN, VAL
from featcache.core.progress import Silent
from featcache.stages import audit_checks, audit_copies, auditing
from featcache.stages.auditing import NEAR
from tests.store.conftest import make_content

N = 120


def planted(n=N, classes=3):
    """Return content of clean classes, each a cloud about a direction of its own."""
    content = make_content(n)
    labels = content.manifest.labels % classes
    random = np.random.default_rng(1)
    means = 4 * random.normal(size=(classes, 512))
    X = means[labels] + 4 * random.normal(size=(n, 512))
    content.rows["features"][:] = X.astype(np.float32)
    return replace(content, manifest=replace(content.manifest, labels=labels))


def finds(report, kind):
    return {(found.path, found.other) for found in report.of(kind)}


class Heard(Silent):
    """Keeps the lines that it is told."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def content():
    return planted()


@pytest.fixture
def audited(content, tmp_path):
    """Write the content as a cache and audit it."""

    def run(**options):
        return featcache.audit(content.complete(tmp_path / "it.h5"), **options)

    return run


def test_a_clean_cache_has_no_findings(audited):
    report = audited()
    assert report.counts == dict.fromkeys(KINDS, 0)
    assert (report.images, report.skipped, report.notes) == (N, 0, ())
    (val,) = report.accuracies
    assert (val.split, val.images, val.leaks) == ("val", 30, 0)
    assert val.accuracy == val.clean_accuracy == 1


def test_copies_are_found_and_leaks_named(content, audited):
    """Row 4 again in train and val with its bytes, row 7 nearly, in val."""
    rows = content.rows
    for copy in (10, 100):
        rows["features"][copy], rows["digests"][copy] = (
            rows["features"][4],
            rows["digests"][4],
        )
    rows["features"][97] = rows["features"][7] * 1.5
    report = audited()
    pairs = {("00010.jpg", "00004.jpg"), ("00100.jpg", "00004.jpg")}
    assert finds(report, "duplicate") == pairs
    assert finds(report, "near_duplicate") == {("00097.jpg", "00007.jpg")}
    leaks = {("00100.jpg", "00004.jpg"), ("00097.jpg", "00007.jpg")}
    assert finds(report, "leak") == leaks
    assert [found.score for found in report.of("leak")] == [1, 1]
    assert "the same bytes" in report.of("leak")[0].reason + report.of("leak")[1].reason


def test_accuracy_is_told_without_the_leaks(content, audited):
    """Copies with another label are wrong on val; without them all is right."""
    copy = np.flatnonzero(content.manifest.splits == VAL)[:5]
    source = np.flatnonzero(content.manifest.labels[:90] == 0)[:5]
    labels = content.manifest.labels
    copy = copy[labels[copy] != 0]
    for name in ("features", "digests"):
        content.rows[name][copy] = content.rows[name][source[: len(copy)]]
    report = audited()
    (val,) = report.accuracies
    assert (val.leaks, val.clean_accuracy) == (len(copy), 1)
    assert val.accuracy == pytest.approx(1 - len(copy) / 30)
    assert "which is labelled" in report.of("leak")[0].reason


def test_planted_wrong_labels_are_found(content, audited):
    """Each with the class that it really is of."""
    labels = content.manifest.labels
    wrong = np.array([3, 31, 62, 95, 111])
    true = labels[wrong].copy()
    labels[wrong] = (true + 1) % 3
    report = audited()
    names = [name.replace("\udce9", "\\xe9") for name in content.manifest.classes]
    likely = {found.path: found.likely for found in report.of("label")}
    expected = {f"{row:05d}.jpg": names[t] for row, t in zip(wrong, true, strict=True)}
    assert likely == expected


def test_a_foreign_image_is_an_outlier(content, audited):
    content.rows["features"][60] = 90 * np.eye(512)[5]
    assert finds(audited(), "outlier") == {("00060.jpg", None)}


def test_unusable_images_take_no_part(content, audited):
    """Although two of them have the same bytes."""
    for row in (3, 5):
        content.rows["status"][row], content.rows["features"][row] = 4, 0
        content.rows["digests"][row] = 0
    report = audited()
    assert (report.images, report.skipped) == (N - 2, 2)
    assert report.counts["duplicate"] == 0


def test_several_files_are_audited_as_one(content, tmp_path):
    """A pattern finds the copy that is in the other file."""
    content.complete(tmp_path / "part-0.h5")
    second = planted(n=60)
    second.rows["features"][:] = np.roll(content.rows["features"][:60], 6, axis=1)
    second.rows["features"][9] = content.rows["features"][9]
    paths = np.array([b"b" + path for path in second.manifest.paths])
    other = replace(second, manifest=replace(second.manifest, paths=paths))
    other.complete(tmp_path / "part-1.h5")
    report = featcache.audit(str(tmp_path / "part-*.h5"))
    assert report.images == N + 60
    assert ("b00009.jpg", "00009.jpg") in finds(report, "near_duplicate")


def test_one_class_has_no_labels_to_check(tmp_path):
    content = planted(classes=1)
    report = featcache.audit(content.complete(tmp_path / "one.h5"))
    assert report.notes == ("labels not checked: all usable images are of one class",)
    assert (report.accuracies, report.counts["label"]) == ((), 0)


def test_tiny_classes_are_not_judged(content, audited):
    """Nor is anything said to be of them."""
    labels = content.manifest.labels
    labels[labels == 2] = 1
    labels[[0, 50]] = 2
    report = audited()
    (note,) = report.notes
    assert note.startswith("labels not checked of classes under 5 images: caf")
    assert finds(report, "label").isdisjoint({("00000.jpg", None), ("00050.jpg", None)})
    assert not any(found.likely.startswith("caf") for found in report.of("label"))


def test_without_val_there_is_no_accuracy(content, audited):
    content.manifest.splits[:] = TRAIN
    report = audited()
    assert report.accuracies == ()
    assert report.notes == ("no accuracy: there is no usable image of val",)


def test_features_that_are_all_alike_are_pointed_out(content, audited):
    content.rows["features"][:] += 1000
    assert "raise --near" in audited().notes[0]


@pytest.mark.parametrize("near", [0, 1.1, float("nan")])
def test_a_cosine_that_is_none_is_refused(audited, near):
    with pytest.raises(SpecError, match="near must be above 0 and at most 1"):
        audited(near=near)


def test_maps_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.store.conftest.EMBED_DIM", 256 * 14 * 14)
    path = make_content(6, layer="layer3").complete(tmp_path / "maps.h5")
    with pytest.raises(CacheMismatchError, match="holds maps of layer3"):
        featcache.audit(path)


def test_nothing_usable_is_an_error(content, audited):
    content.rows["status"][:], content.rows["features"][:] = 4, 0
    with pytest.raises(SpecError, match="no usable image"):
        audited()


def test_the_command_has_the_default_of_the_function():
    """Reading it would load numpy for --help."""
    (option,) = (p for p in main.commands["audit"].params if p.name == "near")
    assert option.default == NEAR


def test_the_command_shows_the_worst_and_writes_all(content, tmp_path):
    """A table, one JSON object, and a CSV with a line for each finding."""
    labels = content.manifest.labels
    labels[[3, 31, 62]] = (labels[[3, 31, 62]] + 1) % 3
    path, table = content.complete(tmp_path / "it.h5"), tmp_path / "found.csv"
    words = ["audit", str(path), "--top", "1", "--csv", str(table)]
    shown = CliRunner().invoke(main, words, catch_exceptions=False).stdout
    assert "likely wrong labels      3\n" in shown
    assert "val accuracy (ridge)" in shown
    assert "and 2 more: see --top, --csv or --json" in shown
    with table.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    printed = CliRunner().invoke(main, ["audit", str(path), "--json"]).stdout
    report = json.loads(printed)
    assert [line["path"] for line in lines] == [f["path"] for f in report["findings"]]
    kinds = [line["kind"] for line in lines]
    assert {kind: kinds.count(kind) for kind in KINDS} == report["counts"]
    assert report["counts"]["label"] == 3
    assert [count["train"] for count in report["classes"]] == np.bincount(
        labels[content.manifest.splits == TRAIN]
    ).tolist()


def test_a_report_lists_no_more_than_it_has_room_for(content, tmp_path, monkeypatch):
    """Counts and the file have all; the worst are listed, and a note says so."""
    monkeypatch.setattr(auditing, "LISTED", 2)
    labels = content.manifest.labels
    labels[[3, 31, 62]] = (labels[[3, 31, 62]] + 1) % 3
    path, table = content.complete(tmp_path / "it.h5"), tmp_path / "all.csv"
    report = featcache.audit(path, csv=table)
    assert (report.counts["label"], len(report.of("label"))) == (3, 2)
    note = "label: the first 2 of 3 findings are listed; --csv writes all"
    assert note in report.notes
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row["path"] for row in csv.DictReader(file) if row["kind"] == "label"]
    assert sorted(rows) == ["00003.jpg", "00031.jpg", "00062.jpg"]
    assert rows[:2] == [found.path for found in report.of("label")]


def test_many_rows_are_compared_by_compiled_code_or_it_is_said(
    content, tmp_path, monkeypatch
):
    """With the same findings either way."""
    content.rows["features"][97] = content.rows["features"][7] * 1.5
    path = content.complete(tmp_path / "it.h5")
    heard = Heard()
    monkeypatch.setattr(audit_copies, "WORTH_COMPILING", 1)
    compiled = featcache.audit(path, progress=heard)
    assert heard.lines == []
    reason = "llvmlite is not installed (pip install 'featcache[fast]')"
    monkeypatch.setattr(audit_copies, "comparison_here", lambda: (None, reason))
    by_numpy = featcache.audit(path, progress=heard)
    assert heard.lines == [
        f"comparing with numpy, which takes ten times as long: {reason}"
    ]
    found = {("00097.jpg", "00007.jpg")}
    assert finds(compiled, "near_duplicate") == finds(by_numpy, "near_duplicate")
    assert finds(compiled, "near_duplicate") == found


def test_probabilities_are_the_same_kept_or_computed_twice(
    content, audited, monkeypatch
):
    labels = content.manifest.labels
    labels[[3, 31, 62]] = (labels[[3, 31, 62]] + 1) % 3
    kept = audited().of("label")
    monkeypatch.setattr(audit_checks, "_KEPT", 0)
    assert audited().of("label") == kept
    assert len(kept) == 3
