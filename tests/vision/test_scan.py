"""Scanning folders: layouts, order, columns, what is passed over."""

import os
from pathlib import Path

import numpy as np
import pytest
from trees import SPLIT, TWO, FakeScandir, any_bytes, paths, rows, tree

from featcache.core.manifest import TEST, TRAIN, VAL
from featcache.core.splits import hashed_splits
from featcache.vision.listing import IMAGE_SUFFIXES
from featcache.vision.scan import scan


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            SPLIT,
            [
                "train ants train/ants/a.jpg",
                "train bees train/bees/b.jpg",
                "val ants val/ants/v.jpg",
            ],
            id="train and val",
        ),
        pytest.param(
            (*SPLIT, "test/bees/t.jpg"),
            [
                "train ants train/ants/a.jpg",
                "train bees train/bees/b.jpg",
                "val ants val/ants/v.jpg",
                "test bees test/bees/t.jpg",
            ],
            id="three splits",
        ),
        pytest.param(
            ("TRAIN/ants/a.jpg", "TRAIN/bees/b.jpg", "Validation/bees/v.jpg"),
            [
                "train ants TRAIN/ants/a.jpg",
                "train bees TRAIN/bees/b.jpg",
                "val bees Validation/bees/v.jpg",
            ],
            id="other spelling of the splits",
        ),
        pytest.param(
            TWO, ["train ants ants/a.jpg", "train bees bees/b.jpg"], id="class folders"
        ),
        pytest.param(
            ("bus/a.jpg", "train/b.jpg", "test/c.jpg"),
            ["train bus bus/a.jpg", "train test test/c.jpg", "train train train/b.jpg"],
            id="classes called train and test",
        ),
        pytest.param(
            (
                "bus/a.jpg",
                "train/b.jpg",
                "train/steam/c.jpg",
                "val/d.jpg",
                "valid/e.jpg",
            ),
            [
                "train bus bus/a.jpg",
                "train train train/b.jpg",
                "train val val/d.jpg",
                "train valid valid/e.jpg",
                "val train train/steam/c.jpg",
            ],
            id="a class called train with nested folders",
        ),
        pytest.param(
            ("ants/a.jpg", "bees/2019/b.jpg", "bees/2020/c.jpg", "wasps/x/y/z/d.jpg"),
            [
                "train ants ants/a.jpg",
                "train bees bees/2019/b.jpg",
                "train wasps wasps/x/y/z/d.jpg",
                "val bees bees/2020/c.jpg",
            ],
            id="some classes nested",
        ),
        pytest.param(
            ("ants/images/a.jpg", "bees/images/b.jpg"),
            ["train ants ants/images/a.jpg", "train bees bees/images/b.jpg"],
            id="all classes nested in one folder each",
        ),
        pytest.param(
            (
                "train/ants/1/a.jpg",
                "train/bees/1/b.jpg",
                "train/bees/2/c.jpg",
                "val/ants/v.jpg",
            ),
            [
                "train ants train/ants/1/a.jpg",
                "train bees train/bees/1/b.jpg",
                "train bees train/bees/2/c.jpg",
                "val ants val/ants/v.jpg",
            ],
            id="all classes nested below train",
        ),
    ],
)
def test_layouts(tmp_path, files, expected):
    """Split, class and path of every image follow from the folders."""
    assert rows(scan(tree(tmp_path, *files))) == expected


MANY = [f"train/{c}/{i}.jpg" for c in ("ants", "bees") for i in range(20)]


@pytest.mark.parametrize(
    "files",
    [
        pytest.param([f.removeprefix("train/") for f in MANY], id="class folders"),
        pytest.param([*MANY, "test/ants/t.jpg"], id="train and test"),
        pytest.param([*MANY, "val/ants/"], id="val without images"),
    ],
)
def test_val_is_held_out_of_train_by_hash(tmp_path, files):
    """Without validation images, train is split by hash of the path, test is not."""
    manifest = scan(tree(tmp_path, *files))
    train = manifest.splits != TEST
    expected = hashed_splits(manifest.paths[train], manifest.labels[train])
    np.testing.assert_array_equal(manifest.splits[train], expected)
    assert {*expected.tolist()} == {TRAIN, VAL}
    assert (manifest.splits == TEST).sum() == sum(f.startswith("test") for f in files)


def test_columns_have_their_types_and_the_files_values(tmp_path):
    """Sizes and times are those of the files, in the documented types."""
    tree(tmp_path, *TWO)
    (tmp_path / TWO[0]).write_bytes(b"12345")
    os.utime(tmp_path / TWO[0], ns=(0, 1_234_567_890_123_456_700))
    manifest = scan(tmp_path)
    assert manifest.root == tmp_path
    assert manifest.sizes.tolist() == [5, 0]
    assert manifest.mtimes_ns[0] == 1_234_567_890_123_456_700
    types = {name: column.dtype for name, column in manifest.columns().items()}
    assert types == {
        "classes": np.dtype("S4"),
        "paths": np.dtype("S10"),
        "labels": np.int32,
        "splits": np.uint8,
        "sizes": np.int64,
        "mtimes_ns": np.int64,
    }


def test_a_root_relative_to_the_working_folder(tmp_path, monkeypatch):
    """The root may be '.', and paths stay relative to it."""
    monkeypatch.chdir(tree(tmp_path, *TWO))
    assert paths(scan(Path())) == [*TWO]


def test_every_image_suffix_in_any_case(tmp_path):
    """The extension decides, capital letters or not."""
    suffixes = [os.fsdecode(s) for s in IMAGE_SUFFIXES]
    files = [
        f"ants/{i}{s}" for i, s in enumerate(suffixes + [s.upper() for s in suffixes])
    ]
    assert paths(scan(tree(tmp_path, *files, "bees/b.Jpg"))) == sorted(
        [*files, "bees/b.Jpg"]
    )


@any_bytes
def test_any_byte_in_a_name(tmp_path):
    """Names that are no text, hold a newline or CJK characters stay as they are."""
    names = [
        b"\xff\xfe/\xff.jpg",
        b"a\nb/new\nline.jpg",
        "虫/蟻 .jpg".encode(),
        b"d\\e/\x01.jpg",
    ]
    manifest = scan(tree(tmp_path, *names))
    assert sorted(manifest.paths.tolist()) == sorted(names)
    assert [os.fsencode(c) for c in manifest.classes] == sorted(
        n.split(b"/")[0] for n in names
    )
    assert all(manifest.file(i).exists() for i in range(len(manifest)))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            ("ants/x.GIF", "x.gif", "ants/.x.jpg/y.gif"),
            {".gif file": 2, "hidden folder": 1},
            id="other suffix",
        ),
        pytest.param(
            (
                "ants/._a.jpg",
                ".DS_Store",
                "ants/.ipynb_checkpoints/a.jpg",
                ".git/a.jpg",
            ),
            {"hidden file": 2, "hidden folder": 2},
            id="hidden",
        ),
        pytest.param(
            ("__MACOSX/ants/a.jpg", "ants/__MACOSX/a.jpg"),
            {"__MACOSX folder": 2},
            id="macOS archive",
        ),
        pytest.param(
            ("ants/Thumbs.db", "README", "ants/a.1", "ants/b.2", "c.longer name"),
            {".db file": 1, "other file": 4},
            id="other files",
        ),
        pytest.param(
            ("wasps/", "notes/readme.txt"),
            {".txt file": 1, "empty class folder": 2},
            id="empty classes",
        ),
        pytest.param(
            ("a.jpg", "b.jpg"), {"unsorted image": 2}, id="images beside classes"
        ),
    ],
)
def test_what_is_passed_over_is_counted(tmp_path, files, expected):
    """Whatever is no sample is counted by kind, never dropped in silence."""
    manifest = scan(tree(tmp_path, *TWO, *files))
    assert manifest.ignored == expected
    assert paths(manifest) == [*TWO]


def test_what_lies_beside_the_splits_is_counted(tmp_path):
    """Folders, files and images next to and directly in split folders are counted."""
    extra = ("extra/x.jpg", "more/", "x.jpg", "val/y.jpg", "labels.csv", "test/z.png")
    manifest = scan(tree(tmp_path, *SPLIT, *extra))
    assert manifest.ignored == {
        ".csv file": 1,
        "non-split folder": 2,
        "unsorted image": 3,
    }
    assert paths(manifest) == [*SPLIT]


def test_describe_counts_in_good_english(tmp_path):
    """One line tells what was found and what was passed over."""
    manifest = scan(tree(tmp_path, *SPLIT, "val/.a", "val/.b", "val/x.gif"))
    assert manifest.describe() == (
        "3 images (train 2, val 1) of 2 classes; ignored: 1 .gif file, 2 hidden files"
    )


def test_empty_files_are_samples(tmp_path):
    """An image of no bytes is kept: the decoder says what is wrong with it."""
    assert scan(tree(tmp_path, *TWO)).sizes.tolist() == [0, 0]


def test_what_vanishes_meanwhile_is_counted(tmp_path, monkeypatch):
    """A file deleted between listing and stat is no crash."""

    class Vanishing(FakeScandir):
        def changed(self, folder, entries):
            if folder.endswith(b"train/ants"):
                (tmp_path / "train/ants/gone.jpg").unlink()
            return entries

    tree(tmp_path, *SPLIT, "train/ants/gone.jpg")
    Vanishing(monkeypatch)
    manifest = scan(tmp_path)
    assert manifest.ignored == {"vanished file": 1}
    assert paths(manifest) == [*SPLIT]
