"""Loaders: batches in the right order, from threads that end."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featcache.core.errors import BadImagesError
from featcache.core.manifest import TRAIN, Manifest
from featcache.core.seeds import epoch_order, generator
from featcache.core.specs import ViewSpec
from featcache.vision import loaders
from featcache.vision.augment import augment
from featcache.vision.loaders import Loader, Threads, check_images
from featcache.vision.views import render

N = 11
VIEW = ViewSpec(resize=40, crop=32)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Eleven PNG files of noise, labels 0 and 1 in turn."""
    for i in range(N):
        pixels = generator(i, "pixels").integers(0, 256, (50, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    return Manifest(
        root=tmp_path,
        classes=("a", "b"),
        paths=np.array([f"{i:02}.png".encode() for i in range(N)]),
        labels=np.arange(N, dtype=np.int32) % 2,
        splits=np.full(N, TRAIN, np.uint8),
        sizes=np.zeros(N, np.int64),
        mtimes_ns=np.zeros(N, np.int64),
    )


@pytest.fixture
def threads():
    """Two threads that are ended."""
    with Threads(2) as threads:
        yield threads


@pytest.fixture
def loader(manifest, threads) -> Loader:
    """All images in batches of four."""
    return Loader(manifest, np.arange(N), VIEW, 4, threads)


def image_threads():
    """Return the threads of loaders that are alive."""
    return [t for t in threading.enumerate() if t.name.startswith("featcache-images")]


def opened(manifest, i):
    """Return the image of a sample."""
    return Image.open(manifest.file(i)).convert("RGB")


def test_iterating_gives_the_fixed_views_in_order(loader, manifest):
    """Batches are the rendered views, row after row, the last one short."""
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    pixels = np.concatenate([p for p, _ in batches])
    expected = np.stack([render(opened(manifest, i), VIEW) for i in range(N)])
    np.testing.assert_array_equal(expected, pixels)
    labels = np.concatenate([y for _, y in batches])
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(manifest.labels, labels)


def test_augmented_batches_follow_from_seed_epoch_and_sample(loader, manifest):
    """Order is epoch_order's and each view depends on its own sample alone."""
    batches = list(loader.augmented(2, seed=7))
    order = epoch_order(N, seed=7, epoch=2)
    expected = np.stack(
        [
            augment(opened(manifest, i), 32, generator(7, "augment", 2, int(i)))
            for i in order
        ]
    )
    np.testing.assert_array_equal(expected, np.concatenate([p for p, _ in batches]))
    np.testing.assert_array_equal(
        manifest.labels[order], np.concatenate([y for _, y in batches])
    )


def test_rows_choose_the_samples(manifest, threads):
    """A loader of some rows gives those, and augments them as any other loader."""
    rows = np.array([3, 8])
    part = Loader(manifest, rows, VIEW, 4, threads)
    [(pixels, labels)] = list(part)
    assert len(part) == 2
    np.testing.assert_array_equal(render(opened(manifest, 8), VIEW), pixels[1])
    assert labels.tolist() == [1, 0]


def test_the_number_of_threads_changes_nothing(manifest):
    """One thread and five give the same batches."""
    results = []
    for workers in (1, 5):
        with Threads(workers) as threads:
            loader = Loader(manifest, np.arange(N), VIEW, 3, threads)
            results.append(list(loader.augmented(0, seed=0)))
    for (a, x), (b, y) in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(x, y)


def test_zero_workers_means_one_per_core():
    """The default uses the cores there are."""
    with Threads(0) as threads:
        assert threads.workers >= 1


def test_work_is_done_ahead_but_not_far():
    """No more than the asked items are begun before results are taken."""
    begun = []
    with Threads(1) as threads:
        results = threads.ordered(lambda i: begun.append(i) or i, range(100), ahead=5)
        assert next(results) == 0
        results.close()
    assert len(begun) <= 6


def test_a_bad_image_stops_the_epoch_by_name(loader, manifest):
    """The error names path and reason of the image."""
    manifest.file(5).write_bytes(b"no image")
    with pytest.raises(BadImagesError, match=r"05\.png cannot be used: no image form"):
        list(loader.augmented(0, seed=0))
    with pytest.raises(BadImagesError, match=r"05\.png"):
        list(loader)


def test_checking_finds_all_bad_images_at_once(loader, manifest):
    """Every bad image is in the error, and each image was counted."""
    manifest.file(2).write_bytes(b"")
    manifest.file(9).unlink()
    ticks = []
    with pytest.raises(BadImagesError, match=r"2 images cannot be used, first .*02"):
        check_images([loader], ticks.append)
    with pytest.raises(BadImagesError) as caught:
        check_images([loader], ticks.append)
    names = [Path(image.path).name for image in caught.value.images]
    assert names == ["02.png", "09.png"]
    assert caught.value.images[0].reason == "the file is empty"
    assert sum(ticks) == 2 * N


def test_checking_good_images_says_nothing(loader):
    """Nothing is raised for images that can be used."""
    assert check_images([loader], lambda _: None) is None


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_threads_end_when_the_work_is_broken_off(manifest, error):
    """Neither an error nor Ctrl-C in the middle of an epoch leaves a thread."""

    def one_batch():
        with Threads(3) as threads:
            loader = Loader(manifest, np.arange(N), VIEW, 2, threads)
            for _ in loader.augmented(0, seed=0):
                raise error

    with pytest.raises(error):
        one_batch()
    assert image_threads() == []


def test_threads_end_with_work_they_never_began():
    """Closing waits for what is being done, not for what is queued."""
    done = []
    with Threads(1) as threads:
        results = threads.ordered(done.append, range(10_000), ahead=9_000)
        next(results)
    assert image_threads() == []
    assert len(done) < 10_000


@pytest.mark.parametrize(("spare", "small"), [(0, True), (-1, False)])
def test_small_means_that_all_views_fit_in_memory(loader, monkeypatch, spare, small):
    """The limit counts the bytes of all rendered views."""
    monkeypatch.setattr(loaders, "KEPT_BYTES", N * 32 * 32 * 3 + spare)
    assert loader.small is small
