"""Disks that are too small, fill up, forbid writing: a clear error, and a way on."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import featcache
from featcache.core.errors import StorageError
from featcache.core.specs import ExtractSpec
from featcache.store import files
from tests.conftest import picture
from tests.trust.zygote import contents, sampled_pixels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts Linux's tmpfs")

IMAGES = 100  # a cache of about 230 kB
PAGE = 4096


class Watcher:
    """Progress that acts once, after the first block."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.act, self.advanced = act, 0

    def begin(self, task, total, *, unit, done=0):
        pass

    def advance(self, count):
        self.advanced += count
        act, self.act = self.act, lambda: None
        act()

    def end(self):
        pass

    def say(self, line):
        pass

    def detail(self, line):
        """Not of interest here."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A hundred small images of two classes."""
    root = tmp_path_factory.mktemp("data") / "photos"
    for number in range(IMAGES):
        folder = root / "train" / ("ants", "bees")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number, (number, 90, 40), (40, 30)).save(folder / f"{number:03d}.png")
    return root


@pytest.fixture(autouse=True)
def decoded(monkeypatch) -> list[int]:
    """Replace the network, and count the images that reach the decoder."""
    from featcache.vision.viewer import Viewer

    count, decode = [0], Viewer.__call__

    def counted(*args):
        count[0] += 1
        return decode(*args)

    monkeypatch.setattr(Viewer, "__call__", counted)
    monkeypatch.setattr(
        "featcache.vision.forward.embedder", lambda *_, **__: sampled_pixels
    )
    return count


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory) -> dict[str, bytes]:
    """What the cache holds when nothing is in the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "featcache.vision.forward.embedder", lambda *_, **__: sampled_pixels
        )
        cache = tmp_path_factory.mktemp("whole") / "it.h5"
        extract(data, cache)
        return contents(cache)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A real file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def mount(*words) -> None:
    done = subprocess.run(["mount", *words], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"mounting needs root: {done.stderr.decode().strip()}")


def extract(data: Path, cache: Path, progress: Watcher | None = None):
    return featcache.extract(
        data,
        ExtractSpec(workers=1),
        weights="random:0",
        cache=cache,
        progress=progress or Watcher(),
    )


def eat(path: Path, leave: int = 0) -> None:
    """Take the rest of a disk, but for some bytes."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while shutil.disk_usage(path.parent).free > leave:
            file.write(bytes(PAGE))


@contextmanager
def no_file_above(length: int):
    """Limit the size of files, as ``ulimit -f`` does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_too_small_a_disk_is_found_before_the_first_image(data, disk, decoded):
    """The message says what is needed and what is there; nothing stays."""
    eat(disk / "other", leave=100_000)
    with pytest.raises(StorageError, match=r"needs .* kB but its disk has .* kB free"):
        extract(data, disk / "it.h5")
    assert decoded == [0]
    assert names(disk) == ["other"]


@pytest.mark.slow
def test_space_that_others_take_later_is_ours_already(data, disk, expected):
    """A disk that fills up after the start does not stop the extraction."""
    extract(data, disk / "it.h5", Watcher(lambda: eat(disk / "other")))
    # The kernel counts tmpfs pages by core: a few are free again, or not counted yet.
    assert shutil.disk_usage(disk).free < 16 * PAGE < (disk / "it.h5").stat().st_size
    assert contents(disk / "it.h5") == expected


@pytest.mark.slow
def test_a_disk_that_fills_up_midway_stops_and_goes_on(
    data, disk, expected, decoded, monkeypatch
):
    """Where space cannot be set aside: a clear message, and no image twice."""
    monkeypatch.delattr(os, "posix_fallocate")
    with pytest.raises(StorageError, match="No space left on device; make room and"):
        extract(data, disk / "it.h5", Watcher(lambda: eat(disk / "other")))
    assert names(disk) == ["it.h5.partial", "other"]
    (disk / "other").unlink()
    before = decoded[0]
    assert 8 <= before < IMAGES
    extract(data, disk / "it.h5")
    assert contents(disk / "it.h5") == expected
    assert decoded[0] - before <= IMAGES - before + 8  # the block that failed


@pytest.mark.parametrize("fallocate", [True, False], ids=["allocated", "sparse"])
def test_a_limit_on_file_sizes_is_found_before_the_first_image(
    data, tmp_path, decoded, monkeypatch, fallocate
):
    """RLIMIT_FSIZE: the message names the limit; nothing stays."""
    if not fallocate:
        monkeypatch.delattr(os, "posix_fallocate")
    folder = tmp_path / "cache"
    with (
        no_file_above(100_000),
        pytest.raises(StorageError, match=r"File too large; .* \(ulimit -f\)"),
    ):
        extract(data, folder / "it.h5")
    assert decoded == [0]
    assert names(folder) == []


@pytest.mark.slow
def test_a_read_only_disk_is_refused_and_its_caches_serve(data, disk, decoded):
    """Nothing can be written there, but an unchanged folder needs nothing written."""
    extract(data, disk / "it.h5")
    mount("-o", "remount,ro", disk)
    assert extract(data, disk / "it.h5").report.computed == 0
    before = decoded[0]
    with pytest.raises(StorageError, match="Read-only file system; choose a folder"):
        extract(data, disk / "more.h5")
    assert decoded[0] == before
    with featcache.open_cache(disk / "it.h5") as cache:
        cache.check()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(data, tmp_path, decoded):
    """The message says to choose another folder."""
    tmp_path.chmod(0o555)
    with pytest.raises(StorageError, match="Permission denied; choose a folder"):
        extract(data, tmp_path / "it.h5")
    assert decoded == [0]


@pytest.mark.slow
def test_a_quota_that_is_used_up_stops_and_goes_on(
    data, tmp_path, expected, monkeypatch
):
    """EDQUOT, as the system gives it, is told like a full disk."""
    cache, real, calls = tmp_path / "it.h5", os.pwrite, []

    def limited(*args):
        calls.append(1)
        if len(calls) > 30:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", limited)
        with pytest.raises(StorageError, match="quota exceeded; make room and run"):
            extract(data, cache)
    assert names(tmp_path) == ["it.h5.partial"]
    extract(data, cache)
    assert contents(cache) == expected


@pytest.mark.slow
def test_a_file_that_another_host_put_in_place_is_not_published(data, tmp_path):
    """Where locks do not reach, an unfinished file of another never gets the name."""
    partial, other = tmp_path / "it.h5.partial", tmp_path / "other"

    def intrude() -> None:
        other.write_bytes(partial.read_bytes())
        other.replace(partial)

    with pytest.raises(StorageError, match="was replaced by another process"):
        extract(data, tmp_path / "it.h5", Watcher(intrude))
    assert names(tmp_path) == ["it.h5.partial"]


def test_what_killed_runs_left_goes_with_the_next(tmp_path):
    """A kill while space is set aside leaves a file as large as the cache."""
    path = tmp_path / "a[1].h5.partial"
    for name in (path.name, "b.h5.partial"):
        (tmp_path / f".{name}.{'0f' * 16}.partial").write_bytes(np.ones(9).tobytes())
    files.sweep(path)
    assert names(tmp_path) == [f".b.h5.partial.{'0f' * 16}.partial"]
