"""Tar shards: samples, labels and splits by WebDataset's rules; what is refused."""

import json
import os

import numpy as np
import pytest

from featcache.core.errors import DataError
from featcache.core.locations import (
    Cell,
    Member,
    Object,
    location_from_json,
    location_to_json,
)
from featcache.core.manifest import TRAIN, VAL
from featcache.vision.reading import read_bytes, size_and_time
from featcache.vision.scan import scan
from featcache.vision.sources.folder import Folder
from featcache.vision.sources.lists import FileList
from featcache.vision.sources.opening import open_source
from featcache.vision.sources.patterns import folder_of, matching_files
from featcache.vision.sources.shards import TarShards
from tests.shards import make_tar, shard

PLAIN = [("a.jpg", b"A"), ("a.cls", b"0"), ("b.jpg", b"BB"), ("b.cls", b"1")]


@pytest.fixture
def shards(shared_photos, tmp_path):
    """The shared photos as two shards of each split; labels of val are JSON."""
    for split in ("train", "val"):
        shard(shared_photos, tmp_path / "shards", split)
    return tmp_path / "shards"


def test_shards_hold_the_images_of_their_folder(shards, shared_photos):
    """Bytes, labels, classes and splits; paths begin with the shard's."""
    folder = scan(shared_photos)
    manifest = TarShards(f"{shards}/{{train,val}}-{{000..001}}.tar").scan()
    assert manifest.classes == folder.classes
    for name in ("labels", "splits", "sizes"):
        assert np.array_equal(getattr(manifest, name), getattr(folder, name)), name
    assert [read_bytes(manifest.file(i)) for i in range(len(manifest))] == [
        folder.file(i).read_bytes() for i in range(len(folder))
    ]
    assert manifest.paths[0] == b"train-000.tar/ants/00.jpg"
    assert os.fspath(manifest.file(0)) == f"{shards}/train-000.tar/ants/00.jpg"
    shard_time = (shards / "train-000.tar").stat().st_mtime_ns
    assert size_and_time(manifest.file(0)) == (folder.sizes[0], shard_time)
    assert manifest.mtimes_ns[0] == shard_time


def test_rows_lie_in_the_order_of_the_bytes(tmp_path):
    """Whatever classes and splits are: shards are read from front to back."""
    images = [(f"{i:02d}.jpg", b"x" * i) for i in range(1, 40)]
    labels = [(f"{i:02d}.cls", b"%d" % (i % 3)) for i in range(1, 40)]
    members = [m for pair in zip(labels, images, strict=True) for m in pair]
    make_tar(tmp_path / "b.tar", members)
    make_tar(tmp_path / "a.tar", members[::-1])
    manifest = open_source(tmp_path).scan()
    places = [manifest.file(i) for i in range(len(manifest))]
    assert places == sorted(places, key=lambda place: (place.shard, place.start))
    assert set(manifest.splits) == {TRAIN, VAL}  # held out by path
    assert [manifest.classes[n] for n in manifest.labels[:3]] == ["0", "2", "1"]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("train/0.tar", TRAIN),
        ("imagenet-train-0001.tar", TRAIN),
        ("x/validation/0.tar", VAL),
        ("cars_val.0.tar", VAL),
    ],
)
def test_splits_are_said_by_folders_and_names(tmp_path, name, number):
    make_tar(tmp_path / name, PLAIN)
    for other in ("train", "val"):
        make_tar(tmp_path / f"{other}-other.tar", PLAIN)
    manifest = TarShards(f"{tmp_path}/**/*.tar").scan()
    mine = np.char.startswith(manifest.paths, name.encode())
    assert set(manifest.splits[mine]) == {number}


def test_what_is_no_image_is_counted(tmp_path):
    """Masks, texts, Mac's own files; a folder's dot is no part of a key."""
    extra = [("a.mask.png", b""), ("a.txt", b""), ("._a.jpg", b""), ("c.cls", b"7")]
    make_tar(tmp_path / "x.tar", [(f"./v1.2/{n}", d) for n, d in [*PLAIN, *extra]])
    manifest = open_source(tmp_path / "x.tar").scan()
    assert manifest.paths.tolist() == [b"x.tar/v1.2/a.jpg", b"x.tar/v1.2/b.jpg"]
    assert manifest.ignored == {
        "other file": 1,
        ".txt file": 1,
        "hidden file": 1,
        "label without image": 1,
    }


def test_a_cls_says_more_than_a_json(tmp_path):
    members = [("a.json", b'{"label": "z"}'), *PLAIN, ("b.json", b"no JSON at all")]
    make_tar(tmp_path / "x.tar", members)
    assert open_source(tmp_path / "x.tar").scan().classes == ("0", "1")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (
            [*PLAIN, ("c.jpg", b"")],
            r"1 image without a label, first c\.jpg: expected c",
        ),
        ([*PLAIN, ("a.jpg", b"")], r"has two members called a\.jpg"),
        ([*PLAIN, ("a.cls", b"1")], r"has two members called a\.cls"),
        ([*PLAIN, ("a.png", b"")], r"two images with one key, a\.jpg and a\.png"),
        ([("a.jpg", b""), ("a.cls", b" ")], r"a\.cls holds no class name"),
        ([("a.jpg", b""), ("a.json", b"{")], r"a\.json is not JSON"),
        ([("a.jpg", b""), ("a.json", b"1")], r"a\.json is no JSON object"),
        ([("a.jpg", b""), ("a.json", b'{"caption": 1}')], r"a\.json has no label"),
        ([("a.jpg", b""), ("a.json", b'{"cls": 1.5}')], "its cls is 1.5, no text"),
        (PLAIN[:2], "has only one class, 0 in train"),
        ([("a.txt", b"")], "no image is in"),
    ],
)
def test_a_wrong_shard_is_refused_by_its_member(tmp_path, members, reason):
    make_tar(tmp_path / "x.tar", members)
    with pytest.raises(DataError, match=reason):
        open_source(tmp_path / "x.tar").scan()


def test_a_class_that_train_has_not_is_refused(tmp_path):
    make_tar(tmp_path / "train.tar", PLAIN)
    make_tar(tmp_path / "val.tar", [("a.jpg", b""), ("a.cls", b"2")])
    with pytest.raises(DataError, match="split val has classes that train has not: 2"):
        open_source(tmp_path).scan()


def test_a_shard_of_two_splits_is_refused(tmp_path):
    make_tar(tmp_path / "train" / "val-0.tar", PLAIN)
    with pytest.raises(DataError, match="a part of train and val; rename it"):
        TarShards(f"{tmp_path}/*/*.tar").scan()


def test_shards_with_and_without_a_split_are_refused(tmp_path):
    for name in ("train-0.tar", "other.tar"):
        make_tar(tmp_path / name, PLAIN)
    with pytest.raises(DataError, match=r"other\.tar/a\.jpg has no split, though"):
        open_source(tmp_path).scan()


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


def test_a_shard_that_was_cut_off_is_refused_or_used_to_there(shards):
    """By its name and the byte; on request with a warning that says both."""
    path = shards / "train-001.tar"
    whole = open_source(shards).scan()
    fourth = whole.file(9)  # of the six in this shard
    cut(path, fourth.start + 5)
    where = (
        rf"train-001\.tar ends within bees/03\.jpg \(at byte {fourth.start - 512:,}\)"
    )
    with pytest.raises(DataError, match=where + ": it was cut off; copy it again"):
        open_source(shards).scan()
    told = []
    used = open_source(shards, use_cut=True, tell=told.append).scan()
    assert used.paths.tolist() == [*whole.paths[:9], *whole.paths[12:]]
    assert "train-001.tar ends within" in told[0]


def test_an_image_whose_label_was_cut_off_is_left_out(tmp_path):
    make_tar(tmp_path / "x.tar", [*PLAIN, ("c.jpg", b"C"), ("c.cls", b"0")])
    cut(tmp_path / "x.tar", 10 * 512)  # behind the one block of c.jpg
    used = open_source(tmp_path / "x.tar", use_cut=True).scan()
    assert used.paths.tolist() == [b"x.tar/a.jpg", b"x.tar/b.jpg"]
    assert used.ignored == {"image whose label was cut off": 1}


def test_a_damaged_shard_is_refused_even_on_request(tmp_path):
    """What lies behind the damage is not lost silently."""
    data = bytearray(make_tar(tmp_path / "x.tar", PLAIN).read_bytes())
    data[1024] ^= 255
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.tar is damaged \(at byte 1,024\); make"):
        open_source(tmp_path / "x.tar", use_cut=True).scan()


def test_a_shard_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    make_tar(tmp_path / "x.tar", PLAIN)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", f"{tmp_path}/x.tar")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match=r"x\.tar cannot be read: Permission denied"):
        TarShards(f"{tmp_path}/x.tar").scan()


def test_a_member_that_is_not_there_any_more_is_an_error(tmp_path):
    make_tar(tmp_path / "x.tar", PLAIN)
    place = open_source(tmp_path / "x.tar").scan().file(1)
    cut(tmp_path / "x.tar", place.start + 1)
    with pytest.raises(OSError, match=r"x\.tar now ends within it"):
        read_bytes(place)


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "data/{0..9}.tar.zst"])
def test_compressed_shards_are_refused(name):
    with pytest.raises(
        DataError, match=r"is compressed, .* unpack it to a plain \.tar"
    ):
        open_source(name)


def test_a_folder_of_compressed_shards_is_refused(tmp_path):
    (tmp_path / "000.tar.gz").touch()
    with pytest.raises(DataError, match=r"000\.tar\.gz is compressed"):
        open_source(tmp_path)


@pytest.mark.parametrize("order", ["json first", "cls first"])
def test_a_json_without_a_label_does_not_matter_beside_a_cls(tmp_path, order):
    """As img2dataset writes captions; whichever tar puts first."""
    members = []
    for key, label in (("a", b"ants"), ("b", b"bees")):
        texts = [(f"{key}.json", b'{"caption": "x"}'), (f"{key}.cls", label)]
        if order == "cls first":
            texts.reverse()
        members += [*texts, (f"{key}.jpg", b"x")]
    make_tar(tmp_path / "x.tar", members)
    assert open_source(tmp_path / "x.tar").scan().classes == ("ants", "bees")
    make_tar(tmp_path / "y.tar", [m for m in members if m[0] != "b.cls"])
    with pytest.raises(DataError, match=r"b\.json has no label \(it has: caption"):
        open_source(tmp_path / "y.tar").scan()


def test_the_kind_of_source_is_told_by_what_is_there(tmp_path, shared_photos):
    make_tar(tmp_path / "flat" / "0.tar", PLAIN)
    make_tar(tmp_path / "split" / "train" / "0.tar", PLAIN)
    make_tar(shared_photos.parent / "beside" / "0.tar", PLAIN)
    assert open_source(shared_photos) == Folder(shared_photos)
    assert open_source(tmp_path / "flat").pattern == f"{tmp_path}/flat/*.tar"
    assert open_source(tmp_path / "split").pattern == f"{tmp_path}/split/*/*.tar"
    assert isinstance(open_source(tmp_path), Folder)
    assert isinstance(open_source("x.CSV"), FileList)
    assert isinstance(open_source("a/{0..9}"), TarShards)
    assert isinstance(open_source("nothing"), Folder)


def test_sources_have_names_and_addresses(tmp_path, monkeypatch):
    """A cache is called by the name; the address works from elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert TarShards("a/b/{0..9}.tar").name == "b"
    assert TarShards("b/x.tar").name == "x"
    assert TarShards("/*.tar").name == "shards"
    assert FileList(f"{tmp_path}/cars.csv").name == "cars"
    assert Folder(tmp_path / "cars").name == "cars"
    assert TarShards("b/*.tar").address == f"{tmp_path}/b/*.tar"
    assert FileList(f"{tmp_path}/cars.csv").address == f"{tmp_path}/cars.csv"


def test_patterns_stand_for_files_each_once(tmp_path):
    for name in ("a-08.tar", "a-09.tar", "a-10.tar", "b[1].tar"):
        (tmp_path / name).touch()
    names = ["a-08.tar", "a-09.tar", "a-10.tar"]
    expected = [str(tmp_path / name) for name in names]
    assert matching_files(f"{tmp_path}/a-{{10..08}}.tar") == expected
    assert matching_files(f"{tmp_path}/{{a,a}}-*.tar") == expected
    assert matching_files(f"{tmp_path}/b[1].tar") == [f"{tmp_path}/b[1].tar"]
    assert folder_of("*.tar") == "."
    assert folder_of("a/b{c,d}/*.tar") == "a"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("c.tar", r"no file matches c\.tar"),
        ("c*.tar", r"no file matches c\*\.tar"),
        (
            "{0..2}.tar",
            r"stands for 3 files, of which 2 cannot be found: 0\.tar, 2\.tar; write \*",
        ),
        ("{0..99999999}.tar", "stands for more than 100,000 files"),
    ],
)
def test_a_pattern_without_its_files_is_refused(tmp_path, monkeypatch, pattern, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1.tar").touch()
    with pytest.raises(DataError, match=reason):
        matching_files(pattern)


def test_a_place_survives_json(tmp_path):
    """As it goes to a worker's process, with any bytes in its names."""
    for place in (
        tmp_path / "caf\udce9.jpg",
        Member("/x/caf\udce9.tar", "a/b.jpg", 5, 6),
        Cell("/x/caf\udce9.parquet", "image", 1, 2, "00000003"),
        Object("s3://bucket/a b.jpg", 7),
    ):
        sent = json.dumps(location_to_json(place))
        assert location_from_json(json.loads(sent)) == place
