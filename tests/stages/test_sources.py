"""Every source gives the cache that a folder gives: made, resumed, up to date."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.core.errors import BadImagesError, DataError, Interrupted
from featcache.core.specs import ExtractSpec
from featcache.core.status import Status
from featcache.stages.changes import status
from featcache.vision.isolation import suspicion
from featcache.vision.sources.opening import open_source
from tests.conftest import picture
from tests.shards import age, shard
from tests.stages.test_extraction import Listener, contents, sampled_pixels
from tests.tables import write_arrow, write_parquet

SKIP = ExtractSpec(on_error="skip")
NAMES = {
    "list": "list.csv",
    "shards": "shards/{train,val}-{000..001}.tar",
    "parquet": "parquet/*.parquet",
    "arrow": "saved/*/data-*.arrow",
}
SAME = ("features", "labels", "splits", "digests", "status", "classes")


def write_list(photos: Path, out: Path) -> Path:
    """List all photos in no order."""
    lines = []
    for path in photos.rglob("*.*"):
        split, label, _ = path.relative_to(photos).parts
        lines.append(f"{path},{label},{split}")
    out.write_text("path,label,split\n" + "\n".join(sorted(lines, key=hash)) + "\n")
    return out


def write_tables(photos: Path) -> None:
    """Parquet and what Hugging Face's datasets would save."""
    for split in ("train", "val"):
        write_parquet(photos / split, Path("parquet", f"{split}-0.parquet"))
        write_arrow(photos / split, Path("saved", split, "data-00000-of-00001.arrow"))


def write_shards(photos: Path, out: Path) -> None:
    for split in ("train", "val"):
        shard(photos, out, split)


OTHERS = [pytest.param(n, marks=pytest.mark.slow) for n in ("list", "parquet", "arrow")]


@pytest.fixture(params=["shards", *OTHERS])
def source(request, photos, tmp_path, monkeypatch) -> str:
    """The photos as a source of each kind, made long ago."""
    monkeypatch.chdir(tmp_path)
    write_list(photos, tmp_path / "list.csv")
    write_shards(photos, tmp_path / "shards")
    if request.param in ("parquet", "arrow"):
        pytest.importorskip("pyarrow")
        write_tables(photos)
    for path in tmp_path.rglob("*.*"):
        if path.is_file():
            age(path)
    return NAMES[request.param]


@pytest.fixture
def quick(monkeypatch):
    """Put sampled pixels in the network's place: what is tested is around it."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)


def extract(data, spec=None, name="it.h5", **settings):
    settings = {"weights": "random:0", "cache": name, **settings}
    return featcache.extract(data, spec, **settings)


def called(source: str) -> str:
    """Return the name of a source, without the signs of a pattern."""
    return Path(source).stem if source == NAMES["list"] else source.partition("/")[0]


def rewrite(photos: Path, source: str) -> None:
    """Bring the source up to date with its photos."""
    if source == NAMES["list"]:
        write_list(photos, Path("list.csv"))
    elif source != NAMES["shards"]:
        write_tables(photos)
    else:
        write_shards(photos, Path("shards"))


@pytest.mark.slow
def test_features_labels_and_digests_are_those_of_the_folder(source, shared_photos):
    """Byte for byte, through the real network; the paths alone are the source's own."""
    found, expected = extract(source), extract(shared_photos, name="folder.h5")
    for name in SAME:
        assert found.columns[name].tobytes() == expected.columns[name].tobytes(), name
    assert (found.status == Status.OK).all()


def test_a_cache_is_called_like_its_source(source, quick):
    made = extract(source, cache=None)
    assert made.path == Path(f"cache/{called(source)}-resnet18.h5")
    assert made.provenance["data"] == f"{Path.cwd()}/{source}"


def test_an_unchanged_source_computes_and_reads_nothing(source, quick, monkeypatch):
    """Sizes and times vouch for the images."""
    before = contents(extract(source))

    def read(*_):
        raise AssertionError("an image was read")

    monkeypatch.setattr("featcache.vision.decode.read_bytes", read)
    monkeypatch.setattr("featcache.stages.plans.image_digest", read)
    again = extract(source)
    assert again.report.computed == 0
    assert contents(again) == before


def test_an_interrupted_extraction_goes_on(source, quick):
    """What is done is kept, and the end is as of one run."""
    whole = contents(extract(source, name="whole.h5"))
    one = ExtractSpec(workers=1, batch_size=2)
    with pytest.raises(Interrupted, match="run the same command again"):
        extract(source, one, progress=Listener(stop_after=8))
    progress = Listener()
    made = extract(source, one, progress=progress)
    assert progress.began_at == 8
    assert made.report.computed == len(made) - 8
    assert contents(made) == whole


def test_a_changed_source_costs_its_new_digests(source, photos, quick):
    """Images are renamed, one is edited, three are new: four are computed."""
    extract(source)
    (photos / "train/ants/00.jpg").rename(photos / "train/ants/later.jpg")
    picture(77, (1, 2, 3)).save(photos / "train/bees/00.jpg")
    for number in range(3):
        picture(90 + number, (9, 9, 9)).save(photos / f"val/bees/n{number}.png")
    rewrite(photos, source)
    report = status("it.h5")
    assert report.to_compute == 4
    assert report.data == f"{Path.cwd()}/{source}"
    made = extract(source)
    assert made.report.computed == 4
    folder = extract(photos, name="folder.h5")
    for name in SAME:
        assert made.columns[name].tobytes() == folder.columns[name].tobytes(), name


@pytest.mark.slow
def test_a_touched_source_is_read_but_not_computed(source, photos, quick):
    """The bytes vouch for themselves where times do not."""
    before = contents(extract(source))
    for path in Path().rglob("*.*"):
        if path.is_file() and path.suffix != ".h5":
            os.utime(path)
    made = extract(source)
    assert made.report.computed == 0
    assert contents(made) == before


def test_bad_images_are_named_and_left_out(source, photos, quick):
    """By shard and member, or by the path that is listed."""
    (photos / "train/bees/01.jpg").write_bytes(b"no image")
    (photos / "val/ants/00.jpg").write_bytes(b"")
    rewrite(photos, source)
    name = {
        NAMES["list"]: f"{photos}/train/bees/01.jpg",
        NAMES["shards"]: "train-001.tar/bees/01.jpg",
        NAMES["parquet"]: "train-0.parquet/00000007",
        NAMES["arrow"]: "train/data-00000-of-00001.arrow/00000007",
    }[source]
    with pytest.raises(BadImagesError) as caught:
        extract(source)
    bad = {image.path: image.reason for image in caught.value.images}
    assert bad[name] == "no image format that Pillow knows"
    assert "the file is empty" in bad.values()
    made = extract(source, SKIP)
    assert made.report.computed == 0
    assert made.report.skipped == 2
    assert (made.status == Status.NOT_AN_IMAGE).sum() == 2


def test_a_listed_file_that_is_missing_is_a_bad_image(source, photos, quick):
    """It is looked at again by the next run; a shard has all it ever had."""
    if source != NAMES["list"]:
        shutil.rmtree(photos)
        assert extract(source).report.skipped == 0
        return
    away = photos / "train/bees/01.jpg"
    away.rename("away.jpg")
    with pytest.raises(BadImagesError, match=r"01\.jpg: cannot be read: No such file"):
        extract(source)
    Path("away.jpg").rename(away)
    assert extract(source).report.computed == 1


def test_a_cut_shard_is_refused_or_used_to_there(photos, tmp_path, monkeypatch, quick):
    """--on-error skip says which, and uses what is whole."""
    monkeypatch.chdir(tmp_path)
    write_shards(photos, Path("shards"))
    path = Path("shards/train-001.tar")
    start = open_source("shards").scan().file(9).start
    path.write_bytes(path.read_bytes()[: start + 1])
    with pytest.raises(DataError, match=r"train-001\.tar ends within .* --on-error"):
        extract("shards")
    progress = Listener()
    assert len(extract("shards", SKIP, progress=progress)) == 17
    assert any("train-001.tar ends within" in line for line in progress.lines)


@pytest.mark.slow
def test_verify_and_repair_find_the_images_again(source, quick):
    """Rows are computed again out of the source that the cache recorded."""
    whole = extract(source)
    assert featcache.verify("it.h5", sample=20).largest_error == 0
    with open("it.h5", "r+b") as file:  # noqa: PTH123
        file.seek(whole.header.columns["features"].row_offset(3))
        file.write(b"\xff" * 8)
    before = contents(extract(source, name="again.h5"))
    assert featcache.repair("it.h5").repaired_blocks == 1
    assert contents(featcache.open_cache("it.h5")) == before


@pytest.mark.slow
def test_an_image_that_left_its_source_is_told(source, photos, quick):
    extract(source)
    (photos / "train/ants/00.jpg").unlink()
    rewrite(photos, source)
    gone = r"ants/00\.jpg: its image cannot"
    if source in (NAMES["parquet"], NAMES["arrow"]):  # rows have moved up by one
        gone = "00000000: its image has changed"
    with pytest.raises(featcache.FeatcacheError, match=gone):
        featcache.verify("it.h5", sample=20)


def test_a_cache_whose_source_is_gone_says_so(source, quick):
    extract(source)
    for folder in ("shards", "parquet", "saved"):
        shutil.rmtree(folder, ignore_errors=True)
    Path("list.csv").unlink()
    with pytest.raises(DataError, match="is not known here: there is no"):
        status("it.h5")
    with pytest.raises(DataError, match=r"there is no .*; say with --data where the"):
        featcache.verify("it.h5", sample=1)


@pytest.mark.slow
def test_evaluation_takes_any_source(source, photos, quick):
    extract(source)
    run = featcache.fit_head("it.h5", out="run")
    found = featcache.evaluate(run.model, source)
    assert found.accuracy == featcache.evaluate(run.model, photos).accuracy
    assert found.accuracy == featcache.evaluate(run.model, "it.h5").accuracy


@pytest.mark.slow
def test_suspects_are_tried_apart_wherever_they_lie(source):
    """Another process finds the bytes; a place that has none is no suspect."""
    from featcache.core.specs import ViewSpec

    manifest = open_source(source).scan()
    assert suspicion(manifest.file(3), ViewSpec()) is None


@pytest.mark.slow
def test_several_processes_give_the_bytes_of_one(source):
    """Workers are told where in a shard their images lie."""
    one = contents(extract(source))
    two = ExtractSpec(device="cpu,cpu", workers=2)
    assert contents(extract(source, two, name="two.h5")) == one


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("source", ["list", "shards"], indirect=True)
def test_a_crash_costs_one_image_and_names_it(source, photos, tmp_path, monkeypatch):
    """A decoder that kills the process: the member is tried apart and left out."""
    from tests.stages.test_quarantine import HOSTILE

    (photos / "train/ants/00.jpg").rename(photos / "train/ants/crash.jpg")
    rewrite(photos, source)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(HOSTILE)
    root = Path(featcache.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(root)]))
    command = [sys.executable, "-m", "featcache", "extract", source]
    command += ["--weights", "random:0", "--cache", "c.h5", "--on-error", "skip"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ants/crash.jpg  crashes or hangs the decoder" in done.stderr
    made = featcache.open_cache("c.h5")
    assert (made.status == Status.QUARANTINED).sum() == 1
    row = int(np.flatnonzero(made.status == Status.QUARANTINED)[0])
    assert made.columns["digests"][row].any()


@pytest.mark.slow
def test_finetuning_takes_any_source(source, photos):
    """The same model, to the bit, as from the folder; its run is called like DATA."""
    spec = featcache.FinetuneSpec(epochs=1, batch_size=4)
    runs = [
        featcache.finetune(data, spec, weights="random:0", out=out)
        for data, out in ((source, None), (photos, "b"))
    ]
    assert runs[0].val_accuracy == runs[1].val_accuracy
    name = called(source)
    assert runs[0].model.parent.name.startswith(f"finetune-{name}-resnet18-")
