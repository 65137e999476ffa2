"""Scanning folders: each image once, in one order, within a known memory."""

import contextlib
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import SPLIT, FakeScandir, any_bytes, link, posix, rows, tree

from featcache.vision import walk
from featcache.vision.scan import scan


@pytest.mark.parametrize("packed", [1, 3, 1000])
def test_rows_are_ordered_by_split_label_and_path_bytes(tmp_path, monkeypatch, packed):
    """Classes sort by the bytes of their names, paths by theirs, nested ones too."""
    monkeypatch.setattr(walk, "_CHUNK", packed)
    names = (
        "é/a.jpg",
        "B/a.jpg",
        "a/b/c.jpg",
        "a/b.jpg",
        "a/b!.jpg",
        "10/x.jpg",
        "9/x.jpg",
    )
    files = [f"{split}/{name}" for split in ("train", "val") for name in names]
    manifest = scan(tree(tmp_path, *files))
    assert manifest.classes == ("10", "9", "B", "a", "é")
    inside = [
        "10/x.jpg",
        "9/x.jpg",
        "B/a.jpg",
        "a/b!.jpg",
        "a/b.jpg",
        "a/b/c.jpg",
        "é/a.jpg",
    ]
    expected = [
        f"{split}/{name}".encode() for split in ("train", "val") for name in inside
    ]
    assert manifest.paths.tolist() == expected


NAMES = st.binary(min_size=1, max_size=4).filter(lambda b: not {0, 47} & set(b))
FOLDERS = st.lists(NAMES.map(lambda b: b"d" + b), max_size=2)
FILES = st.tuples(NAMES, st.sampled_from([b".jpg", b".PNG", b".gif", b""]))


@pytest.mark.slow
@any_bytes
@given(
    drawn=st.sets(
        st.tuples(
            st.sampled_from([b"train", b"val", b"test"]),
            st.sampled_from([b"ants", b"bees"]),
            FOLDERS.map(tuple),
            FILES.map(lambda parts: b"f" + parts[0] + parts[1]),
        ),
        max_size=12,
    ),
    order=st.randoms(use_true_random=False),
)
def test_every_image_once_sorted_in_whatever_order_it_came(drawn, order):
    """The manifest is the sorted list of images, however the tree was made."""
    files = {b"/".join((s, c, *folders, f)) for s, c, folders, f in drawn}
    files |= {b"train/ants/f.jpg", b"train/bees/f.jpg", b"val/ants/f.jpg"}
    images = {f for f in files if f[-4:].lower() in (b".jpg", b".png")}
    expected = sorted(images, key=lambda f: (b"train val test".index(f[:3]), f))
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            root = stack.enter_context(tempfile.TemporaryDirectory())
            tree(Path(root), *order.sample(sorted(files), len(files)))
            manifest = scan(Path(root))
            assert manifest.paths.tolist() == expected
            others = Counter(manifest.ignored) - Counter({"empty class folder": 12})
            assert others.total() == len(files) - len(images)


@posix
def test_the_disks_order_does_not_matter(tmp_path, monkeypatch):
    """Listed backwards, a folder with nested folders and links gives the same rows."""
    tree(tmp_path, *SPLIT, "train/ants/x/1.jpg", "train/ants/y/2.jpg", "train/z.txt")
    link(tmp_path / "train/bees/p", "../ants")
    link(tmp_path / "train/bees/q", "../ants/x")
    forwards = scan(tmp_path)

    class Backwards(FakeScandir):
        def changed(self, folder, entries):
            return sorted(entries, key=lambda e: e.name, reverse=True)

    Backwards(monkeypatch)
    backwards = scan(tmp_path)
    assert rows(backwards) == rows(forwards)
    assert list(backwards.ignored.items()) == list(forwards.ignored.items())


@pytest.fixture
def traced() -> Iterator[None]:
    """Trace allocations during one test."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_memory_is_below_200_bytes_a_sample(tmp_path):
    """A million samples cost less than 200 MB at the peak."""
    n = 10_000
    tree(tmp_path, *(f"class_{i % 2}/image_{i:09}.jpg" for i in range(n)))
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    manifest = scan(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    assert len(manifest) == n
    assert peak - before < 200 * n
