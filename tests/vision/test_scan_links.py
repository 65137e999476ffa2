"""Scanning folders: links are followed, each folder once in a class; loops end."""

import contextlib
import os
import socket

import pytest
from trees import SPLIT, TWO, link, paths, posix, tree

from featcache.vision.scan import scan

pytestmark = posix


def test_special_files_are_never_opened(tmp_path):
    """A pipe or socket called .jpg would block its reader for ever."""
    tree(tmp_path, *TWO)
    os.mkfifo(tmp_path / "ants/pipe.jpg")
    link(tmp_path / "ants/link.jpg", "pipe.jpg")
    with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as server:
        server.bind("bees/socket.png")  # relative: a socket's path must be short
    manifest = scan(tmp_path)
    assert manifest.ignored == {"pipe or device file": 3}
    assert paths(manifest) == [*TWO]


def test_files_and_folders_are_followed(tmp_path):
    """A linked image has its target's size, a linked folder its images."""
    data = tree(tmp_path / "data", *TWO)
    tree(tmp_path / "store", "x.jpg", "wasps/w.jpg", "more/m.jpg")
    (tmp_path / "store/x.jpg").write_bytes(b"123")
    link(data / "ants/x.jpg", "../../store/x.jpg")
    link(data / "ants/nested", "../../store/more")
    link(data / "wasps", "../store/wasps")
    manifest = scan(data)
    expected = [*TWO, "ants/nested/m.jpg", "ants/x.jpg", "wasps/w.jpg"]
    assert paths(manifest) == sorted(expected)
    assert manifest.sizes.sum() == 3


@pytest.mark.parametrize(
    "target",
    [".", "..", "../..", "/", "../ants"],
    ids=["the class", "root", "above root", "the whole disk", "itself by name"],
)
def test_loops_end(tmp_path, target):
    """Two links upwards add no sample, wherever above they lead."""
    tree(tmp_path, *TWO)
    link(tmp_path / "ants/loop", target)
    link(tmp_path / "ants/again", target)
    manifest = scan(tmp_path)
    assert paths(manifest) == [*TWO]
    assert manifest.ignored == {"repeated folder": 2}


def test_real_folders_win_over_links(tmp_path):
    """A folder keeps its own path, though a link to it sorts first."""
    tree(tmp_path, *TWO, "ants/real/deep/c.jpg")
    link(tmp_path / "ants/a_link", "real/deep")
    manifest = scan(tmp_path)
    assert paths(manifest) == ["ants/a.jpg", "ants/real/deep/c.jpg", "bees/b.jpg"]
    assert manifest.ignored == {"repeated folder": 1}


def test_of_two_links_the_first_by_name_wins(tmp_path):
    """Which path a linked folder gets does not depend on the disk."""
    data = tree(tmp_path / "data", *TWO)
    tree(tmp_path / "store", "inner/s.jpg")
    for name in ("z", "y", "x"):
        link(
            data / "ants" / name,
            "../../store/inner" if name == "y" else "../../store",
        )
    manifest = scan(data)
    assert paths(manifest) == ["ants/a.jpg", "ants/x/inner/s.jpg", "bees/b.jpg"]
    assert manifest.ignored == {"repeated folder": 2}


def test_a_folder_may_belong_to_two_classes(tmp_path):
    """Only within one class is a folder entered once."""
    tree(tmp_path / "store", "s.jpg")
    data = tree(tmp_path / "data", *TWO)
    link(data / "ants/more", "../../store")
    link(data / "bees/more", "../../store")
    assert len(scan(data)) == 4


def test_links_to_nowhere_are_counted(tmp_path):
    """Broken, circular and impossible links are no samples."""
    tree(tmp_path, *TWO)
    targets = ("gone.jpg", "self.jpg", "a.jpg/below", "x" * 300)
    for name, target in zip(("gone", "self", "file", "long"), targets, strict=True):
        link(tmp_path / f"ants/{name}.jpg", "gone" if name == "gone" else target)
    manifest = scan(tmp_path)
    assert manifest.ignored == {"dangling link": 4}
    assert paths(manifest) == [*TWO]


def test_a_link_is_the_way_to_pass_one_split(tmp_path):
    """By another name, a split folder is a data set of its own."""
    tree(tmp_path, *SPLIT, "val/bees/v.jpg")
    link(tmp_path / "alone", "val")
    assert paths(scan(tmp_path / "alone")) == ["ants/v.jpg", "bees/v.jpg"]
