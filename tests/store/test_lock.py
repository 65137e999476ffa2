"""The lock: one writer, known by name, and free as soon as its process is gone."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from featcache.core.errors import CacheBusyError, StorageError
from featcache.store.lock import writing

fcntl = pytest.importorskip("fcntl", reason="Windows locks by other means")

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from featcache.store.lock import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def names(folder):
    """Return what lies in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


@contextmanager
def holder(cache):
    """Hold the lock in another process; yields that process."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, cache],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def cache(tmp_path):
    """Where a cache would be, in a folder yet to be made."""
    return tmp_path / "made" / "cache.h5"


def test_a_second_process_is_told_who_writes(cache):
    """The error names process, host and time, and what to do."""
    with holder(cache) as process:
        message = (
            rf"cache.h5 is being written by process {process.pid} on "
            rf"{socket.gethostname()}, which began at 20..-.*; wait for it"
        )
        with pytest.raises(CacheBusyError, match=message), writing(cache):
            pass


def test_a_killed_holder_lets_go(cache):
    """However a process dies, the next one may write at once."""
    with holder(cache) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with writing(cache):
            pass
    assert names(cache.parent) == []


def test_a_second_thread_is_refused_too(cache):
    """One writer, not one process."""
    with (
        writing(cache),
        pytest.raises(CacheBusyError, match=f"process {os.getpid()} "),
        writing(cache),
    ):
        pass


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_nothing_is_left_of_a_lock(cache, error):
    """After the work, and after an error, the file is gone and the lock free."""
    for _ in range(2):
        try:
            with writing(cache):
                assert names(cache.parent) == ["cache.h5.lock"]
                if error:
                    raise error
        except (KeyboardInterrupt, ValueError):
            pass
        assert names(cache.parent) == []


def test_a_lock_on_a_removed_name_does_not_count(cache, monkeypatch):
    """Who locks the file that the last holder just removed tries again."""
    real, removed = fcntl.flock, []

    def remove_first(fd, how):
        real(fd, how)
        if not removed:
            removed.append(fd)
            cache.with_name("cache.h5.lock").unlink()

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with writing(cache):
        monkeypatch.undo()
        with pytest.raises(CacheBusyError, match="is being written"), writing(cache):
            pass


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff", b"[]", b'{"pid": 1}', b'"pid"'],
    ids=["empty", "no UTF-8", "list", "half", "text"],
)
def test_a_holder_may_be_unknown(cache, text):
    """A lock file that says nothing of use is still a lock."""
    with writing(cache):
        cache.with_name("cache.h5.lock").write_bytes(text)
        with (
            pytest.raises(CacheBusyError, match="written by another process; wait"),
            writing(cache),
        ):
            pass


def test_what_a_holder_says_is_shown_on_one_line(cache):
    """Lock files in shared folders are written by others."""
    with writing(cache):
        text = b'{"pid": "1\\n2", "host": "\\u001b[31m", "since": ""}'
        cache.with_name("cache.h5.lock").write_bytes(text)
        with (
            pytest.raises(CacheBusyError, match=r"process 1\\n2 on \\x1b\[31m, "),
            writing(cache),
        ):
            pass


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOLCK, "No locks available; choose a folder on a file system that has"),
        (errno.ENOSYS, "Function not implemented; choose a folder on a file system"),
    ],
)
def test_a_file_system_without_locks_is_an_error(cache, monkeypatch, number, message):
    """Two writers at once are worse than none; no descriptor is lost."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(names("/proc/self/fd")) if Path("/proc").exists() else None
    with pytest.raises(StorageError, match=message), writing(cache):
        pass
    if before is not None:
        assert len(names("/proc/self/fd")) == before


def test_a_folder_that_may_not_be_written_is_an_error(cache, monkeypatch):
    """Before anything is computed."""

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with (
        pytest.raises(StorageError, match=r"h5.lock: Permission denied; choose"),
        writing(cache),
    ):
        pass


class Hearer:
    """A listener that remembers lines and expects nothing else."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        """Write the line down."""
        self.lines.append(line)

    def detail(self, line):
        """Not of interest here."""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_wait_ends_with_the_other_process(cache, number):
    """However it ends; the user is told once for whom the wait is."""
    hearer = Hearer()
    with holder(cache) as process:
        timer = threading.Timer(1.0, process.send_signal, [number])
        began = time.perf_counter()
        timer.start()
        with writing(cache, wait=True, progress=hearer) as waited:
            assert waited
            assert 0.9 < time.perf_counter() - began < 10
            with pytest.raises(CacheBusyError), writing(cache):
                pass
        timer.join()
    expected = f"cache.h5 is being written by process {process.pid} on "
    assert len(hearer.lines) == 1
    assert expected in hearer.lines[0]
    assert hearer.lines[0].endswith("; waiting")
    assert names(cache.parent) == []


def test_a_free_cache_needs_no_wait(cache):
    """Nothing is said, and the caller knows."""
    hearer = Hearer()
    with writing(cache, wait=True, progress=hearer) as waited:
        assert not waited
    assert hearer.lines == []


def test_ctrl_c_ends_a_wait(cache, monkeypatch):
    """The other holder keeps what it has."""

    def interrupt(_):
        raise KeyboardInterrupt

    with writing(cache):
        monkeypatch.setattr(time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt), writing(cache, wait=True):
            pass
        with pytest.raises(CacheBusyError), writing(cache):
            pass
    assert names(cache.parent) == []
