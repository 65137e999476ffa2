"""Shards whose headers are remembered: the same manifest, without reading them."""

import io
import json
import tarfile
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.core.errors import DataError
from featcache.stages.datasets import data_source, index_folder
from featcache.store.indexes import ShardIndexes
from featcache.vision.sources import shards as shards_module
from featcache.vision.sources.shards import TarShards
from tests.shards import age, make_tar


@pytest.fixture(autouse=True)
def few_are_worth_it(monkeypatch, tmp_path):
    """Shards of one image are remembered, too; in a folder of the test's own."""
    monkeypatch.setattr(shards_module, "_WORTH_SAVING", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


def members(count, start=0):
    for number in range(start, start + count):
        yield f"{number:03d}.jpg", b"x" * (number % 7)
        yield f"{number:03d}.cls", b"%d" % (number % 3)


def make_shards(folder, count=3, images=9):
    for number in range(count):
        path = folder / f"{number}.tar"
        make_tar(path, members(images, number * images))
        age(path)
    return folder


def everything(manifest):
    """Return all that a manifest says, to be compared."""
    columns = {name: values.tolist() for name, values in manifest.columns().items()}
    places = [manifest.file(i) for i in range(len(manifest))]
    return columns, places, dict(manifest.ignored), manifest.index.lengths


def tar_headers_read(monkeypatch):
    """Return a list that grows with each shard whose headers are read."""
    read, known = [], shards_module.tar_members

    def counted(windows):
        read.append(windows.length)
        return known(windows)

    monkeypatch.setattr(shards_module, "tar_members", counted)
    return read


def test_the_second_start_reads_no_header(tmp_path, monkeypatch):
    data = make_shards(tmp_path / "data")
    read = tar_headers_read(monkeypatch)
    first = everything(data_source(data).scan())
    assert len(read) == 3
    assert everything(data_source(data).scan()) == first
    assert len(read) == 3
    assert everything(data_source(data, fresh=True).scan()) == first
    assert len(read) == 6
    assert index_folder() == tmp_path / "user/featcache/shards"
    assert len(list(index_folder().iterdir())) == 3
    assert {path.name for path in data.iterdir()} == {"0.tar", "1.tar", "2.tar"}


@settings(max_examples=25)
@given(st.data())
def test_with_an_index_is_as_without(tmp_path_factory, data):
    """Any names, labels, sizes and other members; by any pattern of the same files."""
    folder = tmp_path_factory.mktemp("shards")
    keys = st.text("abcé/. ", min_size=1, max_size=130).filter(
        lambda key: all(part.strip(".") for part in key.split("/"))
    )
    seen = set()
    for number in range(data.draw(st.integers(1, 3))):
        names = data.draw(st.lists(keys, min_size=2, max_size=6, unique=True))
        kind = data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
        (folder / "sub").mkdir(exist_ok=True)
        path = folder / "sub" / f"{number}.tar"
        with tarfile.open(path, "w", format=kind) as tar:
            for at, name in enumerate(names):
                key = f"{number}{at}/{name.replace('.', '_')}"
                for ending, body in (
                    (".jpg", bytes(data.draw(st.integers(0, 700)))),
                    (".json", json.dumps({"label": f"c{at % 2}"}).encode()),
                    (data.draw(st.sampled_from([".txt", ".b.png", ".é"])), b"?"),
                ):
                    info = tarfile.TarInfo(key + ending)
                    info.size = len(body)
                    tar.addfile(info, io.BytesIO(body))
                seen.add(key)
        age(path)
    saved = ShardIndexes(folder / "user", pytest.fail)
    for pattern in (f"{folder}/sub/*.tar", f"{folder}/*/*.tar"):
        without = everything(TarShards(pattern).scan())
        for _ in range(2):
            assert everything(TarShards(pattern, saved=saved).scan()) == without
    assert len(without[1]) == len(seen)
    assert len(list((folder / "user").iterdir())) == number + 1


def test_a_changed_shard_alone_is_read_again(tmp_path, monkeypatch):
    """Of the same length too: only its time tells."""
    data = make_shards(tmp_path / "data")
    before = data_source(data).scan()
    make_tar(data / "1.tar", members(9, 100))
    age(data / "1.tar", 1800)
    read = tar_headers_read(monkeypatch)
    after = data_source(data).scan()
    assert read == [(data / "1.tar").stat().st_size]
    changed = np.char.startswith(after.paths, b"1.tar/")
    assert after.paths[changed][0] == b"1.tar/100.jpg"
    assert np.array_equal(after.paths[~changed], before.paths[~changed])
    assert everything(after) == everything(data_source(data, fresh=True).scan())


def test_damaged_indexes_are_made_anew(tmp_path, monkeypatch):
    data = make_shards(tmp_path / "data")
    first = everything(data_source(data).scan())
    sound = {path: path.read_bytes() for path in index_folder().iterdir()}
    for path, body in sound.items():
        path.write_bytes(body.replace(b".jpg", b".jpX"))
    read = tar_headers_read(monkeypatch)
    assert everything(data_source(data).scan()) == first
    assert len(read) == 3
    assert {path: path.read_bytes() for path in index_folder().iterdir()} == sound


def test_of_a_shard_that_was_cut_off_nothing_is_remembered(tmp_path):
    """Each start says so."""
    data = make_shards(tmp_path / "data", count=2)
    whole = (data / "1.tar").read_bytes()
    (data / "1.tar").write_bytes(whole[: len(whole) // 2])
    age(data / "1.tar")
    for _ in range(2):
        told = []
        saved = ShardIndexes(index_folder(), pytest.fail)
        TarShards(f"{data}/*.tar", True, told.append, saved).scan()
        assert len(told) == 1
        assert "was cut off; the images before are used" in told[0]
    with pytest.raises(DataError, match=r"1\.tar .* was cut off; copy it again"):
        data_source(data).scan()
    assert len(list(index_folder().iterdir())) == 1


def test_a_young_shard_is_not_remembered(tmp_path, monkeypatch):
    """It may change once more within a tick of the clock."""
    data = make_shards(tmp_path / "data", count=2)
    make_tar(data / "1.tar", members(9, 9))
    data_source(data).scan()
    read = tar_headers_read(monkeypatch)
    data_source(data).scan()
    assert len(read) == 1


def test_small_shards_are_read_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "_WORTH_SAVING", 10)
    data_source(make_shards(tmp_path / "data")).scan()
    assert not index_folder().exists()


def test_a_remote_shard_is_not_streamed_again(tmp_path, monkeypatch):
    """Its size and time are asked for, nothing else."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    data = make_shards(tmp_path / "data")
    for path in data.iterdir():
        memory.pipe(f"/saved/{path.name}", path.read_bytes())
        memory.store[f"/saved/{path.name}"].created = datetime(2020, 1, 1, tzinfo=UTC)
    first = everything(data_source("memory://saved/*.tar").scan())
    monkeypatch.setattr(shards_module, "opened", None)
    assert everything(data_source("memory://saved/*.tar").scan()) == first
    memory.rm("/saved", recursive=True)


def test_without_xdg_it_lies_in_the_home(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert index_folder() == tmp_path / "home/.cache/featcache/shards"
