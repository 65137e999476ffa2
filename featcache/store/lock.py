"""One writer per cache: a lock that ends with its holder's process."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from featcache.core.errors import CacheBusyError
from featcache.core.progress import SILENT, Progress
from featcache.core.text import shown
from featcache.store.files import storing

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
_TEXT = 1 << 20  # Windows locks bytes: one behind the text, so that others can read it
_REMEDY = "wait for it to end (--wait does), or choose another file with --cache"
_POLL = 0.25  # seconds between two looks at a lock that another holds


@contextmanager
def writing(
    cache: Path,
    *,
    wait: bool = False,
    progress: Progress = SILENT,
    remedy: str = _REMEDY,
) -> Iterator[bool]:
    """Hold the right to write a cache.

    The lock is the operating system's, on ``NAME.h5.lock``: a process that dies,
    however it dies, lets go of it.

    Parameters
    ----------
    cache : Path
        ``NAME.h5``; its folder is made.
    wait : bool
        Wait for another holder to end, however long that takes.
    progress : Progress
        Told once for whom.
    remedy : str
        What a user can do when another process has it.

    Yields
    ------
    bool
        Whether there was a wait; the lock is held meanwhile.

    Raises
    ------
    CacheBusyError
        Naming the holder, when another process has it and ``wait`` is off.
    StorageError
        When the folder cannot be written.
    """
    path = cache.with_name(f"{cache.name}.lock")
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = _acquire(path)
    busy = fd is None
    if busy and wait:
        progress.say(f"{shown(cache)} is being written by {_holder(path)}; waiting")
        with storing(path):
            fd = _await(path)
    if fd is None:
        raise CacheBusyError(
            f"{shown(cache)} is being written by {_holder(path)}; {remedy}"
        )
    try:
        with storing(path):
            _sign(fd)
        yield busy
    finally:
        # Removed while still held, so that nobody can hold a lock on a dead name.
        with suppress(OSError):
            path.unlink()
        with suppress(OSError):  # what was written is safe, and the lock is gone
            os.close(fd)


def _acquire(path: Path) -> int | None:
    """Return a locked descriptor of the file that lies at path now, or None."""
    while True:
        fd = os.open(path, _FLAGS, 0o666)
        with ExitStack() as stack:
            stack.callback(os.close, fd)
            if not _try_lock(fd):
                return None
            # Unless the last holder removed the name between open and lock:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    stack.pop_all()
                    return fd


def _await(path: Path) -> int:
    """Return a locked descriptor as soon as there is one to have."""
    while (fd := _acquire(path)) is None:
        time.sleep(_POLL)  # Ctrl-C ends it
    return fd


def _try_lock(fd: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(fd, _TEXT, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _sign(fd: int) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    os.ftruncate(fd, 0)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, json.dumps(holder).encode())


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_bytes())
        return shown(
            f"process {holder['pid']} on {holder['host']}, "
            f"which began at {holder['since']}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
