"""Known data sets: a name becomes a complete folder, any other word is a path."""

import hashlib
import io
from collections import Counter
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from featcache.core.errors import DataError, DownloadError
from featcache.core.progress import SILENT
from featcache.stages import datasets
from featcache.stages.datasets import KNOWN, KnownData, resolve_data
from featcache.stages.downloads import Checksum, RemoteFile

IMAGES = {
    "hymenoptera_data/train/ants/a.jpg": b"an ant",
    "hymenoptera_data/val/bees/b.jpg": b"a bee",
}


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip archive of these files."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def archive() -> bytes:
    """Give a small stand-in for the tutorial's archive, laid out the same."""
    return zipped(IMAGES)


@pytest.fixture
def publish(site, monkeypatch):
    """Have ``hymenoptera`` published on the local site."""

    def publish(body: bytes) -> RemoteFile:
        checksum = Checksum("sha256", hashlib.sha256(body).hexdigest())
        file = RemoteFile(site.publish("/h.zip", body), checksum, len(body))
        known = KnownData("hymenoptera_data", file)
        monkeypatch.setitem(datasets.KNOWN, "hymenoptera", known)
        return file

    return publish


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder by relative name."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_a_known_archive_becomes_its_folder(publish, archive, tmp_path, heard):
    """The name is fetched and unpacked; the archive does not stay."""
    publish(archive)
    found = resolve_data("hymenoptera", progress=heard, folder=tmp_path / "data")
    assert found == tmp_path / "data" / "hymenoptera_data"
    assert contents(tmp_path / "data") == IMAGES
    assert heard.tasks == [
        ("download h.zip", len(archive), "B"),
        ("unpack hymenoptera_data.zip", 2, "file"),
    ]


def test_a_known_folder_is_fetched_once(publish, archive, tmp_path, site):
    """The second time the folder is enough, even without a network."""
    publish(archive)
    first = resolve_data("hymenoptera", progress=SILENT, folder=tmp_path)
    site.close()
    assert resolve_data("hymenoptera", progress=SILENT, folder=tmp_path) == first


def test_an_archive_put_by_hand_is_used_and_kept(
    publish, archive, tmp_path, site, monkeypatch
):
    """Without a network the archive may come another way; it is its owner's."""
    publish(archive)
    monkeypatch.setenv("FEATCACHE_OFFLINE", "1")
    (tmp_path / "hymenoptera_data.zip").write_bytes(archive)
    resolve_data("hymenoptera", progress=SILENT, folder=tmp_path)
    assert contents(tmp_path) == {**IMAGES, "hymenoptera_data.zip": archive}
    assert site.requests == []


def test_another_archive_put_by_hand_is_refused(publish, archive, tmp_path):
    """What is unpacked is the published archive or nothing."""
    publish(archive)
    (tmp_path / "hymenoptera_data.zip").write_bytes(b"other")
    with pytest.raises(DownloadError, match=r"hymenoptera_data\.zip is not the publ"):
        resolve_data("hymenoptera", progress=SILENT, folder=tmp_path)
    assert list(contents(tmp_path)) == ["hymenoptera_data.zip"]


def test_offline_the_ways_out_are_named(publish, archive, tmp_path, monkeypatch):
    """Where to put the archive or its content, and what needs no network."""
    file = publish(archive)
    monkeypatch.setenv("FEATCACHE_OFFLINE", "1")
    expected = (
        f"cannot download {file.url}: FEATCACHE_OFFLINE is set; "
        f"put the file at {tmp_path}/hymenoptera_data.zip by hand, "
        f"or its content at {tmp_path}/hymenoptera_data; "
        "'digits' and folders of your own need no network"
    )
    with pytest.raises(DownloadError) as caught:
        resolve_data("hymenoptera", progress=SILENT, folder=tmp_path)
    assert str(caught.value) == expected


def test_an_archive_without_the_folder_is_refused(publish, tmp_path):
    """An archive of other things makes no folder."""
    publish(zipped({"something/else.txt": b""}))
    with pytest.raises(DataError, match="holds no folder 'hymenoptera_data'"):
        resolve_data("hymenoptera", progress=SILENT, folder=tmp_path)
    assert list(contents(tmp_path)) == ["hymenoptera_data.zip"]


def test_the_published_archives_are_pinned():
    """Addresses and whole digests are the publishers' own."""
    hymenoptera, hotdog = KNOWN["hymenoptera"].archive, KNOWN["hotdog"].archive
    assert hymenoptera is not None
    assert hotdog is not None
    assert hymenoptera.url.startswith("https://download.pytorch.org/tutorial/")
    assert hymenoptera.checksum.complete
    assert hymenoptera.size == 47286322
    assert hotdog.checksum == Checksum(
        "sha1", "fba480ffa8aa7e0febbb511d181409f899b9baa5"
    )
    assert hotdog.checksum.complete


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """Make the digits once."""
    folder = tmp_path_factory.mktemp("digits")
    return resolve_data("digits", progress=SILENT, folder=folder)


def test_digits_are_all_there(digits):
    """1,797 images of 10 classes, every fifth of each class for val."""
    rows = [p.relative_to(digits).parts for p in digits.rglob("*.png")]
    assert Counter(split for split, _, _ in rows) == {"train": 1442, "val": 355}
    per_class = Counter(label for _, label, _ in rows)
    val = Counter(label for split, label, _ in rows if split == "val")
    assert sorted(per_class) == list("0123456789")
    assert val == {label: count // 5 for label, count in per_class.items()}
    assert sorted(int(Path(name).stem) for _, _, name in rows) == list(range(1797))


def test_digits_are_scikit_learns(digits):
    """A file's pixels are its row's, 16 levels stretched to 255, under its label."""
    bundled = pytest.importorskip("sklearn.datasets").load_digits()
    for row in (0, 4, 1000, 1796):
        (file,) = digits.rglob(f"{row:04}.png")
        with Image.open(file) as image:
            assert image.mode == "L"
            pixels = np.asarray(image)
        np.testing.assert_array_equal(pixels, np.rint(bundled.images[row] * 255 / 16))
        assert file.parent.name == str(bundled.target[row])


def test_digits_made_twice_are_the_same_bytes(digits, tmp_path, heard):
    """Making them draws nothing at random and leaves no trace of the time."""
    again = resolve_data("digits", progress=heard, folder=tmp_path)
    assert contents(again) == contents(digits)
    assert heard.tasks == [("write digits", 1797, "image")]
    assert (heard.count, heard.ended) == (1797, 1)


def test_a_known_name_wins_over_a_folder_here(digits, tmp_path, monkeypatch):
    """A bare name is the data set; a path to a folder of that name is the folder."""
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    known = resolve_data("digits", progress=SILENT, folder=digits.parent)
    assert known == digits
    for path in ("./digits", Path("digits"), str(tmp_path / "digits")):
        found = resolve_data(path, progress=SILENT, folder=digits.parent)
        assert found.samefile(tmp_path / "digits")


@pytest.mark.parametrize("data", ["photos", "./nowhere", "no/where", Path("nothing")])
def test_anything_else_is_a_path(data, tmp_path, monkeypatch):
    """A folder that is there, and whatever can only be meant as a path."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    assert resolve_data(data, progress=SILENT) == Path(data)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param("hymenopter", "; did you mean 'hymenoptera'", id="a slip"),
        pytest.param("zebras", "'zebras' here and no known .*name \\(known", id="far"),
        pytest.param("", "no folder '' here", id="empty"),
    ],
)
def test_an_unknown_word_lists_the_known_names(data, told, tmp_path, monkeypatch):
    """A word that is neither there nor known is told what would have been."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=told) as caught:
        resolve_data(data, progress=SILENT)
    assert "(known: hymenoptera, hotdog, digits)" in str(caught.value)
