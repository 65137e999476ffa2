"""Tiles: pictures of what a cache knows, and words where there is none any more."""

import hashlib
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import featcache
from featcache.cli.main import main
from featcache.core.errors import DataError
from featcache.core.specs import ViewSpec
from featcache.core.status import Status
from featcache.stages.tiles import CHANGED, GONE, NO_FOLDER, OUTSIDE, TileSource
from featcache.store.writer import CacheWriter, create, partial_path
from featcache.vision.decode import decode_view, read_file
from featcache.vision.scan import scan
from featcache.vision.sources.folder import Folder
from tests.conftest import make_photos, picture
from tests.store.conftest import EMBED_DIM, PROVENANCE, Content, make_spec


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """A cache of a folder of its own; one file is no image, and no feature is real."""
    home = tmp_path_factory.mktemp("tiles")
    photos = make_photos(home / "photos", {"train": 4, "val": 1})
    (photos / "train/ants/broken.jpg").write_bytes(b"no image")
    manifest, file = scan(photos), home / "cache.h5"
    names = [manifest.file(row) for row in range(len(manifest))]
    bad = np.array([name.stem == "broken" for name in names])
    digests = b"".join(hashlib.sha256(name.read_bytes()).digest() for name in names)
    rows = {
        "features": np.zeros((len(names), EMBED_DIM), np.float32),
        "digests": np.frombuffer(digests, np.uint8).reshape(-1, 32),
        "status": np.where(bad, Status.NOT_AN_IMAGE, Status.OK).astype(np.uint8),
    }
    content = Content(manifest, make_spec(), rows)
    partial, told = partial_path(file), {**PROVENANCE, "data": str(photos)}
    create(partial, content.spec, manifest.columns(), EMBED_DIM, told)
    with CacheWriter(partial) as writer:
        content.write(writer, content.blocks())
        writer.finish(file)
    return file


@pytest.fixture
def source(extracted, tmp_path):
    """Its tiles, of a copy of the images that the test may change."""
    photos = shutil.copytree(extracted.parent / "photos", tmp_path / "photos")
    with featcache.open_cache(extracted) as cache:
        yield TileSource.of_cache(cache, Folder(photos))


def test_a_picture_of_several_files_is_not_called_by_their_pattern(
    extracted, tmp_path, monkeypatch
):
    """Windows has no such file names."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["show", str(extracted.parent / "[c]ach?.h5")])
    assert result.stdout == "runs/show-_c_ach_-train.png\n"


def row_of(source, name):
    return source.columns["paths"].tolist().index(name.encode())


def test_tiles_are_what_the_network_sees(source):
    """Of a cache and of a folder, in the order asked for."""
    of_folder = TileSource.of_manifest(scan(source.root), ViewSpec())
    rows = [3, 0, 5]
    for tiles in (source.tiles(rows), of_folder.tiles(rows)):
        for row, tile in zip(rows, tiles, strict=True):
            file = source.root / source.columns["paths"][row].decode()
            expected = decode_view(read_file(file), source.view)
            assert np.array_equal(tile.pixels, expected)
            assert tile.note == ""


def test_thumbnails_are_of_the_whole_image(source):
    (tile,) = source.tiles([0], longest=40)
    assert tile.pixels.shape == (30, 40, 3)


def test_a_cache_remembers_where_its_images_are(extracted):
    """Every row has its tile there."""
    with featcache.open_cache(extracted) as cache:
        tiles = list(TileSource.of_cache(cache).tiles(range(len(cache)), longest=8))
        assert [tile.pixels is None for tile in tiles] == (cache.status != 1).tolist()


def test_show_takes_the_view_and_the_folder_of_a_cache(extracted):
    """And refuses where that folder is no longer there."""
    photos = extracted.parent / "photos"
    with featcache.open_cache(extracted) as cache:
        of_cache, of_folder = featcache.show(cache), featcache.show(photos)
    for one, other in zip(
        of_cache.axes[0].images, of_folder.axes[0].images, strict=True
    ):
        assert np.array_equal(one.get_array(), other.get_array())
    photos.rename(extracted.parent / "moved")
    try:
        with pytest.raises(
            DataError, match=r"not known here: there is no .*; name the"
        ):
            featcache.show(extracted)
    finally:
        (extracted.parent / "moved").rename(photos)


def test_what_became_of_an_image_is_said_in_its_place(source):
    """Moved, another size, another content of the same size, damaged from the start."""
    train = source.root / "train/ants"
    (train / "00.jpg").unlink()
    (train / "01.jpg").write_bytes((train / "03.jpg").read_bytes() + b"x")
    swapped = bytearray((train / "02.png").read_bytes())
    swapped[-20] ^= 1
    (train / "02.png").write_bytes(swapped)
    expected = {
        "00.jpg": GONE,
        "01.jpg": CHANGED,
        "02.png": CHANGED,
        "broken.jpg": Status.NOT_AN_IMAGE.reason,
        "03.jpg": "",
    }
    rows = [row_of(source, f"train/ants/{name}") for name in expected]
    tiles = dict(zip(expected, source.tiles(rows, longest=20), strict=True))
    assert {name: tile.note for name, tile in tiles.items()} == expected
    assert [name for name, tile in tiles.items() if tile.pixels is not None] == [
        "03.jpg"
    ]


def test_an_image_of_a_folder_may_be_damaged(photos):
    (photos / "train/ants/00.jpg").write_bytes(b"no image")
    source = TileSource.of_manifest(scan(photos), ViewSpec())
    tile = source.tile(0)
    assert (tile.pixels, tile.note) == (None, "no image format that Pillow knows")


@pytest.mark.parametrize("root", ["missing", None], ids=["moved", "never known"])
def test_a_folder_that_is_not_here_is_said(source, root, tmp_path):
    moved = TileSource(root and tmp_path / root, source.view, source.columns)
    assert moved.tile(0).note == NO_FOLDER


@pytest.mark.parametrize(
    "path", [b"../secret.png", b"/etc/secret.png", b"a/../../s.png"]
)
def test_a_hostile_cache_shows_nothing_outside_its_folder(source, path, tmp_path):
    picture(0, (1, 2, 3)).save(tmp_path / "secret.png")
    paths = np.array([path])
    hostile = TileSource(source.root, source.view, {"paths": paths})
    assert hostile.tile(0).note == OUTSIDE


def test_what_crashes_the_decoder_is_not_tried(source):
    status = np.full_like(source.columns["status"], Status.QUARANTINED)
    columns = {**source.columns, "status": status}
    tile = TileSource(source.root, source.view, columns).tile(0)
    assert tile.note == Status.QUARANTINED.reason
