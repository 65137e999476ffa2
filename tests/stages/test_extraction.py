"""Extraction: what is computed, what is reused, and what is refused."""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

import featcache
from featcache.core.errors import (
    BadImagesError,
    CacheBusyError,
    CacheMismatchError,
    Interrupted,
    NumericError,
    StorageError,
)
from featcache.core.specs import ExtractSpec
from featcache.core.status import Status
from featcache.stages.sources import find_weights
from featcache.store.lock import writing
from tests.conftest import picture

COLUMNS = ("features", "labels", "splits", "paths", "digests", "status", "classes")


class Listener:
    """Progress that remembers, and may interrupt."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.lines: list[str] = []
        self.advanced = 0
        self.began_at: int | None = None
        self._stop_after = stop_after

    def begin(self, task, total, *, unit, done=0):
        self.began_at = done

    def advance(self, count):
        self.advanced += count
        if self._stop_after is not None and self.advanced >= self._stop_after:
            raise KeyboardInterrupt

    def end(self):
        pass

    def say(self, line):
        self.lines.append(line)

    def detail(self, line):
        """Not of interest here."""


def sampled_pixels(*_, **__):
    """A quick stand-in for a network: the feature is 512 pixels of the view."""

    def embed(pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(len(pixels), -1)[:, ::294].astype(np.float32)

    embed.description = "sampled pixels"
    return embed


@pytest.fixture
def quick(monkeypatch):
    """Put sampled pixels in the network's place: what is tested is around it."""
    monkeypatch.setattr("featcache.vision.forward.embedder", sampled_pixels)


@pytest.fixture
def extract(tmp_path):
    """Extract with random weights into one cache; the test's own folder."""

    def run(data: Path, spec: ExtractSpec | None = None, **settings):
        settings = {
            "weights": "random:0",
            "cache": tmp_path / "cache" / "it.h5",
            **settings,
        }
        return featcache.extract(data, spec, **settings)

    return run


def contents(cache) -> dict[str, bytes]:
    return {name: cache.columns[name].tobytes() for name in COLUMNS}


def age(folder: Path, seconds: int = 3600) -> None:
    """Make every file look old enough to be trusted by its time."""
    for path in folder.rglob("*.*"):
        status = path.stat()
        then = status.st_mtime_ns - seconds * 10**9
        os.utime(path, ns=(then, then))


def test_features_equal_torchvisions_network(shared_photos, extract):
    """Every row is what torchvision's network gives for the weights' own transform."""
    cache = extract(shared_photos)
    source = find_weights("resnet18", "random:0")
    network = get_model("resnet18", weights=None)
    network.fc = torch.nn.Identity()
    network.load_state_dict(source.load(), strict=False)
    transform = _reference_transform()
    images = [
        transform(Image.open(shared_photos / os.fsdecode(p)).convert("RGB"))
        for p in cache.paths
    ]
    with torch.inference_mode():
        expected = network.eval()(torch.stack(images)).numpy()
    error = np.abs(cache.features().X - expected).max() / np.abs(expected).max()
    assert error < 1e-5


def _reference_transform():
    from torchvision.models import ResNet18_Weights

    return ResNet18_Weights.IMAGENET1K_V1.transforms()


def test_a_second_run_computes_nothing(quick, photos, extract):
    """The report counts what was computed and what was reused; the file is kept."""
    first = extract(photos)
    before = first.path.stat().st_mtime_ns
    again = extract(photos)
    assert (first.report.computed, first.report.reused) == (20, 0)
    assert (again.report.computed, again.report.reused) == (0, 20)
    assert again.path.stat().st_mtime_ns == before


def test_the_summary_of_the_folder_is_told(quick, photos, extract):
    """What was found and what was passed over is said, never silent."""
    (photos / "train" / "ants" / "notes.gif").touch()
    listener = Listener()
    extract(photos, progress=listener)
    assert listener.lines == [
        "20 images (train 12, val 8) of 2 classes; ignored: 1 .gif file"
    ]


@pytest.mark.parametrize("stop_after", [1, 9])
def test_an_interrupted_run_goes_on_and_ends_in_equal_bytes(
    quick, photos, extract, tmp_path, stop_after
):
    """Ctrl-C keeps finished blocks; the next run computes only the rest."""
    whole = extract(photos, cache=tmp_path / "whole.h5")
    one = ExtractSpec(workers=1)
    with pytest.raises(Interrupted, match="run the same command again to go on"):
        extract(photos, one, progress=Listener(stop_after))
    assert not (tmp_path / "cache" / "it.h5").exists()
    listener = Listener()
    resumed = extract(photos, one, progress=listener)
    assert 0 < resumed.report.computed < 20
    assert resumed.report.computed + listener.began_at == 20
    assert contents(resumed) == contents(whole)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["it.h5"]


def test_only_new_content_is_computed(quick, photos, extract, tmp_path):
    """Rename a class, touch files, edit one image, add ten, delete five: eleven."""
    extract(photos)
    (photos / "train" / "ants").rename(photos / "train" / "wasps")
    (photos / "val" / "ants").rename(photos / "val" / "wasps")
    for path in (photos / "train" / "bees").iterdir():
        os.utime(path, (1e9, 1e9))
    picture(77, (1, 2, 3)).save(photos / "train" / "wasps" / "00.jpg")
    for number in range(10):
        picture(90 + number, (9, 9, 9)).save(photos / "val" / "bees" / f"n{number}.png")
    for number in range(1, 6):
        next((photos / "train" / "bees").glob(f"{number:02d}.*")).unlink()
    changed = extract(photos)
    assert (changed.report.computed, changed.report.reused) == (11, 14)
    fresh = extract(photos, cache=tmp_path / "fresh.h5")
    assert contents(changed) == contents(fresh)


def test_an_interrupted_run_on_a_folder_that_changed_loses_nothing(
    quick, photos, extract, tmp_path
):
    """Finished rows of an unfinished cache serve the folder's next state."""
    with pytest.raises(Interrupted):
        extract(photos, ExtractSpec(workers=1), progress=Listener(8))
    picture(5, (3, 3, 3)).save(photos / "train" / "ants" / "aaa.png")
    cache = extract(photos)
    assert cache.report.computed < 21
    fresh = extract(photos, cache=tmp_path / "fresh.h5")
    assert contents(cache) == contents(fresh)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["it.h5"]


def test_two_interruptions_around_a_change_lose_nothing(
    quick, photos, extract, tmp_path
):
    """Rows of the folder's earlier state serve however often the new run stops."""
    broken(photos)
    with pytest.raises(BadImagesError):
        extract(photos)
    picture(5, (3, 3, 3)).save(photos / "train" / "ants" / "aaa.png")
    with pytest.raises(Interrupted):
        extract(photos, ExtractSpec(workers=1), progress=Listener(1))
    cache = extract(photos, ExtractSpec(on_error="skip"))
    assert cache.report.computed <= 1
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["it.h5"]


@pytest.mark.parametrize("name", ["", "."])
def test_a_cache_needs_a_file_name(photos, extract, name):
    """A folder is no place for a cache itself."""
    with pytest.raises(StorageError, match="is a folder; expected the name of a file"):
        extract(photos, cache=name)


def replace_quietly(bitmap: Path) -> None:
    """Put another picture in place, of equal size and time."""
    old = bitmap.stat()
    picture(123, (50, 50, 50)).save(bitmap)
    os.utime(bitmap, ns=(old.st_mtime_ns, old.st_mtime_ns))
    assert bitmap.stat().st_size == old.st_size


def test_equal_size_and_time_are_not_enough_for_a_file_just_written(
    quick, photos, extract
):
    """An image replaced within the clock's tick of the first read is noticed."""
    path = photos / "train" / "ants" / "a.bmp"
    picture(50, (5, 5, 5)).save(path)
    extract(photos)
    replace_quietly(path)
    assert extract(photos).report.computed == 1


def test_rehash_reads_what_time_and_size_would_vouch_for(quick, photos, extract):
    """An old file changed under the same size and time is found by --rehash alone."""
    path = photos / "train" / "ants" / "a.bmp"
    picture(50, (5, 5, 5)).save(path)
    age(photos)
    extract(photos)
    replace_quietly(path)
    assert extract(photos).report.computed == 0
    assert extract(photos, ExtractSpec(rehash=True)).report.computed == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet34"}, "backbone is 'resnet18' in the file, 'resnet34'"),
        ({"weights": "random:1"}, "weights_sha256 is"),
        ({"exif": "ignore"}, "view.exif is 'apply' in the file, 'ignore'"),
        ({"precision": "bfloat16"}, "precision is 'float32' in the file, 'bfloat16'"),
        ({"dtype": "float16"}, "dtype is 'float32' in the file, 'float16'"),
    ],
)
def test_other_settings_are_refused_by_name(quick, photos, extract, settings, message):
    """The field and both values are named; --overwrite replaces the file."""
    extract(photos)
    with pytest.raises(CacheMismatchError, match=message) as caught:
        extract(photos, **settings)
    assert "--overwrite" in str(caught.value)
    replaced = extract(photos, ExtractSpec(overwrite=True), **settings)
    assert replaced.report.computed == 20


def test_an_unfinished_cache_of_other_settings_is_refused(quick, photos, extract):
    """Half-done work is not thrown away unasked."""
    with pytest.raises(Interrupted):
        extract(photos, ExtractSpec(workers=1), progress=Listener(8))
    with pytest.raises(CacheMismatchError, match=r"it\.h5\.partial was made with"):
        extract(photos, dtype="float16")


def broken(photos: Path) -> Path:
    """Cut one training image short and empty one validation image."""
    first = photos / "train" / "ants" / "00.jpg"
    first.write_bytes(first.read_bytes()[:-300])
    (photos / "val" / "bees" / "01.jpg").write_bytes(b"")
    return photos


def test_bad_images_are_all_named_and_the_rest_is_kept(quick, photos, extract):
    """One pass reports every bad image; skipping them afterwards computes nothing."""
    broken(photos)
    with pytest.raises(BadImagesError, match="2 of 20 images cannot be used") as error:
        extract(photos)
    assert [(i.path, i.reason.split(":")[0]) for i in error.value.images] == [
        ("train/ants/00.jpg", "damaged"),
        ("val/bees/01.jpg", "the file is empty"),
    ]
    cache = extract(photos, ExtractSpec(on_error="skip"))
    assert (cache.report.computed, cache.report.skipped) == (0, 2)
    assert len(cache.features("train")) == 11
    assert np.isnan(cache.columns["features"][cache.status != Status.OK]).all()
    assert [i.path for i in cache.report.bad_images] == [
        "train/ants/00.jpg",
        "val/bees/01.jpg",
    ]
    with pytest.raises(BadImagesError):
        extract(photos)


def test_a_mended_image_is_computed_alone(quick, photos, extract):
    """After a bad image is replaced, the next run forwards just that one."""
    broken(photos)
    with pytest.raises(BadImagesError):
        extract(photos)
    picture(8, (9, 8, 7)).save(photos / "train" / "ants" / "00.jpg")
    picture(9, (9, 8, 7)).save(photos / "val" / "bees" / "01.jpg")
    assert extract(photos).report.computed == 2


def test_a_folder_of_nothing_but_bad_images_is_an_error(quick, photos, extract):
    """Even skipping needs something to keep."""
    for path in photos.rglob("*.*"):
        path.write_bytes(b"no image")
    with pytest.raises(BadImagesError, match="20 of 20 images"):
        extract(photos, ExtractSpec(on_error="skip"))


def test_two_writers_are_told_of_each_other(quick, photos, extract, tmp_path):
    """While somebody holds the cache, another extraction is refused at once."""
    target = tmp_path / "cache" / "it.h5"
    with writing(target), pytest.raises(CacheBusyError, match=f"process {os.getpid()}"):
        extract(photos)


def test_a_complete_cache_needs_no_lock(quick, photos, extract, tmp_path):
    """An unchanged folder is answered even while somebody holds the cache."""
    extract(photos)
    with writing(tmp_path / "cache" / "it.h5"):
        assert extract(photos).report.computed == 0


def test_a_full_disk_is_found_before_the_first_image(
    quick, photos, extract, monkeypatch
):
    """The whole file is allocated first; nothing half-written stays."""
    usage = shutil.disk_usage(photos)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"needs .* kB but its disk has 10 kB free"):
        extract(photos)
    assert list((photos.parent / "cache").iterdir()) == []


def test_half_precision_stores_the_rounded_features(quick, photos, extract, tmp_path):
    """--dtype float16 is float32's features, rounded once."""
    single = extract(photos)
    half = extract(photos, cache=tmp_path / "half.h5", dtype="float16")
    expected = single.features().X.astype(np.float16)
    assert np.array_equal(half.features().X, expected)


def test_overflow_names_image_and_remedy(photos, extract, monkeypatch):
    """A feature above 65504 does not become infinity in silence."""

    def enormous(pixels):
        return np.full((len(pixels), 512), 1e5, np.float32)

    enormous.description = "enormous"
    monkeypatch.setattr("featcache.vision.forward.embedder", lambda *_, **__: enormous)
    with pytest.raises(NumericError, match="not finite in float16; pass --dtype"):
        extract(photos, dtype="float16")


@pytest.mark.slow
def test_workers_and_batches_do_not_change_features(photos, extract, tmp_path):
    """One thread and batches of one give the default's features to 1e-5."""
    default = extract(photos).features().X
    spec = ExtractSpec(workers=1, batch_size=1)
    single = extract(photos, spec, cache=tmp_path / "one.h5").features().X
    assert np.abs(default - single).max() <= 1e-5 * np.abs(default).max()


def test_threads_of_the_caller_keep_their_cores(photos, extract):
    """Extraction gives each worker one core and puts torch's setting back."""
    before = (torch.get_num_threads(), threading.active_count())
    extract(photos)
    assert (torch.get_num_threads(), threading.active_count()) == before
