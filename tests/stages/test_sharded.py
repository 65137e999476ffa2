"""Parts of a folder, extracted apart: resumed, synced, and read as one."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import featcache
from featcache.core.errors import (
    CacheCorruptError,
    CacheMismatchError,
    CacheNotFoundError,
    DataError,
    Interrupted,
    SpecError,
)
from featcache.core.resources import Resources
from featcache.core.specs import ExtractSpec, SgdSpec
from featcache.stages.changes import status
from featcache.stages.devices import beside_others
from featcache.stages.inspection import describe
from featcache.stages.newest import newest_cache
from featcache.store.parts import PartedCache
from featcache.store.reader import FeatureCache
from tests.conftest import make_photos, picture
from tests.stages.test_extraction import Listener, age, sampled_pixels
from tests.stages.test_inspection import flip, rewritten

SET = "cache/photos-resnet18-part-*-of-3.h5"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Sampled pixels in the network's place; the test's own folder."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """2 classes, 24 training and 12 validation images each, and their three parts."""
    folder = tmp_path_factory.mktemp("made")
    photos = make_photos(folder / "photos", {"train": 24, "val": 12})
    age(photos)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featcache.vision.forward.embedder", sampled_pixels)
        for index in (1, 2, 3):
            extract(
                photos, shard=f"{index}/3", cache=folder / "cache/photos-resnet18.h5"
            )
    return folder


@pytest.fixture
def photos(made, tmp_path):
    """The test's own photos."""
    return shutil.copytree(made / "photos", tmp_path / "photos")


def extract(photos, spec=None, **settings):
    with featcache.extract(photos, spec, weights="random:0", **settings) as cache:
        return cache.report


@pytest.fixture
def cut(made, tmp_path):
    """The three parts of the photos; the test's own."""
    shutil.copytree(made / "cache", tmp_path / "cache")
    return [Path(SET.replace("*", str(index))) for index in (1, 2, 3)]


def all_columns(path):
    with FeatureCache(path) as cache:
        return {k: (v.dtype, v.shape, v.tobytes()) for k, v in cache.columns.items()}


def test_merged_parts_are_one_extraction(cut, photos, tmp_path):
    """Every column, byte for byte, the journal too; each image computed once."""
    report = extract(photos, cache="whole.h5")
    merged = featcache.merge(cut, "merged.h5")
    assert (merged.images, merged.repeated) == (72, 0)
    assert all_columns("merged.h5") == all_columns("whole.h5")
    with featcache.open_cache("merged.h5") as one:
        assert "shard" not in one.provenance
    assert report.shard is None


def test_a_part_has_the_classes_and_splits_of_the_whole(cut, photos):
    """Its own images, and the name of a part."""
    whole = extract(photos, cache="whole.h5")
    seen = []
    with featcache.open_cache(whole.cache) as one:
        place = {path: row for row, path in enumerate(one.paths.tolist())}
        for index, path in enumerate(cut, 1):
            assert path.name == f"photos-resnet18-part-{index}-of-3.h5"
            with featcache.open_cache(path) as part:
                assert part.classes == one.classes
                rows = [place[p] for p in part.paths.tolist()]
                assert (part.labels == one.labels[rows]).all()
                assert (part.splits == one.splits[rows]).all()
                seen += rows
    assert sorted(seen) == list(range(72))


def test_a_name_of_ones_own_gets_the_part(photos):
    """So that all processes can be given one command."""
    report = extract(photos, shard="2/3", cache="cache/mine.h5")
    assert report.cache.name == "mine-part-2-of-3.h5"
    assert report.to_json()["shard"] == "2/3"


def test_who_said_which_part_is_told(photos, monkeypatch):
    """Of auto, the variables."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    heard = Listener()
    report = extract(photos, shard="auto", progress=heard)
    assert report.cache.name == "photos-resnet18-part-2-of-3.h5"
    said = f"part 2 of 3 (RANK=1, WORLD_SIZE=3): {report.images} images"
    assert said in heard.lines
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(SpecError, match="no WORLD_SIZE"):
        extract(photos, shard="auto")


def test_an_interrupted_part_goes_on(photos):
    """From its own unfinished file; the others are not looked at."""
    with pytest.raises(Interrupted, match="part-1-of-3"):
        extract(
            photos, ExtractSpec(workers=1), shard="1/3", progress=Listener(stop_after=8)
        )
    other = extract(photos, shard="2/3")
    assert other.computed == other.images
    heard = Listener()
    assert extract(photos, shard="1/3", progress=heard).computed > 0
    assert heard.began_at == 8


def test_a_changed_folder_moves_no_other_image(cut, photos):
    """Each part computes its new images only, and all are of one state again."""
    with pytest.raises(CacheNotFoundError, match="part 2 of 3 is missing"):
        featcache.open_cache([cut[0], cut[2]])
    picture(901, (9, 9, 9)).save(photos / "train" / "bees" / "new.png")
    (photos / "val" / "ants" / "00.jpg").unlink()
    first = extract(photos, shard="1/3")
    with pytest.raises(CacheMismatchError, match=r"same state of a folder: of 72 imag"):
        featcache.open_cache(SET)
    reports = [first, *(extract(photos, shard=f"{i}/3") for i in (2, 3))]
    assert sum(r.computed for r in reports) == 1
    with featcache.open_cache(SET) as many:
        assert len(many) == 72
        assert b"val/ants/00.jpg" not in many.paths
    assert extract(photos, shard="1/3").computed == 0
    assert status(cut[0], photos).unchanged == reports[0].images
    assert status(cut[0], photos).to_compute == 0
    with pytest.raises(SpecError, match="several files; status compares one"):
        status(SET, photos)


@pytest.mark.slow
def test_a_ledger_belongs_to_a_part(cut, photos):
    """A damaged image fails the part that it is in, and no other."""
    target = next((photos / "train" / "ants").glob("07*"))
    target.write_bytes(b"no image")
    failed = []
    for index in (1, 2, 3):
        try:
            extract(photos, shard=f"{index}/3")
        except DataError:
            failed.append(index)
    assert len(failed) == 1
    extract(photos, ExtractSpec(on_error="skip"), shard=f"{failed[0]}/3")
    with featcache.open_cache(SET) as many:
        assert (len(many), many.skipped) == (72, 1)


@pytest.mark.slow
def test_parts_of_another_count_are_refused(cut, photos):
    """By name, and so is one part twice, and an image that is in two files."""
    extract(photos, shard="1/2")
    with pytest.raises(CacheMismatchError, match=r"part-1-of-2.h5 is part 1 of 2, but"):
        featcache.open_cache("cache/*.h5")
    with pytest.raises(CacheMismatchError, match="are both part 1 of 3"):
        featcache.open_cache([cut[0], *cut])
    whole = extract(photos, cache="whole.h5").cache
    with pytest.raises(CacheMismatchError, match=r"72 images in all\), but parts"):
        featcache.open_cache([whole, *cut])


@pytest.mark.slow
def test_parts_made_with_other_settings_are_refused(cut, photos):
    """By field, with both files."""
    cut[2].unlink()
    extract(photos, shard="3/3", dtype="float16")
    with pytest.raises(CacheMismatchError, match=r"dtype is 'float16' in .*-3-of-3"):
        featcache.open_cache(SET)


def test_a_record_of_no_part_is_damage(cut):
    """The file may come from elsewhere."""

    def change(columns, provenance):
        provenance["shard"] = {**provenance["shard"], "index": 4}

    with pytest.raises(CacheCorruptError, match="shard of its provenance is"):
        rewritten(cut[0], change)


def test_missing_parts_are_named(cut):
    """A few of them; and those that are not finished."""
    cut[1].unlink()
    cut[2].unlink()
    message = r"part 2 of 3, part 3 of 3 is missing beside .*--shard 2/3"
    for taken in (featcache.open_cache, featcache.verify):
        with pytest.raises(CacheNotFoundError, match=message):
            taken(SET)
    with pytest.raises(CacheNotFoundError, match=message):
        featcache.merge([cut[0]], "merged.h5")


@pytest.mark.slow
def test_every_command_takes_the_set_for_the_whole(cut, photos, tmp_path):
    """fit-head, evaluate, curve, audit, info, verify: the same numbers."""
    whole = extract(photos, cache="whole/whole.h5").cache
    assert newest_cache() == Path(SET)
    spec = SgdSpec(epochs=3)
    one, many = (
        featcache.fit_head(c, spec, out=o) for c, o in ((whole, "1"), (None, "2"))
    )
    assert (one.head.weight == many.head.weight).all()
    assert (
        replace(one.report, model=many.report.model, seconds=0).to_json()
        == replace(many.report, seconds=0).to_json()
    )
    judged = [featcache.evaluate("2/model.safetensors", c) for c in (whole, SET)]
    assert judged[0] == judged[1]
    curves = [
        featcache.curve(c, spec, shots=[2], seeds=2, out="c") for c in (whole, SET)
    ]
    assert curves[0].points == curves[1].points
    audits = [featcache.audit(c) for c in (whole, SET)]
    assert audits[0].findings == audits[1].findings
    told, wanted = describe(tmp_path / SET), describe(whole)
    assert [told[k] for k in ("images", "splits", "classes", "fingerprint")] == [
        wanted[k] for k in ("images", "splits", "classes", "fingerprint")
    ]
    assert len(told["files"]) == 3
    compared = featcache.compare("1", "2")  # on the newest cache: all of its parts
    assert compared.images == int((featcache.open_cache(whole).splits == 1).sum())
    assert json.dumps(told)
    report = featcache.verify(SET, sample=7)
    assert (report.rows, report.sampled, report.largest_error) == (72, 7, 0.0)
    assert report.bytes == sum(path.stat().st_size for path in cut)


@pytest.mark.slow
def test_parts_larger_than_memory_give_the_heads_of_one_file(cut, photos):
    """Windows have the same rows in the same order; none of them is all in memory."""
    whole = extract(photos, cache="whole/whole.h5").cache
    spec, little = SgdSpec(epochs=3, batch_size=2), Resources(memory=40 << 10)
    heads = [
        featcache.fit_head(c, spec, resources=little, out="run") for c in (whole, SET)
    ]
    assert (heads[0].head.weight == heads[1].head.weight).all()
    assert heads[0].history[-1].train_loss == heads[1].history[-1].train_loss
    ample = featcache.fit_head(SET, spec, out="run").head.weight
    assert (heads[1].head.weight != ample).any()  # there were windows


def test_damage_in_a_part_is_found_and_mended(cut):
    """By verify of the set; repair takes one file and leaves it a part."""
    with FeatureCache(cut[1]) as part:
        rows = len(part)
    flip(cut[1], "features", rows - 1)
    with pytest.raises(featcache.FeatcacheError, match=r"part-2-of-3\.h5 is damaged"):
        featcache.verify(SET)
    with pytest.raises(SpecError, match="several files; repair mends one"):
        featcache.repair(SET)
    assert featcache.repair(cut[1]).repaired_blocks == 1
    featcache.verify(SET)


def test_fit_head_on_one_part_says_so(cut):
    """It may be meant, and it may not."""
    heard = Listener()
    featcache.fit_head(cut[0], SgdSpec(epochs=1), out="run", progress=heard)
    assert any(
        "is part 1 of 3" in line and "part-*-of-3" in line for line in heard.lines
    )


def test_a_set_reopens_in_another_process(cut):
    """As the whole it was; a data loader sends it there."""
    with featcache.open_cache(SET) as many:
        remade, arguments = many.__reduce__()
        again = remade(*arguments)
        assert isinstance(again, PartedCache)
        assert (again.paths == many.paths).all()
        assert np.array_equal(again.features().X, many.features().X)


@pytest.mark.parametrize(
    ("gpus", "device", "expected"),
    [
        (0, "auto", "cpu"),
        (2, "auto", "cuda:1"),
        (1, "auto", "cuda:0"),
        (2, "cpu", "cpu"),
    ],
)
def test_processes_on_one_machine_share_it(monkeypatch, gpus, device, expected):
    """Cores and GPUs, as torchrun counts them; what the user says, stays."""
    alone = ExtractSpec(device=device)
    assert beside_others(alone) == alone
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("featcache.stages.devices.cores", lambda: 9)
    shared = beside_others(alone)
    assert (shared.device, shared.workers) == (expected, 4)
    assert beside_others(replace(alone, workers=3)).workers == 3


@pytest.mark.slow
def test_one_of_one_is_a_part_too(photos):
    """Nothing special: a cluster of one process."""
    report = extract(photos, shard="1/1")
    assert report.images == 72
    with featcache.open_cache("cache/*-part-*.h5") as many:
        assert len(many) == 72
