"""Pixels: decoded once, kept exactly, in memory, in a file or nowhere."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, functional

from featcache.core.errors import BadImagesError, SpecError, StorageError
from featcache.core.seeds import generator
from featcache.core.specs import ViewSpec
from featcache.vision import pixels, shelves
from featcache.vision.augment import augment
from featcache.vision.pixels import load_images
from featcache.vision.shelves import choose_shelf
from featcache.vision.threads import Threads
from featcache.vision.viewer import Viewer
from featcache.vision.views import render
from featcache.vision.window import two_passes
from tests.vision.stored import make_manifest, opened

VIEW = ViewSpec(resize=40, crop=32)
# Ordinary, large, tiny, odd, long and tall ones.
SIZES = [(60, 50), (500, 375), (1, 1), (3, 7), (37, 23), (300, 20), (20, 300), (2, 90)]
ROWS = np.arange(len(SIZES))
STORES = ["ram", "disk", "off"]


@pytest.fixture(scope="module")
def threads():
    with Threads(2) as threads:
        yield threads


@pytest.fixture
def manifest(tmp_path):
    return make_manifest(tmp_path, SIZES)


@pytest.fixture
def load(manifest, tmp_path, threads):
    """Load the images of the folder; what is not told is as usual."""

    def load(**options):
        options = {"threads": threads, "folder": tmp_path, **options}
        return load_images(manifest, ROWS, options.pop("view", VIEW), **options)

    return load


def as_rgb(words):
    """Return the colours of words."""
    return words.view(np.uint8).reshape(*words.shape, 4)[..., :3]


def in_two_passes(view):
    """Return what is fastest where only Pillow is installed."""
    return Viewer(view, two_passes)


@pytest.mark.parametrize("way", [Viewer.fastest, in_two_passes, Viewer.plain])
@pytest.mark.parametrize("store", STORES)
def test_pixels_and_views_are_those_of_the_files(
    load, manifest, monkeypatch, store, way
):
    """Bit for bit, whole, fixed and random, with the compiled kernel and without."""
    monkeypatch.setattr(pixels.Viewer, "fastest", way)
    with load(store=store) as images:
        assert images.bad == ()
        np.testing.assert_array_equal(ROWS, images.rows)
        for i in ROWS.tolist():
            image = opened(manifest, i)
            np.testing.assert_array_equal(np.asarray(image), as_rgb(images.read(i)))
            np.testing.assert_array_equal(render(image, VIEW), images.fixed(i))
            for epoch in range(6):
                expected = augment(image, 32, generator(0, "a", epoch, i))
                found = images.drawn(i, generator(0, "a", epoch, i))
                np.testing.assert_array_equal(expected, found)


@pytest.mark.parametrize("store", STORES)
def test_threads_share_the_images(load, store):
    """Eight readers at once see what one sees."""
    with load(store=store) as images, ThreadPoolExecutor(8) as pool:
        rows = ROWS.tolist() * 12
        alone = [images.read(i).tobytes() for i in ROWS.tolist()] * 12
        assert alone == list(pool.map(lambda i: images.read(i).tobytes(), rows))


@pytest.mark.parametrize("store", ["ram", "disk"])
def test_each_image_is_decoded_once(load, monkeypatch, store):
    """However often it is looked at."""
    decoded = []
    words = Viewer.words

    def counted(self, data):
        decoded.append(len(data))
        return words(self, data)

    monkeypatch.setattr(Viewer, "words", counted)
    ticks = []
    with load(store=store, tick=ticks.append) as images:
        for _ in range(3):
            for i in ROWS.tolist():
                images.fixed(i)
    assert len(decoded) == len(SIZES) == sum(ticks)


@pytest.mark.parametrize("store", STORES)
def test_a_size_that_is_asked_for_is_torchvisions_resize(load, manifest, store):
    """Larger images are resized, smaller ones stay."""
    with load(store=store, size=40) as images:
        for i in ROWS.tolist():
            image = opened(manifest, i)
            if min(image.size) > 40:
                image = functional.resize(
                    image, 40, InterpolationMode.BILINEAR, antialias=True
                )
            np.testing.assert_array_equal(np.asarray(image), as_rgb(images.read(i)))


@pytest.mark.parametrize("policy", ["apply", "ignore"])
@pytest.mark.parametrize("store", STORES)
def test_the_cameras_rotation_is_the_views_policy(load, manifest, store, policy):
    """Kept images are as upright as the view wants them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = opened(manifest, 1)
    upright.save(manifest.file(1), exif=exif)
    expected = np.asarray(opened(manifest, 1))
    if policy == "apply":
        expected = np.rot90(expected, -1)
    with load(store=store, view=ViewSpec(resize=40, crop=32, exif=policy)) as images:
        np.testing.assert_array_equal(expected, as_rgb(images.read(1)))


@pytest.mark.parametrize("store", STORES)
def test_all_bad_images_are_named_at_once(load, manifest, store):
    """By path and reason, and each image was counted."""
    manifest.file(2).write_bytes(b"")
    manifest.file(5).unlink()
    ticks = []
    with pytest.raises(
        BadImagesError,
        match=r"2 images .*first .*02\.png: the file is "
        r"empty; .*or pass --on-error skip",
    ) as caught:
        load(store=store, tick=ticks.append)
    names = [Path(image.path).name for image in caught.value.images]
    assert names == ["02.png", "05.jpg"]
    assert sum(ticks) == len(SIZES)


@pytest.mark.parametrize("store", STORES)
def test_bad_images_can_be_left_out(load, manifest, store):
    """The others are there, and the bad ones are told."""
    data = manifest.file(1).read_bytes()
    manifest.file(1).write_bytes(data[: len(data) // 2])
    with load(store=store, on_error="skip") as images:
        assert images.rows.tolist() == [0, 2, 3, 4, 5, 6, 7]
        [bad] = images.bad
        assert bad.path.endswith("01.jpg")
        assert bad.reason.startswith("damaged: ")
        for i in images.rows.tolist():
            assert images.fixed(i).shape == (32, 32, 3)


def test_no_image_at_all_is_an_error_of_every_policy(load, manifest):
    """Nothing is left to train on, so skipping does not help and is not offered."""
    for i in ROWS.tolist():
        manifest.file(i).write_bytes(b"")
    with pytest.raises(BadImagesError, match=r"8 images cannot be used.*try again$"):
        load(on_error="skip")


@pytest.mark.parametrize("store", STORES)
def test_what_is_no_file_is_a_bad_image(load, manifest, store):
    """A pipe would wait for somebody who writes."""
    manifest.file(0).unlink()
    os.mkfifo(manifest.file(0))
    with load(store=store, on_error="skip") as images:
        assert [bad.reason for bad in images.bad] == ["not a regular file"]


def test_an_image_larger_than_its_header_told_is_decoded_anew(load, monkeypatch):
    """Some formats know their size only when they are decoded."""
    monkeypatch.setattr(pixels.Source, "room", lambda *_: 4 * 60 * 50)
    with load(store="ram") as kept, load(store="disk") as images:
        for i in ROWS.tolist():
            np.testing.assert_array_equal(kept.read(i), images.read(i))
        assert images.shelf.get(0) is not None
        assert images.shelf.get(1) is None


def test_the_file_has_no_name_and_ends_with_the_images(load, tmp_path):
    """No run can find what another left; and what is in use stays readable."""
    before = sorted(tmp_path.iterdir())
    images = load(store="disk")
    kept = images.read(1)
    expected = kept.copy()
    assert sorted(tmp_path.iterdir()) == before
    assert not kept.flags.writeable
    images.close()
    np.testing.assert_array_equal(expected, kept)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_too_small_is_an_error_before_the_first_image(
    load, monkeypatch, error
):
    """The file has its whole length from the start."""

    def full(*_):
        raise OSError(error, os.strerror(error))

    ticks = []
    monkeypatch.setattr(shelves.os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"cannot keep images in .*; make room"):
        load(store="disk", tick=ticks.append)
    assert ticks == []


def test_a_disk_that_fills_up_is_an_error(load, monkeypatch):
    """As it may where a file system promises no room."""

    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(shelves.os, "posix_fallocate", unsupported)
    with load(store="disk") as images, Path("/dev/full").open("wb", 0) as full:
        monkeypatch.setattr(images.shelf, "_file", full)
        with pytest.raises(StorageError, match="No space left on device; make room"):
            images.shelf.put(0, images.read(0))
        monkeypatch.undo()


def test_a_folder_that_is_not_there_is_an_error(load, tmp_path):
    """It is named."""
    with pytest.raises(StorageError, match=r"cannot keep images in .*missing"):
        load(store="disk", folder=tmp_path / "missing")


@pytest.mark.parametrize(
    ("store", "memory", "disk", "share", "chosen"),
    [
        pytest.param("auto", 4000, 0, 1, "ram", id="a quarter of the memory"),
        pytest.param("auto", 3999, 2000, 1, "disk", id="half of the disk"),
        pytest.param("auto", 3999, 1999, 1, "off", id="neither"),
        pytest.param("auto", 7999, 4000, 2, "disk", id="memory for two processes"),
        pytest.param("auto", 7999, 3999, 2, "off", id="disk for two processes"),
        pytest.param("ram", 1336, 0, 1, "ram", id="three quarters if asked for"),
        pytest.param("disk", 0, 1000, 1, "disk", id="the whole disk if asked for"),
        pytest.param("off", 9**9, 9**9, 1, "off", id="off if asked for"),
    ],
)
def test_images_are_kept_where_they_fit(
    monkeypatch, tmp_path, store, memory, disk, share, chosen
):
    """The description begins with where."""
    room(monkeypatch, memory, disk)
    shelf = choose_shelf({0: 600, 7: 400}, store, tmp_path, share)
    assert shelf.description.split(":")[0] == chosen
    shelf.close()


@pytest.mark.parametrize(
    ("store", "share", "error", "words"),
    [
        ("ram", 1, SpecError, "2 images take 1 kB .* three quarters .* 1.2 kB: use"),
        ("ram", 2, SpecError, "free memory, 600 B for each of 2 processes: use"),
        ("disk", 1, StorageError, "2 images take 1 kB .* has 900 B free; make"),
        ("disk", 3, StorageError, "has 300 B free for each of 3 processes; make"),
    ],
)
def test_what_was_asked_for_and_does_not_fit_is_an_error(
    monkeypatch, tmp_path, store, share, error, words
):
    """With the numbers, and what to do."""
    room(monkeypatch, 1200, 900)
    with pytest.raises(error, match=words):
        choose_shelf({0: 600, 7: 400}, store, tmp_path, share)


def room(monkeypatch, memory, disk):
    """Pretend that so many bytes are free."""
    monkeypatch.setattr(shelves, "available_memory", lambda: memory)
    monkeypatch.setattr(shelves, "_free", lambda _: disk)


def test_descriptions_tell_how_much_and_where(load, tmp_path):
    """For people and reports."""
    with load() as images:
        assert images.description == "ram: 8 images, 814 kB"
    with load(store="disk") as images:
        assert images.description == f"disk: 8 images, 814 kB in {tmp_path}"
    with load(store="off") as images:
        assert images.description == "off: every epoch decodes, as was asked for"
