"""verify --sample, verify --repair, merge, and several files as one cache."""

import json

import pytest

from featcache.store.reader import FeatureCache
from tests.cli.test_commands import cached, run  # noqa: F401 - fixtures
from tests.stages.test_extraction import sampled_pixels

CACHE = "cache/photos-resnet18.h5"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Put sampled pixels in the network's place."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)


@pytest.fixture
def damaged(cached, tmp_path):  # noqa: F811
    """The extracted photos; a bit of row 9's feature is wrong."""
    path = tmp_path / CACHE
    with FeatureCache(path) as cache:
        place = cache.header.columns["features"].row_offset(9)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_sample_is_reported(run, cached):  # noqa: F811
    """For people in a second line, and in --json."""
    text = run("verify", CACHE, "--sample", 4, "--seed", 1).stdout.splitlines()
    assert text[1] == "4 rows computed again; largest relative error 0"
    report = json.loads(run("verify", CACHE, "--sample", 4, "--json").stdout)
    assert set(report) == {
        "cache", "rows", "blocks", "bytes", "skipped", "sampled", "largest_error",
        "seconds",
    }  # fmt: skip
    assert (report["sampled"], report["largest_error"]) == (4, 0.0)


def test_damage_is_told_and_repaired(run, damaged):  # noqa: F811
    """Exit 1 with every row, once; then all is well again."""
    printed = run("verify", CACHE, "--json", code=1)
    rows = json.loads(printed.stdout)["bad_rows"]
    assert len(rows) == 8
    assert all(row["reason"].endswith("does not match its digest") for row in rows)
    assert rows[0]["path"] in printed.stderr
    assert "--repair" in printed.stderr
    said = run("verify", CACHE, "--repair").stdout
    assert said == f"{CACHE}: repaired 8 rows in 1 block of 3\n"
    run("verify", CACHE)
    assert "nothing to repair" in run("verify", CACHE, "--repair").stdout
    report = json.loads(run("verify", CACHE, "--repair", "--json").stdout)
    assert report["repaired_rows"] == 0


def test_a_missing_image_is_told_by_path(run, cached, tmp_path):  # noqa: F811
    """Where --data says, and only there."""
    (tmp_path / "empty").mkdir()
    words = ("verify", CACHE, "--sample", 1, "--data", tmp_path / "empty")
    printed = run(*words, "--json", code=1)
    assert (
        "cannot be read any more" in json.loads(printed.stdout)["bad_rows"][0]["reason"]
    )


def test_wrong_combinations_exit_with_2(run, cached):  # noqa: F811
    """An option that would do nothing, a number that cannot be."""
    assert (
        "does nothing" in run("verify", CACHE, "--repair", "--sample", 1, code=2).stderr
    )
    run("verify", CACHE, "--sample", -1, code=2)
    run("merge", CACHE, code=2)


def test_merge_and_a_pattern_come_to_the_same(run, cached, tmp_path):  # noqa: F811
    """A head fits on both, and evaluates alike."""
    (tmp_path / CACHE).rename(tmp_path / "cache/part-1.h5")
    (tmp_path / "cache/part-2.h5").write_bytes(
        (tmp_path / "cache/part-1.h5").read_bytes()
    )
    parts = ("cache/part-1.h5", "cache/part-2.h5")
    said = run("merge", *parts, "--cache", "all.h5").stdout
    assert "20 images x 512, 2 classes, of 2 caches, 20 repeated, skipped 0" in said
    assert (
        "is there already" in run("merge", *parts, "--cache", "all.h5", code=1).stderr
    )
    words = ("merge", *parts, "--cache", "all.h5", "--overwrite", "--json")
    assert json.loads(run(*words).stdout)["images"] == 20
    heads = [
        json.loads(
            run("fit-head", cache, "--epochs", 2, "--lr", "1e-5", "--json").stdout
        )
        for cache in ("all.h5", "cache/part-*.h5")
    ]
    assert heads[0]["val_loss"] == heads[1]["val_loss"]
    assert "/fit-head-part-1-and-1-more-sgd-" in heads[1]["model"]
    numbers = [
        json.loads(run("evaluate", heads[0]["model"], cache, "--json").stdout)
        for cache in ("all.h5", "cache/part-*.h5")
    ]
    assert numbers[0] == numbers[1]
    assert "no cache" in run("fit-head", "cache/none-*.h5", code=1).stderr
