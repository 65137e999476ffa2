"""Lists of files: CSV, TSV and JSON lines give the manifest that the folder gives."""

import csv
import io
import json
import os

import numpy as np
import pytest

from featcache.core.errors import DataError
from featcache.vision.scan import scan
from featcache.vision.sources.lists import FileList
from featcache.vision.sources.opening import open_source


def rows_of(photos, *, split=True):
    for path in sorted(photos.rglob("*.*"), reverse=True):  # in no order of ours
        name = path.relative_to(photos).as_posix()
        part, label, _ = name.split("/")
        yield {"path": name, "label": label, **({"split": part} if split else {})}


def write(path, rows):
    rows = list(rows)
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
        return path
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        how = {"delimiter": "\t"} if path.suffix == ".tsv" else {}
        writer = csv.DictWriter(file, list(rows[0]), **how)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_a_list_of_a_folder_is_that_folder(photos, ending):
    """Every column, whatever the order of the lines."""
    listed = open_source(write(photos / f"all.{ending}", rows_of(photos))).scan()
    folder = scan(photos)
    for name, column in folder.columns().items():
        assert np.array_equal(listed.columns()[name], column), name
    assert [listed.file(i) for i in range(len(listed))] == [
        folder.file(i) for i in range(len(folder))
    ]


def test_without_splits_a_fifth_is_held_out_by_path(photos, tmp_path):
    """As of a folder of classes: the same paths, the same split."""
    train = photos / "train"
    (tmp_path / "link").symlink_to(train)  # called train, it would be refused
    rows = [
        {"path": p.relative_to(train).as_posix(), "label": p.parent.name}
        for p in train.rglob("*.*")
    ]
    listed = open_source(write(train / "all.csv", rows)).scan()
    folder = scan(tmp_path / "link")
    assert np.array_equal(listed.paths, folder.paths)
    assert np.array_equal(listed.splits, folder.splits)
    assert set(listed.splits) == {0, 1}


def test_absolute_paths_lead_anywhere(shared_photos, tmp_path):
    rows = [
        {"path": str(shared_photos / row["path"]), "label": row["label"]}
        for row in rows_of(shared_photos)
    ]
    manifest = open_source(write(tmp_path / "all.csv", rows)).scan()
    assert all(manifest.file(i).is_file() for i in range(len(manifest)))


def test_numbered_classes_are_in_the_order_of_their_numbers(shared_photos, tmp_path):
    """Label 10 is the eleventh class, not the third."""
    rows = [
        {"path": str(shared_photos / row["path"]), "target": i % 11}
        for i, row in enumerate(rows_of(shared_photos))
    ]
    rows = [{**row, "split": "train"} for row in rows]
    manifest = open_source(write(tmp_path / "all.jsonl", rows)).scan()
    assert manifest.classes == tuple(map(str, range(11)))


def test_any_bytes_may_be_a_name(tmp_path):
    """CSV in Latin-1, as old programs write it."""
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    (tmp_path / "b.jpg").write_bytes(b"y")
    (tmp_path / "l.csv").write_bytes(b"path,label\n./caf\xe9.jpg,a\nb.jpg,b\xe9\n")
    manifest = open_source(tmp_path / "l.csv").scan()
    assert set(manifest.paths.tolist()) == {b"caf\xe9.jpg", b"b.jpg"}
    assert manifest.classes == ("a", "b\udce9")
    assert set(manifest.sizes.tolist()) == {1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "lists no image"),
        ("path,label\n", "lists no image"),
        (
            "name,label\na,b\n",
            r"its first line has no path \(it has: name, label; expected one",
        ),
        ("path,name\na,b\n", r"list\.csv: its first line has no label"),
        ("path,label,label\na,b,c\n", "names the column label twice; keep one"),
        ("path;label\na;b;c\n", "line 2 has 3 columns; the first line names 2"),
        ("path,file,label\na,b,c\n", "says the path more than once: path, file"),
        ("path,label\na.jpg,\n", "line 2: its label is empty"),
        ("path,label\na.jpg\n", "line 2 has 1 columns; the first line names 2"),
        ("path,label,split\na,b,dev\n", "line 2: there is no split 'dev'"),
        ("path,label\na,b\nc,d\na,d\n", "lists a twice, in lines 2 and 4"),
        ("path,label\na,b\nc,b\n", "only one class, b in train"),
        ("path,label,split\na,b,val\nc,d,val\n", "has no image in train"),
        ("path,label,split\na,b,train\nc,d,\n", "c has no split, though others have"),
        (
            "path,label,split\na,b,train\nc,d,train\ne,x,val\n",
            r"split val has classes that train has not: x \(1 image\); train has: b, d",
        ),
        ('path,label\n"a,b\n', "cannot be read: unexpected end of data"),
        ("path,label\na\0,b\n", "zero byte|cannot be read: line contains NUL"),
    ],
)
def test_a_wrong_table_is_refused_by_its_line(tmp_path, text, reason):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=reason):
        open_source(path).scan()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "line 1 is no JSON object"),
        ('{"path": "a", "label": true}', "its label is True, no text and no number"),
        ('{"path": "a", "label": null}', "its label is empty"),
        ('{"path": "a\\u0000", "label": 1}', "no path has a zero byte"),
        ('{"path": "a\\ud800", "label": 1}', r"line 1 is no text: 'a\\ud800'"),
        ("[" * 9999, "line 1 is not JSON: maximum recursion"),
        ('{"path": "a", "label": " "}', "its label is empty"),
        ('{"path": "s3://b/k?X-Amz-Signature=abc", "label": 1}', "holds credentials"),
    ],
)
def test_a_wrong_line_of_json_is_refused(tmp_path, text, reason):
    path = tmp_path / "list.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=reason):
        open_source(path).scan()


def test_a_list_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"there is no list .*gone\.csv"):
        open_source(tmp_path / "gone.csv").scan()


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder\.csv cannot be read: Is a directory"):
        FileList(f"{tmp_path}/folder.csv").scan()
    (tmp_path / "wide.csv").write_bytes(b"\xff\xfea")
    with pytest.raises(DataError, match=r"wide\.csv cannot be read: .* save it as UTF"):
        open_source(tmp_path / "wide.csv").scan()


@pytest.mark.parametrize(
    ("separator", "end", "encoding"),
    [(";", "\r\n", "utf-8-sig"), ("\t", "\n", "utf-16"), (",", "\r", "utf-8")],
)
def test_a_list_is_read_as_spreadsheets_write_it(photos, separator, end, encoding):
    """Semicolons of some countries, UTF-16, rows of nothing, spaces, quoted commas."""
    (photos / "train/ants/00.jpg").rename(photos / "train/ants/a, b; ü.jpg")
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator=end)
    writer.writerows([[], [" Path ", "Label", "split"]])
    for row in rows_of(photos):
        writer.writerows(
            [[row["path"], f" {row['label']} ", row["split"]], ["", "", ""]]
        )
    path = photos / "all.csv"
    path.write_bytes(out.getvalue().encode(encoding))
    listed, folder = open_source(path).scan(), scan(photos)
    for name, column in folder.columns().items():
        assert np.array_equal(listed.columns()[name], column), name


def test_files_may_be_called_by_file_urls(shared_photos, tmp_path):
    rows = [
        {"path": (shared_photos / row["path"]).as_uri(), "label": row["label"]}
        for row in rows_of(shared_photos)
    ]
    manifest = open_source(write(tmp_path / "all.csv", rows).as_uri()).scan()
    assert all(manifest.file(i).is_file() for i in range(len(manifest)))
    assert manifest.sizes.all()


def test_a_list_of_which_no_file_is_there_is_refused(tmp_path):
    """It lies in another folder than it was written for; one file there is enough."""
    rows = [{"path": f"{name}.jpg", "label": name} for name in "abc"]
    path = write(tmp_path / "all.csv", rows)
    with pytest.raises(
        DataError, match=rf"none of the 3 files .* at {tmp_path}/a\.jpg"
    ):
        open_source(path).scan()
    (tmp_path / "b.jpg").write_bytes(b"x")
    assert sorted(open_source(path).scan().sizes.tolist()) == [0, 0, 1]
