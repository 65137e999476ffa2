"""Scanning folders: what is refused, and what the error says."""

import errno
import os
import stat
from pathlib import Path

import pytest
from trees import SPLIT, TWO, FakeScandir, paths, tree

from featcache.core.errors import DataError
from featcache.vision.scan import scan


@pytest.mark.parametrize(
    ("files", "root", "match"),
    [
        pytest.param(
            (),
            "gone",
            r"there is no folder \S+gone; expected ROOT/class/image.jpg",
            id="missing",
        ),
        pytest.param(("f",), "f/below", "there is no folder", id="below a file"),
        pytest.param(
            ("x.zip",),
            "x.zip",
            r"x\.zip is a file, not a folder; expected ROOT",
            id="a file",
        ),
        pytest.param((), "x" * 300, "x cannot be read: File name too long", id="long"),
        pytest.param(("data/",), "data", "data is empty; expected ROOT", id="empty"),
        pytest.param(
            ("ants/", "bees/x.gif"),
            ".",
            r"no image in the class .* \(found: 1 .gif file, 2 empty class folders\)",
            id="no images",
        ),
        pytest.param(
            (".git/a.jpg", "notes.txt"),
            ".",
            r"no image .*\(found: 1 .txt file, 1 hidden folder\)",
            id="nothing visible",
        ),
        pytest.param(
            ("train/ants/", "val/ants/a.jpg"),
            ".",
            r"no image in the class folders of \S+/train",
            id="no images in train",
        ),
        pytest.param(
            ("ants/a.jpg",),
            ".",
            "images of only one class, ants; a classifier needs",
            id="one class",
        ),
        pytest.param(
            ("train/ants/a.jpg", "train/bees/", "val/ants/b.jpg"),
            ".",
            r"/train has images of only one class, ants",
            id="one class in train",
        ),
        pytest.param(
            ("sub/a.jpg", "sub/b.jpg"),
            "sub",
            r"sub holds 2 images directly instead of class folders; .*; sort the",
            id="unsorted",
        ),
        pytest.param(
            ("train/a.jpg", "test/b.jpg"),
            "train",
            "train holds 1 image directly .*; sort the images into one folder",
            id="an unsorted split",
        ),
        pytest.param(
            ("sub/a.jpg", "sub/notes/x.txt"),
            "sub",
            "holds 1 image directly instead",
            id="unsorted, with another folder",
        ),
        pytest.param(
            ("data/ants/a.jpg", "data/ants/deep/b.jpg", "data/bees/b.jpg"),
            "data/ants",
            r"ants holds 1 image directly instead .* one class of \S+/data: pass",
            id="a class with nested folders",
        ),
        pytest.param(
            ("data/ants/a.jpg", "data/bees/b.jpg"),
            "data/ants",
            r"looks like one class of \S+/data: pass that folder",
            id="a class",
        ),
        pytest.param(
            ("data/train/ants/a.jpg", "data/train/bees/b.jpg"),
            "data/train/ants",
            r"one class of \S+/data: pass",
            id="a class of train",
        ),
        pytest.param(
            (*SPLIT, "val/bees/b.jpg"),
            "val/ants",
            r"one class of \S+0: pass",
            id="a class of val",
        ),
        pytest.param(
            ("test/ants/a.jpg", "test/bees/b.jpg"),
            "test/ants",
            r"one class of \S+/test: pass",
            id="a class of a folder only called test",
        ),
        pytest.param(
            SPLIT,
            "train",
            r"train is one split of \S+, which also holds val: pass",
            id="a split",
        ),
        pytest.param(
            ("x/data/ants/a.jpg", "x/data/bees/b.jpg"),
            "x",
            r"no folder of \S+/x holds images directly, but \S+/x/data looks like a "
            "data set: pass that folder$",
            id="one level too high",
        ),
        pytest.param(
            tuple(f"x/data/{f}" for f in SPLIT),
            "x",
            r"x/data looks like a data set",
            id="one level above splits",
        ),
        pytest.param(
            tuple(f"x/y/z/{f}" for f in TWO),
            "x",
            r"x/y/z looks like a data set",
            id="two levels too high",
        ),
        pytest.param(
            tuple(f"{d}/{f}" for d in ("one", "two", "rest/deep") for f in SPLIT),
            ".",
            r"look like data sets: \S+/one, \S+/two; pass one \(or move all folders "
            r"into \S+/train, if they are nested classes\)",
            id="above two data sets",
        ),
        pytest.param(
            (*SPLIT, "valid/ants/a.jpg"),
            ".",
            r"holds both val and valid, .* same split \(val\); merge them",
            id="val twice",
        ),
        pytest.param(
            ("val/ants/a.jpg", "val/bees/a.jpg", "test/ants/a.jpg"),
            ".",
            r"has split folders \(test, val\) but train is missing",
            id="no train",
        ),
        pytest.param(
            ("train/a.jpg", "val/ants/a.jpg", "val/bees/a.jpg"),
            ".",
            r"split folders \(val\) but train holds no class folders",
            id="unsorted train",
        ),
        pytest.param(
            ("train/a.jpg", "test/b.jpg"),
            ".",
            "test, train hold images directly where",
            id="unsorted splits",
        ),
        pytest.param(
            (*SPLIT, "train/stray.jpg"),
            ".",
            "train holds 1 image beside its class folders; move",
            id="stray in train",
        ),
        pytest.param(
            ("train/ants/a.jpg", "train/bees/b.jpg", "train/stray.jpg"),
            ".",
            "train holds 1 image beside its class folders; move",
            id="stray, no val",
        ),
        pytest.param(
            (*SPLIT, "val/wasps/a.jpg"),
            ".",
            r"split val has classes that train has not: wasps; train has: ants, bees; "
            r"add images of them to \S+/train or take .* out of \S+/val",
            id="unknown class",
        ),
        pytest.param(
            (*SPLIT, "train/wasps/", "test/wasps/a.jpg"),
            ".",
            r"split test .* not: wasps; .*/train \(no image there of: wasps\) or",
            id="class without images in train",
        ),
    ],
)
def test_refused(tmp_path, files, root, match):
    """Each mistake gets one line: what is, what was expected, what to do."""
    tree(tmp_path, *files)
    with pytest.raises(DataError, match=match) as caught:
        scan(tmp_path / root)
    assert "\n" not in str(caught.value)


def test_a_relative_root_is_found_to_be_a_split(tmp_path, monkeypatch):
    """Inside a split folder, '.' is refused like its name."""
    monkeypatch.chdir(tree(tmp_path, *SPLIT) / "train")
    with pytest.raises(DataError, match="one split of"):
        scan(Path())


def test_a_folder_called_test_without_other_splits_is_a_data_set(tmp_path):
    """The name alone does not make a folder a split."""
    tree(tmp_path / "test", *TWO)
    tree(tmp_path / "train", "script.py")
    assert paths(scan(tmp_path / "test")) == [*TWO]


@pytest.mark.parametrize("folder", ["", "ants", "ants/deep"])
def test_an_unreadable_folder_is_named_with_the_reason(tmp_path, monkeypatch, folder):
    """The true cause is told, not that there are no images."""

    class Forbidden(FakeScandir):
        def changed(self, path, entries):
            if Path(os.fsdecode(path)) == tmp_path / folder:
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return entries

    tree(tmp_path, *TWO, "ants/deep/x.jpg")
    Forbidden(monkeypatch)
    with pytest.raises(
        DataError, match=rf"{folder} cannot be read: Permission denied; make"
    ):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("root", "match"),
    [
        ("ants", "sort the images into one folder per class$"),
        ("train", "only one class"),
    ],
)
def test_unreadable_neighbours_cost_only_the_hint(tmp_path, monkeypatch, root, match):
    """What lies above the data is nobody's business if it cannot be read."""

    class Forbidden(FakeScandir):
        def changed(self, folder, entries):
            if Path(os.fsdecode(folder)) == tmp_path:
                raise PermissionError(errno.EACCES, "Permission denied", folder)
            return entries

    tree(tmp_path, *TWO, "train/ants/a.jpg", "val/ants/a.jpg")
    Forbidden(monkeypatch)
    with pytest.raises(DataError, match=match):
        scan(tmp_path / root)


def test_a_folder_that_vanishes_meanwhile_is_an_error(tmp_path, monkeypatch):
    """Whoever moves folders during a scan is told so, with the folder's name."""

    class Vanishing(FakeScandir):
        def changed(self, folder, entries):
            if folder.endswith(b"train"):
                (tmp_path / "train/bees").rmdir()
            return entries

    tree(tmp_path, "train/ants/a.jpg", "train/bees/")
    Vanishing(monkeypatch)
    with pytest.raises(DataError, match="train/bees cannot be read: No such file"):
        scan(tmp_path)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
@pytest.mark.parametrize("folder", ["ants", "ants/deep"])
def test_permissions_on_a_real_folder(tmp_path, folder):
    """The same without patching anything."""
    tree(tmp_path, *TWO, "ants/deep/x.jpg")
    (tmp_path / folder).chmod(0)
    try:
        with pytest.raises(DataError, match="Permission denied"):
            scan(tmp_path)
    finally:
        (tmp_path / folder).chmod(stat.S_IRWXU)
