"""Loaders: batches in the right order, of one process or of several."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.core.errors import BadImagesError
from featcache.core.seeds import epoch_order, generator
from featcache.core.specs import ViewSpec
from featcache.vision import loaders
from featcache.vision.augment import augment
from featcache.vision.loaders import Loader
from featcache.vision.pixels import Images, load_images
from featcache.vision.threads import Threads
from featcache.vision.views import render
from tests.vision.stored import image_threads, make_manifest, opened

N = 11
ROWS = np.arange(N)
VIEW = ViewSpec(resize=40, crop=32)


@pytest.fixture(scope="module")
def threads():
    """Two threads that are ended."""
    with Threads(2) as threads:
        yield threads


@pytest.fixture(scope="module", params=["ram", "disk", "off"])
def images(request, tmp_path_factory, threads) -> Images:
    """Eleven images of noise, kept in each way."""
    folder = tmp_path_factory.mktemp("images")
    manifest = make_manifest(folder, [(60, 50)] * N)
    store = request.param
    with load_images(
        manifest, ROWS, VIEW, threads=threads, folder=folder, store=store
    ) as found:
        yield found


@pytest.fixture
def loader(images, threads) -> Loader:
    """All images in batches of four."""
    return Loader(images, ROWS, 4, threads)


def joined(batches):
    """Return the pixels and the labels of all batches."""
    pixels, labels = zip(*batches, strict=True)
    return np.concatenate(pixels), np.concatenate(labels)


def test_iterating_gives_the_fixed_views_in_order(loader, images):
    """Batches are the rendered views, row after row, the last one short."""
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    pixels, labels = joined(batches)
    expected = np.stack([render(opened(images.manifest, i), VIEW) for i in ROWS])
    np.testing.assert_array_equal(expected, pixels)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(images.manifest.labels, labels)


def test_augmented_batches_follow_from_seed_epoch_and_sample(loader, images):
    """Order is epoch_order's and each view depends on its own sample alone."""
    pixels, labels = joined(loader.augmented(2, seed=7))
    order = epoch_order(N, seed=7, epoch=2)
    manifest = images.manifest
    drawn = [
        augment(opened(manifest, i), 32, generator(7, "augment", 2, int(i)))
        for i in order
    ]
    np.testing.assert_array_equal(np.stack(drawn), pixels)
    np.testing.assert_array_equal(manifest.labels[order], labels)


def test_shuffled_batches_are_the_fixed_views_in_that_order(loader):
    """As the rows of a cache would come."""
    order = epoch_order(N, seed=7, epoch=2)
    fixed, labels = joined(loader)
    pixels, found = joined(loader.shuffled(2, seed=7))
    np.testing.assert_array_equal(fixed[order], pixels)
    np.testing.assert_array_equal(labels[order], found)


def test_single_images_are_those_of_the_batches(loader):
    """Whoever reads one by one gets the pixels that a batch would have."""
    read = loader.reader(3, seed=1)
    rows = np.concatenate(loader.shares(3, seed=1))
    alone = np.stack([read(row) for row in rows.tolist()])
    np.testing.assert_array_equal(joined(loader.augmented(3, seed=1))[0], alone)
    fixed = np.stack([loader.fixed(row) for row in ROWS.tolist()])
    np.testing.assert_array_equal(joined(loader)[0], fixed)


@given(
    count=st.integers(1, 5),
    batch_size=st.integers(1, N + 2),
    rows=st.lists(st.integers(0, N - 1), min_size=1, unique=True),
)
def test_processes_together_see_the_batches_of_one(
    images, threads, count, batch_size, rows
):
    """Equally many batches each, each cut into shares, and no row twice."""
    rows = np.array(rows)
    whole = Loader(images, rows, batch_size, threads)
    parts = [
        Loader(images, rows, batch_size, threads, (r, count)) for r in range(count)
    ]
    epochs = [list(part.augmented(1, seed=3)) for part in parts]
    for i, (pixels, labels) in enumerate(whole.augmented(1, seed=3)):
        for rank, epoch in enumerate(epochs):
            np.testing.assert_array_equal(pixels[rank::count], epoch[i][0])
            np.testing.assert_array_equal(labels[rank::count], epoch[i][1])
            assert epoch[i][0].shape[1:] == (32, 32, 3)
    assert {len(epoch) for epoch in epochs} == {i + 1}
    fixed, _ = joined(whole)
    for rank, part in enumerate(parts):
        np.testing.assert_array_equal(rows[rank::count], part.own)
        assert len(part) == len(rows)
        if len(part.own):
            np.testing.assert_array_equal(fixed[rank::count], joined(part)[0])
        else:
            assert list(part) == []


def test_rows_choose_the_samples(images, threads):
    """A loader of some rows gives those."""
    part = Loader(images, np.array([3, 8]), 4, threads)
    [(pixels, labels)] = list(part)
    assert len(part) == 2
    expected = render(opened(images.manifest, 8), VIEW)
    np.testing.assert_array_equal(expected, pixels[1])
    assert labels.tolist() == [1, 0]


@pytest.mark.parametrize("batch_size", [3, 10])
def test_the_number_of_threads_changes_nothing(images, batch_size):
    """One thread and five give the same batches."""
    results = []
    for workers in (1, 5):
        with Threads(workers) as threads:
            loader = Loader(images, ROWS, batch_size, threads)
            results.append(list(loader.augmented(0, seed=0)))
    for (a, x), (b, y) in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("share", [(0, 1), (3, 5)])
def test_working_ahead_changes_nothing(images, threads, share):
    """Batches made when they are asked for are the same, empty ones included."""
    one, other = (
        Loader(images, ROWS, 4, threads, share, ahead=a) for a in (True, False)
    )
    x, y = (list(loader.augmented(2, seed=0)) for loader in (one, other))
    assert len(x) == len(y)
    for (a, labels), (b, others) in zip(x, y, strict=True):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(labels, others)


@pytest.mark.parametrize(("spare", "passes"), [(0, 1), (-1, 2)])
def test_fixed_views_are_made_once_where_they_fit(
    images, threads, monkeypatch, spare, passes
):
    """The limit counts the bytes of all of them."""
    made = []

    def fixed(_, sample_index):
        made.append(sample_index)
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr(loaders, "KEPT_BYTES", N * 32 * 32 * 3 + spare)
    monkeypatch.setattr(Images, "fixed", fixed)
    loader = Loader(images, ROWS, 4, threads)
    assert loader.small is (passes == 1)
    first, second = joined(loader), joined(loader)
    assert sorted(made) == sorted(ROWS.tolist() * passes)
    np.testing.assert_array_equal(first[0], second[0])


def test_work_ahead_is_bounded(images, threads, monkeypatch):
    """A few batches are made before they are asked for, not the epoch."""
    made = []

    def drawn(_, sample_index, random):
        made.append((sample_index, random))
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr(Images, "drawn", drawn)
    rows = np.tile(ROWS, 30)
    batches = Loader(images, rows, 4, threads).augmented(0, seed=0)
    next(batches)
    batches.close()
    # One taken, and 2 a thread ahead, of four images each.
    assert len(made) <= 4 * (1 + 4)


def test_an_image_damaged_meanwhile_stops_the_epoch_by_name(tmp_path, threads):
    """Where every epoch decodes; what is kept is not read again."""
    manifest = make_manifest(tmp_path, [(60, 50)] * N)
    for store in ("off", "ram", "disk"):
        noise = manifest.file(4).read_bytes()
        with load_images(
            manifest, ROWS, VIEW, threads=threads, folder=tmp_path, store=store
        ) as images:
            manifest.file(4).write_bytes(b"no image")
            loader = Loader(images, ROWS, 4, threads)
            if store == "off":
                with pytest.raises(
                    BadImagesError, match=r"04\.png cannot be used: no image form"
                ):
                    list(loader.augmented(0, seed=0))
                with pytest.raises(BadImagesError, match=r"04\.png"):
                    list(loader)
            else:
                assert len(list(loader.augmented(0, seed=0))) == 3
        manifest.file(4).write_bytes(noise)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_threads_end_when_the_work_is_broken_off(tmp_path, error):
    """Neither an error nor Ctrl-C in the middle of an epoch leaves a thread."""
    manifest, before = make_manifest(tmp_path, [(60, 50)] * N), len(image_threads())

    def one_batch():
        with (
            Threads(3) as threads,
            load_images(
                manifest, ROWS, VIEW, threads=threads, folder=tmp_path
            ) as images,
        ):
            for _ in Loader(images, ROWS, 2, threads).augmented(0, seed=0):
                raise error

    with pytest.raises(error):
        one_batch()
    assert len(image_threads()) == before
