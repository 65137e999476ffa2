"""Files are whole or not there, whatever the system refuses."""

import errno
import os
import resource
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from featcache.core.errors import CacheCorruptError, StorageError
from featcache.store.files import (
    allocate,
    replacing,
    storing,
    sync_folder,
    write_at,
)

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def names(folder):
    """Return what lies in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


def refusing(error):
    """Return a system call that always fails."""

    def call(*_, **__):
        raise error

    return call


@contextmanager
def opened(path):
    """Open a file for writing by offset."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        yield fd
    finally:
        os.close(fd)


def save(path, data=b"new"):
    """Write a small file as the package does."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def test_a_file_appears_whole(tmp_path):
    """Until the end of the block there is the old file, after it the new one."""
    path = tmp_path / "made" / "on" / "the" / "way" / "report.json"
    save(path, b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == path.parent
    assert path.read_bytes() == b"new"
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize(
    "error", [ValueError, KeyboardInterrupt, SystemExit, CacheCorruptError]
)
def test_nothing_is_left_of_a_file_that_failed(tmp_path, error):
    """Bugs and Ctrl-C pass through; the old file stays, the new one is gone."""
    path = tmp_path / "report.json"
    save(path, b"old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("call", ["fsync", "open", "replace"])
@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        pytest.param(errno.ENOSPC, "make room and run the same command", id="full"),
        pytest.param(errno.EDQUOT, "make room and run the same command", id="quota"),
        pytest.param(errno.EACCES, "choose a folder that you may write", id="denied"),
        pytest.param(errno.EROFS, "choose a folder that you may write", id="read-only"),
        pytest.param(errno.EFBIG, "takes files of this size", id="too large"),
        pytest.param(errno.ENOLCK, "a file system that has locks", id="no locks"),
        pytest.param(errno.EIO, "Input/output error$", id="broken disk"),
    ],
)
def test_a_refusal_says_what_to_do(tmp_path, monkeypatch, call, number, remedy):
    """The error has file, reason and remedy in one line; nothing is left behind."""
    path = tmp_path / "caf\udce9.json"
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refusing(OSError(number, os.strerror(number))))
        with pytest.raises(StorageError, match=rf"^cannot write .*caf\\xe9.*{remedy}"):
            save(path)
    assert names(tmp_path) == []


def test_a_real_refusal_leaves_nothing(tmp_path):
    """The kernel's own limit, in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StorageError, match="File too large; choose a file system"):
            save(tmp_path / "large", bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


def test_a_folder_in_the_way_is_an_error(tmp_path):
    """A file does not replace a folder."""
    (tmp_path / "report.json").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*report.json: "):
        save(tmp_path / "report.json")
    assert names(tmp_path) == ["report.json"]


def test_our_own_errors_pass_through(tmp_path):
    """A download that fails inside is no failure to write."""
    with pytest.raises(StorageError, match=r"^mine$"), storing(tmp_path):
        raise StorageError("mine")


@pytest.mark.parametrize(
    ("number", "call"),
    [
        pytest.param(errno.EINVAL, "fsync", id="cannot be synced"),
        pytest.param(errno.EACCES, "open", id="may not be listed"),
    ],
)
def test_folders_that_cannot_be_synced_are_let_be(tmp_path, monkeypatch, call, number):
    """Some network file systems and some rights do not allow it."""
    monkeypatch.setattr(os, call, refusing(OSError(number, os.strerror(number))))
    sync_folder(tmp_path)


def test_a_folder_that_fails_to_sync_is_an_error(tmp_path, monkeypatch):
    """A broken disk is not let be."""
    monkeypatch.setattr(os, "fsync", refusing(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        sync_folder(tmp_path)


def test_windows_syncs_no_folder(tmp_path, monkeypatch):
    """There a folder cannot be opened."""
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "open", refusing(NO_SPACE))
    sync_folder(tmp_path)


class TestWriteAt:
    """Bytes by offset, with and without ``pwrite``."""

    @pytest.fixture(autouse=True, params=["pwrite", "seek and write"])
    def system(self, request, monkeypatch):
        """Run each test on both kinds of system."""
        if request.param != "pwrite":
            monkeypatch.delattr(os, "pwrite")

    def test_bytes_land_where_they_should(self, tmp_path):
        """Threads that write at once do not disturb each other."""
        with opened(tmp_path / "file") as fd:
            threads = [
                threading.Thread(target=write_at, args=(fd, b"%04d" % i, 4 * i))
                for i in range(50)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        expected = b"".join(b"%04d" % i for i in range(50))
        assert (tmp_path / "file").read_bytes() == expected

    def test_short_writes_are_completed(self, tmp_path, monkeypatch):
        """A system that takes a byte at a time gets them all."""
        name = "pwrite" if hasattr(os, "pwrite") else "write"
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda fd, data, *at: real(fd, data[:1], *at))
        with opened(tmp_path / "file") as fd:
            write_at(fd, b"0123456789", 5)
            write_at(fd, memoryview(b""), 50)
        assert (tmp_path / "file").read_bytes() == bytes(5) + b"0123456789"

    def test_a_system_that_takes_no_byte_is_an_error(self, tmp_path, monkeypatch):
        """Instead of a loop without end."""
        name = "pwrite" if hasattr(os, "pwrite") else "write"
        monkeypatch.setattr(os, name, lambda *_: 0)
        with (
            opened(tmp_path / "file") as fd,
            pytest.raises(OSError, match="wrote no byte"),
        ):
            write_at(fd, b"x", 0)


class TestAllocate:
    """Space is taken before the first image is decoded."""

    @pytest.mark.parametrize(
        "refusal",
        [
            pytest.param(None, id="allocated"),
            pytest.param(errno.EOPNOTSUPP, id="file system cannot"),
            pytest.param("missing", id="system has no such call"),
        ],
    )
    def test_the_file_gets_its_length(self, tmp_path, monkeypatch, refusal):
        """On every system, of zeros."""
        if refusal == "missing":
            monkeypatch.delattr(os, "posix_fallocate")
        elif refusal:
            monkeypatch.setattr(os, "posix_fallocate", refusing(OSError(refusal, "")))
        path = tmp_path / "file"
        with opened(path) as fd:
            allocate(fd, 10_000, path)
        assert path.read_bytes() == bytes(10_000)
        if refusal is None:
            assert path.stat().st_blocks * 512 >= 10_000

    def test_a_small_disk_is_an_error(self, tmp_path, monkeypatch):
        """It is said how much is needed and how much there is."""
        usage = SimpleNamespace(free=5_000_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        path = tmp_path / "x.h5"
        message = r"^\S+x.h5 needs 10 MB but its disk has 5 MB free; make room"
        with opened(path) as fd, pytest.raises(StorageError, match=message):
            allocate(fd, 10_000_000, path)
        assert path.stat().st_size == 0

    def test_a_disk_that_fills_up_is_an_error(self, tmp_path, monkeypatch):
        """What the system says goes to `storing`, which knows the remedy."""
        monkeypatch.setattr(os, "posix_fallocate", refusing(NO_SPACE))
        path = tmp_path / "x.h5"
        with (
            opened(path) as fd,
            pytest.raises(StorageError, match="make room"),
            storing(path),
        ):
            allocate(fd, 10_000, path)
