"""Parts of lists, tars and tables: whole files, extracted apart and read as one."""

from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.core.errors import Interrupted
from featcache.core.specs import ExtractSpec, SgdSpec
from featcache.stages.changes import status
from featcache.vision import reading
from tests.conftest import make_photos, picture
from tests.shards import age, make_tar, samples
from tests.stages.test_extraction import Listener, sampled_pixels
from tests.tables import write_parquet

SET = "cache/it-part-*-of-3.h5"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Sampled pixels in the network's place; the test's own folder."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """2 classes, 24 training and 12 validation images each."""
    folder = tmp_path_factory.mktemp("many")
    return make_photos(folder / "photos", {"train": 24, "val": 12})


def write_tars(photos: Path, count: int) -> None:
    """Write the images of each split into so many tars, of every class some."""
    for split in ("train", "val"):
        members = samples(photos / split)
        pairs = [members[at : at + 2] for at in range(0, len(members), 2)]
        for number in range(count):
            own = [member for pair in pairs[number::count] for member in pair]
            age(make_tar(Path(f"tars/{split}-{number:02d}.tar"), own))


def extract(data, spec=None, **settings):
    settings = {"weights": "random:0", "cache": "cache/it.h5", **settings}
    with featcache.extract(data, spec, **settings) as cache:
        return cache.report


def by_path(table):
    """Return what a table says of each image."""
    order = np.argsort(table.paths)
    names = ("paths", "labels", "splits", "digests", "status")
    told = [table.columns[name][order].tolist() for name in names]
    return [*told, table.classes, table.take(order).tolist()]


@pytest.fixture
def containers(monkeypatch):
    """The files out of which images were read."""
    read, found = reading.read_bytes, []

    def noted(place, limit=None):
        found.append(getattr(place, "shard", None) or place.file)
        return read(place, limit)

    monkeypatch.setattr("featcache.vision.decode.read_bytes", noted)
    return found


def test_each_part_reads_tars_of_its_own(many, containers):
    """And all together are the whole: each image computed once."""
    write_tars(many, 8)
    opened = []
    for index in (1, 2, 3):
        containers.clear()
        report = extract("tars", shard=f"{index}/3")
        assert report.computed == report.images == len(containers)
        opened.append(set(containers))
    assert sum(map(len, opened)) == len(set.union(*opened)) == 16
    assert len(featcache.open_cache(SET)) == 72


@pytest.mark.slow
def test_parts_of_tars_are_merged_and_verified(many):
    """The rows of one extraction, found again in their tars."""
    write_tars(many, 8)
    for index in (1, 2, 3):
        extract("tars", shard=f"{index}/3")
    extract("tars", cache="whole.h5")
    whole = featcache.open_cache("whole.h5")
    assert by_path(featcache.open_cache(SET)) == by_path(whole)
    featcache.merge(sorted(Path("cache").glob("*.h5")), "merged.h5")
    assert by_path(featcache.open_cache("merged.h5")) == by_path(whole)
    assert featcache.verify(SET, sample=9).largest_error == 0


@pytest.mark.slow
def test_another_tar_costs_its_own_part(many):
    """status compares a part with what is its own."""
    write_tars(many, 8)
    for index in (1, 2, 3):
        extract("tars", shard=f"{index}/3")
    picture(901, (9, 9, 9)).save("later.png")
    new = [
        ("ants/later.png", Path("later.png").read_bytes()),
        ("ants/later.cls", b"ants"),
    ]
    age(make_tar(Path("tars/train-99.tar"), new))
    files = [Path(SET.replace("*", str(index))) for index in (1, 2, 3)]
    assert sorted(status(file).to_compute for file in files) == [0, 0, 1]
    reports = [extract("tars", shard=f"{index}/3") for index in (1, 2, 3)]
    assert sorted(report.computed for report in reports) == [0, 0, 1]
    assert len(featcache.open_cache(SET)) == 73


@pytest.mark.slow
def test_one_tar_is_cut_image_by_image(many):
    """More parts than files: each part has images nevertheless."""
    write_tars(many, 1)
    reports = [extract("tars", shard=f"{index}/3") for index in (1, 2, 3)]
    assert min(report.computed for report in reports) > 10
    assert sum(report.computed for report in reports) == 72
    assert len(featcache.open_cache(SET)) == 72


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["list", "tables"])
def test_lists_and_tables_are_cut_too(many, kind):
    """Into the whole, which heads are fitted on."""
    if kind == "list":
        lines = [f"{p},{p.parent.name}" for p in sorted(many.rglob("*.*"))]
        Path("it.csv").write_text("\n".join(["path,label", *lines]))
        data = "it.csv"
    else:
        pytest.importorskip("pyarrow")
        for split in ("train", "val"):
            write_parquet(many / split, Path(f"tables/{split}-0.parquet"), rows=4)
        data = "tables"
    for index in (1, 2, 3):
        extract(data, shard=f"{index}/3")
    extract(data, cache="whole.h5")
    parts = featcache.open_cache(SET)
    assert by_path(parts) == by_path(featcache.open_cache("whole.h5"))
    assert featcache.fit_head(SET, SgdSpec(epochs=1), out="run").val_accuracy >= 0


@pytest.mark.slow
def test_an_interrupted_part_of_tars_goes_on(many):
    """From its own unfinished file."""
    write_tars(many, 8)
    spec, listener = ExtractSpec(workers=1), Listener(stop_after=8)
    with pytest.raises(Interrupted, match="part-1-of-3"):
        extract("tars", spec, shard="1/3", progress=listener)
    heard = Listener()
    assert extract("tars", shard="1/3", progress=heard).computed > 0
    assert heard.began_at == 8


def test_classes_that_are_numbers_keep_their_order(many):
    """10 is behind 9 in one cache; in parts read as one it is, too."""
    files = sorted((many / "train/ants").iterdir())
    pairs = [(f"{at:03d}", file.read_bytes()) for at, file in enumerate(files)]
    for number in range(8):
        members = []
        for key, data in pairs[number::8]:
            label = str(int(key) % 12).encode()
            members += [(f"{key}.jpg", data), (f"{key}.cls", label)]
        age(make_tar(Path(f"tars/{number}.tar"), members))
    for index in (1, 2):
        extract("tars", shard=f"{index}/2")
    parts = featcache.open_cache("cache/it-part-*-of-2.h5")
    assert parts.classes == tuple(map(str, range(12)))
    keys = [int(path.split(b"/")[1][:3]) % 12 for path in parts.paths.tolist()]
    assert parts.labels.tolist() == keys
