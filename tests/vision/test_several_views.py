"""Several views of one image: torchvision's pixels, decoded once, in batches."""

import hashlib

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional

from featcache.core.clock import Clock
from featcache.core.specs import AugmentSpec, ViewSpec
from featcache.core.status import Status
from featcache.core.viewed import view_counts, view_random
from featcache.vision import ways
from featcache.vision.augment import random_box
from featcache.vision.decode import decode, decode_view
from featcache.vision.pipeline import Extractor
from featcache.vision.rows import BlockRows
from featcache.vision.viewer import Viewer
from tests.conftest import picture
from tests.vision.pictures import encoded, noise

VIEW = ViewSpec(resize=40, crop=32)
HOW = AugmentSpec(seed=5)


def turned() -> bytes:
    """A JPEG file whose camera was held upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(noise(120, 80), "JPEG", exif=exif)


def torchvisions(data: bytes, view: int, how: AugmentSpec = HOW) -> np.ndarray:
    """The pixels of torchvision's two transforms with the same draws."""
    image = decode(data, VIEW)
    random = view_random(how, hashlib.sha256(data).digest(), view)
    left, top, right, lower = random_box(*image.size, random, how)
    height, width = lower - top, right - left
    size = [VIEW.crop, VIEW.crop]
    out = functional.resized_crop(image, top, left, height, width, size, antialias=True)
    if random.random() < how.flip:
        out = functional.hflip(out)
    return np.asarray(out)


@pytest.mark.parametrize("way", [Viewer.plain, Viewer.fastest])
@pytest.mark.parametrize(
    "data",
    [
        encoded(noise(90, 70), "JPEG"),
        encoded(noise(50, 130), "PNG"),
        encoded(noise(400, 20), "PNG"),
        encoded(noise(9, 9).convert("L"), "PNG"),
        turned(),
    ],
    ids=["jpeg", "tall", "long", "tiny grey", "turned"],
)
def test_views_are_torchvisions(way, data):
    """View 0 is the val view; the others resized_crop, then hflip, bit for bit."""
    digest = hashlib.sha256(data).digest()
    first, *others = way(VIEW).several(data, Clock(), digest, 6, HOW)
    assert np.array_equal(decode_view(data, VIEW), first)
    for view, found in enumerate(others, 1):
        assert np.array_equal(torchvisions(data, view), found)


def test_settings_of_the_augmentation_are_followed():
    """The whole image, never mirrored: every view is it, squeezed."""
    data = encoded(noise(64, 64), "PNG")
    how = AugmentSpec(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    digest = hashlib.sha256(data).digest()
    _, *others = Viewer.plain(VIEW).several(data, Clock(), digest, 4, how)
    expected = noise(64, 64).resize((32, 32), Image.Resampling.BILINEAR)
    for found in others:
        assert np.array_equal(np.asarray(expected), found)
    mirrored = AugmentSpec(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=1.0)
    found = Viewer.plain(VIEW).several(data, Clock(), digest, 2, mirrored)[1]
    assert np.array_equal(np.asarray(expected)[:, ::-1], found)


@pytest.fixture
def files(tmp_path):
    """Seven images, of which the third is damaged."""
    paths = [tmp_path / f"{i}.png" for i in range(7)]
    for seed, path in enumerate(paths):
        picture(seed, (150, 60, 40)).save(path)
    paths[2].write_bytes(paths[2].read_bytes()[:-60])
    return paths


class Embed:
    """A network of two numbers a view, which remembers its batches."""

    description = "mean and first pixel"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, pixels):
        self.sizes.append(len(pixels))
        rows = pixels.reshape(len(pixels), -1)
        return np.stack([rows.mean(axis=1), rows[:, 0]], axis=1).astype(np.float32)


def filled(files, batch_size, lookup=lambda _: None, views=3):
    """Fill seven rows, of which the last two are of val."""
    embed = Embed()
    counts = view_counts(np.array([0] * 5 + [1] * 2, np.uint8), views)
    rows = BlockRows.pending(7, (views, 2), "float32", counts)
    extractor = Extractor(embed, VIEW, batch_size, augment=HOW)
    extractor.fill(rows, files, lookup=lookup)
    return rows, embed


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 100])
def test_batches_are_of_views(files, batch_size):
    """Rows that end in the middle of a batch, one damaged, two with one view."""
    rows, embed = filled(files, batch_size)
    views = 4 * 3 + 2
    assert sum(embed.sizes) == views
    assert set(embed.sizes[:-1]) <= {batch_size}
    assert (rows.status == Status.OK).tolist() == [True] * 2 + [False] + [True] * 4
    assert list(rows.reasons) == [2]
    assert rows.computed == 6
    alone = Embed()
    for row in np.flatnonzero(rows.status == Status.OK).tolist():
        data = files[row].read_bytes()
        views = [decode_view(data, VIEW)]
        views += [torchvisions(data, v) for v in range(1, rows.counts[row])]
        found = rows.features[row]
        assert np.array_equal(alone(np.stack(views)), found[: len(views)])
        assert np.isnan(found[len(views) :]).all()
    assert rows.finite().tolist() == (rows.status == Status.OK).tolist()


def test_views_follow_the_bytes_alone(files, tmp_path):
    """Another name, row and order: the same views."""
    before, _ = filled(files, 4)
    moved = [tmp_path / f"other{i}.png" for i in range(7)]
    for path, other in zip(files[::-1], moved, strict=True):
        path.rename(other)
    after, _ = filled(moved, 4)
    assert np.array_equal(before.features[4], after.features[2])
    assert np.array_equal(before.features[3], after.features[3])


def test_known_rows_need_all_their_views(files):
    """What was in val before is computed again for train."""
    complete, _ = filled(files, 4)
    digest = complete.digests[0].tobytes()
    only_val = complete.features[0].copy()
    only_val[1:] = np.nan
    for known, again in ((complete.features[0], 0), (only_val, 3)):
        rows, embed = filled(files, 4, lambda d, k=known: k if d == digest else None)
        assert sum(embed.sizes) == 3 * 3 + 2 + again
        assert np.array_equal(complete.features, rows.features, equal_nan=True)


@pytest.fixture(autouse=True)
def asked_anew():
    """Forget between tests what was found to work."""
    yield
    for found in (ways.kernel_here, ways.jpeg_here, ways.objection_to_passes):
        found.cache_clear()
