"""Tables of images: Parquet and Arrow, as they are and as Hugging Face saves them."""

import os
import re
import threading

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from featcache.core.errors import DataError, DependencyError  # noqa: E402
from featcache.core.manifest import TRAIN, VAL  # noqa: E402
from featcache.vision.reading import read_bytes, size_and_time  # noqa: E402
from featcache.vision.scan import scan  # noqa: E402
from featcache.vision.sources import cells  # noqa: E402
from featcache.vision.sources import tables as module  # noqa: E402
from featcache.vision.sources.folder import Folder  # noqa: E402
from featcache.vision.sources.opening import open_source  # noqa: E402
from featcache.vision.sources.shared import Shared  # noqa: E402
from featcache.vision.sources.tables import Tables  # noqa: E402
from tests.tables import HUGGING_FACE, write_arrow, write_parquet  # noqa: E402

STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.fixture(params=["parquet", "hf-parquet", "stream", "feather"])
def tables(request, shared_photos, tmp_path):
    """The shared photos, a file for each split, three rows a group."""
    for split in ("train", "val"):
        folder, kind = shared_photos / split, request.param
        if kind.endswith("parquet"):
            path = tmp_path / "t" / f"{split}-0.parquet"
            write_parquet(folder, path, hugging_face=kind.startswith("hf"))
        else:
            feather = kind == "feather"
            ending = "feather" if feather else "arrow"
            write_arrow(folder, tmp_path / "t" / f"{split}.{ending}", feather=feather)
    return tmp_path / "t"


def test_tables_hold_the_images_of_their_folder(tables, shared_photos):
    """Bytes, labels, classes and splits; paths are the file's and the row's number."""
    folder, manifest = scan(shared_photos), open_source(tables).scan()
    assert manifest.classes == folder.classes
    for name in ("labels", "splits"):
        assert np.array_equal(getattr(manifest, name), getattr(folder, name)), name
    places = [manifest.file(i) for i in range(len(manifest))]
    expected = [folder.file(i).read_bytes() for i in range(len(folder))]
    assert [*map(read_bytes, places)] == expected
    first = min(tables.iterdir())
    assert manifest.paths[11] == f"{first.name}/00000011".encode()
    assert os.fspath(places[11]) == f"{first}/00000011"
    status = first.stat()
    assert size_and_time(places[0]) == (status.st_size, status.st_mtime_ns)
    assert (manifest.sizes[0], manifest.mtimes_ns[0]) == size_and_time(places[0])


def test_threads_that_want_one_group_read_it_once(tables, monkeypatch):
    """And in any order: what was read is kept for those who come soon."""
    manifest = open_source(tables).scan()
    read, group = [], cells.TableFile.group

    def counted(self, column, number):
        read.append(number)
        return group(self, column, number)

    monkeypatch.setattr(cells.TableFile, "group", counted)
    monkeypatch.setattr(cells, "_groups", Shared(8))
    threads = [
        threading.Thread(target=read_bytes, args=[manifest.file(row)])
        for row in [0, 1, 2, 1, 0, 2] * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [0]


def test_a_rewritten_file_is_read_anew(shared_photos, tmp_path):
    path = write_parquet(shared_photos / "train", tmp_path / "x.parquet")
    place = open_source(path).scan().file(0)
    before = read_bytes(place)
    write_parquet(shared_photos / "val", path)
    assert read_bytes(place) != before


def write(path, rows=4, **columns):
    columns = {"image": [b"x"] * rows, **columns}
    pq.write_table(pa.table(columns), path)
    return path


def test_folders_may_say_split_and_label(tmp_path):
    """As Spark's partitionBy writes them; a class called test is no split."""
    for split in ("train", "val"):
        for label in ("test", "a%20b"):
            folder = tmp_path / "d" / f"split={split}" / f"label={label}"
            folder.mkdir(parents=True)
            write(folder / "part-0.parquet", rows=2)
            (folder / "._SUCCESS.crc").touch()
    source = open_source(tmp_path / "d")
    assert source.name == "d"
    manifest = source.scan()
    assert manifest.classes == ("a b", "test")
    assert manifest.labels.tolist() == [0, 0, 1, 1] * 2
    assert manifest.splits.tolist() == [TRAIN] * 4 + [VAL] * 4
    assert read_bytes(manifest.file(5)) == b"x"


def test_views_of_bytes_are_images(tmp_path):
    """As polars writes them."""
    data = pa.array([b"x", b"y" * 99, b"z"], pa.binary_view())
    labels = pa.array(["a", "b", "a"], pa.string_view())
    path = tmp_path / "x.feather"
    with pa.ipc.new_file(
        path, pa.schema([("i", data.type), ("label", labels.type)])
    ) as out:
        out.write(pa.record_batch([data, labels], ["i", "label"]))
    manifest = open_source(path).scan()
    assert read_bytes(manifest.file(1)) == b"y" * 99
    assert manifest.classes == ("a", "b")


def test_a_file_of_one_large_group_is_warned_of(tmp_path, monkeypatch, shared_photos):
    """As pandas writes them: a million rows in one."""
    monkeypatch.setattr(module, "_LARGE", 9_000)
    write_parquet(shared_photos / "train", tmp_path / "t/x.parquet", 3)
    write_parquet(shared_photos / "val", tmp_path / "t/y.parquet", 9)
    said = []
    open_source(tmp_path / "t", tell=said.append).scan()
    (line,) = said
    assert re.search(r"y\.parquet has a group of rows of [0-9.]+ kB, and each", line), (
        line
    )
    write_parquet(shared_photos / "val", tmp_path / "hf.parquet", 9, hugging_face=True)
    open_source(tmp_path / "hf.parquet", tell=said.append).scan()
    assert len(said) == 2


def test_large_groups_are_let_go_of(tmp_path, monkeypatch):
    """Two of them are kept at least, so that threads at a border do not fight."""
    write(tmp_path / "x.parquet", rows=9, label=[0, 1, 2] * 3)
    pq.write_table(pq.read_table(tmp_path / "x.parquet"), tmp_path / "y.parquet", 1)
    manifest = open_source(tmp_path / "y.parquet").scan()
    kept = Shared(1, lambda column: column.nbytes)
    monkeypatch.setattr(cells, "_groups", kept)
    for row in range(9):
        read_bytes(manifest.file(row))
    assert len(kept._held) == len(kept._weights) == 2


def test_splits_are_said_by_a_column(tmp_path):
    write(tmp_path / "x.parquet", label=[0, 1, 0, 1], split=["train"] * 3 + ["valid"])
    assert open_source(tmp_path).scan().splits.tolist() == [TRAIN] * 3 + [VAL]


def test_several_columns_of_bytes_are_told_apart_by_name(tmp_path):
    write(tmp_path / "x.parquet", label=[0, 1, 0, 1], mask=[b""] * 4)
    assert open_source(tmp_path).scan().file(0).column == "image"


def test_files_are_a_source_wherever_they_lie(tmp_path, shared_photos):
    """Straight in a folder, in those of splits, as datasets saves them; or not."""
    write_parquet(shared_photos / "train", tmp_path / "a" / "train" / "0.parquet")
    write_parquet(shared_photos / "train", tmp_path / "b" / "0.parquet")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "dataset_dict.json").touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "state.json").touch()
    found = {name: open_source(tmp_path / name) for name in "abcd"}
    assert found["a"] == Tables(f"{tmp_path}/a/*/*.parquet", "a")
    assert found["b"] == Tables(f"{tmp_path}/b/*.parquet", "b")
    assert found["c"] == Tables(f"{tmp_path}/c/*/data-*.arrow", "c")
    assert found["d"] == Tables(f"{tmp_path}/d/data-*.arrow", "d")
    (tmp_path / "b" / "0.tar").touch()
    assert isinstance(open_source(tmp_path / "b"), Folder)  # which says what it misses
    assert Tables("x/a.parquet").name == "a"
    assert Tables("/*.parquet").name == "tables"
    assert Tables("/a/*.parquet").name == "a"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"label": [0, 1, None, 1]}, r"x\.parquet: row 2 has no label"),
        ({"label": [0.5] * 4}, "label is 0.5, no text and no whole number"),
        (
            {"label": [0, 1, 0, 1], "image": ["a"] * 4},
            r"no column of image bytes \(it has: image of string, label of int64",
        ),
        ({"label": [["a"], ["b"]] * 2}, "label is of list<.*>, no text and no whole"),
        ({"label": ["", "a", "b", "c"]}, "label has an empty class name"),
        ({"name": [1] * 4}, r"has no label \(it has: image, name"),
        ({"label": [0, 1] * 2, "cls": [1] * 4}, "says the label more than once"),
        ({"label": [0, 1] * 2, "split": ["dev"] * 4}, "split: there is no split 'dev'"),
        (
            {"label": [0, 1] * 2, "split": ["train"] * 3 + [None]},
            "00000003 has no split, though others have one",
        ),
        (
            {"label": [0, 1] * 2, "image": None, "a": [b""] * 4, "b": [b""] * 4},
            "has several columns of bytes: a, b; call the one with the images image",
        ),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, columns, reason):
    columns = {"image": [b"x"] * 4, **columns}
    table = pa.table({name: c for name, c in columns.items() if c is not None})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=reason):
        open_source(tmp_path / "x.parquet").scan()


def test_a_number_without_a_class_name_is_refused(tmp_path):
    images = pa.array([{"bytes": b"", "path": None}], STRUCT)
    table = pa.table({"image": images, "label": [2]})
    table = table.replace_schema_metadata(HUGGING_FACE)
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="label is 2, but there are 2 class names"):
        open_source(tmp_path / "x.parquet").scan()


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_a_file_that_is_no_table_is_refused(tmp_path, ending):
    (tmp_path / f"x.{ending}").write_bytes(b"no table" * 100)
    with pytest.raises(DataError, match=rf"x\.{ending} is damaged, or no table at all"):
        open_source(tmp_path / f"x.{ending}").scan()


def test_an_empty_table_is_refused(tmp_path):
    empty = pa.array([], pa.binary())
    write(tmp_path / "x.parquet", image=empty, label=pa.array([], pa.string()))
    with pytest.raises(DataError, match="no image is in"):
        open_source(tmp_path / "x.parquet").scan()


def test_a_table_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "x.parquet", label=[0, 1, 0, 1])

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", f"{tmp_path}/x.parquet")

    monkeypatch.setattr(pq, "ParquetFile", refuse)
    with pytest.raises(DataError, match=r"x\.parquet cannot be read: Permission"):
        open_source(tmp_path / "x.parquet").scan()


def test_rows_without_bytes_are_bad_images(tmp_path):
    """Null, or a data set that was saved with paths alone."""
    images = [{"bytes": None, "path": "a.jpg"}, {"bytes": b"x", "path": None}, None]
    table = pa.table({"image": pa.array(images, STRUCT), "label": ["a", "b", "a"]})
    pq.write_table(table, tmp_path / "x.parquet")
    manifest = open_source(tmp_path / "x.parquet").scan()
    for row in (0, 2):
        with pytest.raises(OSError, match="its row holds no bytes"):
            read_bytes(manifest.file(row))
    assert read_bytes(manifest.file(1)) == b"x"


def test_a_file_that_became_shorter_has_bad_images(tmp_path):
    path = write(tmp_path / "x.parquet", label=[0, 1, 0, 1])
    place = open_source(path).scan().file(3)
    pq.write_table(pa.table({"image": [b"x"], "label": [0]}), path)
    with pytest.raises(OSError, match="its row holds no bytes"):
        read_bytes(place)
    path.write_bytes(b"nothing")
    with pytest.raises(OSError, match="Parquet"):
        read_bytes(place)


def test_without_pyarrow_it_is_said_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "x.parquet", label=[0, 1, 0, 1])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"pip install 'featcache\[parquet\]'"):
        open_source(path).scan()
