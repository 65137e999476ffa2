"""Several views through the stages: made, found again, checked, joined, trained on."""

import json
import shutil

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import featcache
from featcache.cli.main import main
from featcache.core.errors import CacheMismatchError, SpecError
from featcache.core.specs import (
    AugmentSpec,
    ExtractSpec,
    LogRegSpec,
    SgdSpec,
    SweepSpec,
)
from featcache.core.viewed import view_counts
from featcache.stages.changes import status
from tests.conftest import picture
from tests.stages.test_extraction import contents, quick  # noqa: F401 - a fixture

VIEWS = 3
pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def run(tmp_path):
    """Extract a folder with three views of each training image."""

    def extract(data, name="cache", spec=None, views=VIEWS, **settings):
        path = tmp_path / f"{name}.h5"
        how = {"weights": "random:0", "cache": path, "views": views, **settings}
        return featcache.extract(data, spec, **how)

    return extract


def test_training_images_have_views_and_the_others_one(run, photos):
    """Of val the rest is NaN; every view of train is another feature."""
    with run(photos) as cache, run(photos, "one", views=1) as one:
        assert cache.columns["features"].shape == (20, VIEWS, 512)
        assert np.array_equal(one.columns["features"], cache.columns["features"][:, 0])
        assert one.columns["features"].shape == (20, 512)
        there = np.isfinite(cache.columns["features"]).all(axis=2).sum(axis=1)
        assert there.tolist() == view_counts(cache.splits, VIEWS).tolist()
        views = cache.views("train")
        assert (np.ptp(views, axis=1).max(axis=1) > 0).all()
        assert (cache.report.computed, cache.report.views) == (20, VIEWS)
        assert one.report.views is None
        assert cache.fingerprint != one.fingerprint


def test_equal_settings_make_equal_bytes(run, photos):
    """Whatever the batch size and the number of threads."""
    with run(photos) as first:
        expected = contents(first)
    for number, spec in enumerate((ExtractSpec(batch_size=1), ExtractSpec(workers=1))):
        with run(photos, str(number), spec) as again:
            assert contents(again) == expected
    with run(photos, "other", augment=AugmentSpec(seed=1)) as other:
        assert contents(other)["features"] != expected["features"]
        assert np.array_equal(other.features().X, first_view(other))


def first_view(cache):
    return cache.columns["features"][:, 0]


def test_rows_are_found_again_by_digest(run, photos):
    """A renamed image costs nothing; one that moves to train is computed."""
    with run(photos) as before:
        known = {bytes(d): f for d, f in zip(*columns(before), strict=True)}
    (photos / "train/ants/00.jpg").rename(photos / "train/ants/zz.jpg")
    (photos / "train/ants/01.jpg").rename(photos / "val/ants/out.jpg")
    (photos / "val/bees/01.jpg").rename(photos / "train/bees/in.jpg")
    shutil.copy(photos / "train/bees/in.jpg", photos / "val/bees/copy.jpg")
    with run(photos) as after:
        assert after.report.computed == 1
        fresh = after.paths.tolist().index(b"train/bees/in.jpg")
        for row, (digest, found) in enumerate(zip(*columns(after), strict=True)):
            count = VIEWS if after.splits[row] == 0 else 1
            expected = known[bytes(digest)]
            if row == fresh:
                expected = np.concatenate([expected[:1], found[1:]])
            assert np.array_equal(expected[:count], found[:count])
            assert np.isfinite(found[:count]).all()
            assert np.isnan(found[count:]).all()
    with run(photos, "anew") as anew, featcache.open_cache(after.path) as synced:
        assert contents(anew)["features"] == contents(synced)["features"]


def columns(cache):
    return np.array(cache.columns["digests"]), np.array(cache.columns["features"])


def test_an_interrupted_extraction_goes_on(run, photos):
    """A bad image stops the first run; the rest of its work is kept."""
    bad = photos / "train/bees/00.jpg"
    good = bad.read_bytes()
    bad.write_bytes(good[:300])
    with pytest.raises(featcache.FeatcacheError, match="cannot be used"):
        run(photos)
    bad.write_bytes(good)
    with run(photos) as cache, run(photos, "whole") as whole:
        assert cache.report.computed == 1
        assert contents(cache)["features"] == contents(whole)["features"]


def test_a_cache_of_other_views_is_refused(run, photos):
    """By name, with both values; also one with other draws."""
    run(photos).close()
    with pytest.raises(CacheMismatchError, match="views is 3 in the file, 4 was asked"):
        run(photos, views=4)
    with pytest.raises(CacheMismatchError, match=r"augment\.seed is 0 in the file, 2"):
        run(photos, augment=AugmentSpec(seed=2))
    with run(photos, spec=ExtractSpec(overwrite=True), views=1) as one:
        assert one.spec.views == 1


@pytest.mark.parametrize("views", [0, -3, 1000])
def test_a_bad_number_is_refused_before_anything_is_read(run, tmp_path, views):
    """There is no such folder, either."""
    with pytest.raises(SpecError, match="views must be a whole number from 1 to 256"):
        run(tmp_path / "missing", views=views)
    with pytest.raises(SpecError, match="must be 1 with the decoder nvjpeg"):
        run(tmp_path / "missing", decoder="nvjpeg")


def test_verify_computes_every_view_again(run, photos):
    """Equal bytes, or the row whose later view is wrong."""
    cache = run(photos)
    report = featcache.verify(cache.path, sample=20)
    assert (report.sampled, report.largest_error) == (20, 0.0)
    cache.close()
    picture(7, (0, 0, 200)).save(photos / "train/ants/00.jpg")
    with pytest.raises(featcache.FeatcacheError, match=r"train/ants/00\.jpg"):
        featcache.verify(cache.path, sample=20)


def test_repair_restores_every_view(run, photos):
    """A damaged view beyond the first, byte for byte."""
    with run(photos) as cache:
        expected, path = contents(cache), cache.path
        at = cache.header.columns["features"].row_offset(2) + 2 * 512 * 4
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(100))
    with pytest.raises(featcache.FeatcacheError, match="is damaged"):
        featcache.verify(path)
    assert featcache.repair(path).repaired_blocks == 1
    with featcache.open_cache(path) as cache:
        assert contents(cache) == expected


def test_merged_halves_are_the_whole(run, photos, tmp_path):
    """With all views."""
    with run(photos) as whole:
        expected = contents(whole)
    for name, odd in (("even", 1), ("odd", 0)):
        half = shutil.copytree(photos, tmp_path / name)
        for path in half.rglob("*.*"):
            if int(path.stem) % 2 == odd:
                path.unlink()
        run(half, f"part-{name}").close()
    parts = [tmp_path / "part-even.h5", tmp_path / "part-odd.h5"]
    featcache.merge(parts, tmp_path / "merged.h5")
    with featcache.open_cache(tmp_path / "merged.h5") as merged:
        assert contents(merged) == expected
    with (
        featcache.open_cache(parts) as parted,
        featcache.open_cache(tmp_path / "merged.h5") as merged,
    ):
        assert np.array_equal(parted.views("train"), merged.views("train"))
        heads = [
            featcache.fit_head(c, out=tmp_path / "r").head for c in (parted, merged)
        ]
        assert np.array_equal(heads[0].weight, heads[1].weight)
    other = run(photos, "other", views=2).path
    with pytest.raises(CacheMismatchError, match="views is 2"):
        featcache.merge([parts[0], other], tmp_path / "no.h5")


def test_status_and_exports_are_as_of_one_view(run, photos, tmp_path):
    """The export has view 0; the status knows what has to be computed."""
    with run(photos) as cache:
        expected = cache.features().X.copy()
    featcache.export(cache.path, "npy", out=tmp_path / "npy")
    assert np.array_equal(expected, np.load(tmp_path / "npy/X.npy"))
    found = status(cache.path, photos)
    assert (found.unchanged, found.to_compute) == (20, 0)
    (photos / "train/ants/01.jpg").rename(photos / "val/ants/out.jpg")
    (photos / "val/bees/01.jpg").rename(photos / "train/bees/in.jpg")
    assert status(cache.path, photos).to_compute == 1
    with run(photos) as again:
        assert again.report.computed == 1


def test_heads_draw_views_and_val_does_not(run, photos, tmp_path):
    """All views by default; one is what a cache of one view gives."""
    with run(photos) as cache, run(photos, "one", views=1) as one:
        spec = SgdSpec(lr=1e-6, epochs=3)
        plain = featcache.fit_head(one, spec, out=tmp_path / "0")
        first = featcache.fit_head(cache, spec, views=1, out=tmp_path / "1")
        drawn = featcache.fit_head(cache, spec, out=tmp_path / "2")
        two = featcache.fit_head(cache, spec, views=2, out=tmp_path / "3")
        assert np.array_equal(plain.head.weight, first.head.weight)
        heads = {h.head.weight.tobytes() for h in (first, drawn, two)}
        assert len(heads) == 3
        told = [t.report.views for t in (plain, first, drawn, two)]
        assert told == [None, 1, 3, 2]
        swept = SweepSpec(lr=(1e-6, 1e-5), epochs=2, select_on="train", refit=True)
        assert featcache.fit_head(cache, swept, out=tmp_path / "4").report.views == 3
        solved = featcache.fit_head(cache, LogRegSpec(C=(1.0,)), out=tmp_path / "5")
        assert solved.report.views == 1
        for views, spec, reason in (
            (4, SgdSpec(), "views must be from 1 to 3, got 4"),
            (0, SgdSpec(), "views must be from 1 to 3, got 0"),
            (2, LogRegSpec(), "only the solver sgd has epochs"),
        ):
            with pytest.raises(SpecError, match=reason):
                featcache.fit_head(cache, spec, views=views)


def test_the_command_line_makes_and_uses_views(photos, tmp_path):
    """extract --views K, fit-head --views N, and what info and verify say."""
    path = str(tmp_path / "c.h5")

    def typed(*words):
        result = CliRunner().invoke(main, [str(w) for w in words])
        assert result.exit_code == 0, result.output
        return result.stdout

    made = typed(
        "extract", photos, "--weights", "random:0", "--cache", path, "--views", 2
    )
    assert "20 images x up to 2 views x 512" in made
    with h5py.File(path) as file:
        assert file["features"].shape == (20, 2, 512)
    out = tmp_path / "run"
    found = json.loads(typed("fit-head", path, "--out", out, "--json"))
    assert found["views"] == 2
    assert "views" in typed("fit-head", path, "--views", 1, "--out", tmp_path / "x")
    assert '"views": 2' in typed("info", path, "--json")
    assert "match their digests" in typed("verify", path, "--sample", 3)
    refused = CliRunner().invoke(main, ["extract", str(photos), "--views", "0"])
    assert refused.exit_code == 1
    assert "views must be a whole number" in refused.stderr
