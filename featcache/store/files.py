"""Writing files so that they are whole or not there, on every system.

POSIX calls are used where they are; each has a stand-in for systems without it.
"""

import errno
import glob
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from featcache.core.errors import FeatcacheError, StorageError
from featcache.core.text import shown, size

_NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
_seek_and_write = threading.Lock()


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into a `StorageError`.

    Parameters
    ----------
    path : Path
        The file that is being written.

    Yields
    ------
    None
        To the code that writes.

    Raises
    ------
    StorageError
        With the file, the reason and what to do.
    """
    try:
        yield
    except FeatcacheError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write {shown(path)}: {error.strerror or error}{_remedy(error)}"
        ) from error


def _remedy(error: OSError) -> str:
    if error.errno in _NO_SPACE:
        return "; make room and run the same command again to go on"
    if error.errno in _FORBIDDEN:
        return "; choose a folder that you may write to"
    if error.errno == errno.EFBIG:
        return (
            "; choose a file system that takes files of this size, or raise the limit "
            "(ulimit -f)"
        )
    if error.errno in _NO_LOCKS:
        return "; choose a folder on a file system that has locks"
    return ""


def require_file_name(path: Path, example: str = "cache.h5") -> None:
    """Refuse a path that cannot become a file.

    Parameters
    ----------
    path : Path
        What the user typed.
    example : str
        A name that would do.

    Raises
    ------
    StorageError
        When it is empty or a folder.
    """
    if not path.name or path.is_dir():
        raise StorageError(
            f"{shown(path)} is a folder; expected the name of a file in it, such as "
            f"{shown(path / example)}"
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file that is there whole or not at all.

    Parameters
    ----------
    path : Path
        What is to be written; its folder is made.

    Yields
    ------
    Path
        A name in the same folder to write to; renamed to ``path`` if nothing is
        raised, removed otherwise.

    Raises
    ------
    StorageError
        When the system refuses.
    """
    partial = path.with_name(_temporary(path, uuid4().hex))
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            sync_file(partial)
            partial.replace(path)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Write a folder of files that is there whole or not at all.

    Parameters
    ----------
    path : Path
        What is to be written. A folder of that name is moved aside when the new one
        is whole, and then removed.

    Yields
    ------
    Path
        An empty folder beside it to write files to; renamed to ``path`` if nothing
        is raised, removed otherwise.

    Raises
    ------
    StorageError
        When the system refuses.
    """
    partial = path.with_name(_temporary(path, uuid4().hex))
    old = path.with_name(_temporary(path, uuid4().hex))
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.mkdir()
            yield partial
            for file in partial.iterdir():
                sync_file(file)
            sync_folder(partial)
            if path.exists():  # no system replaces a folder that has files in one step
                path.replace(old)
            partial.replace(path)
            sync_folder(path.parent)
        finally:
            if old.exists() and not path.exists():
                old.replace(path)
            for left in (partial, old):
                shutil.rmtree(left, ignore_errors=True)


def _temporary(path: Path, unique: str) -> str:
    return f".{path.name}.{unique}.partial"


def sweep(path: Path) -> None:
    """Remove what killed processes left of `replacing` and `replacing_folder`.

    Parameters
    ----------
    path : Path
        What they were writing; nobody else may be writing it now.
    """
    pattern = _temporary(Path(glob.escape(path.name)), "[0-9a-f]" * 32)
    for left in path.parent.glob(pattern):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk.

    Parameters
    ----------
    path : Path
        An existing file.
    """
    fd = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to the disk; a rename lasts only after this.

    Parameters
    ----------
    folder : Path
        Windows cannot open folders and keeps its own journal: there it does nothing.
    """
    if os.name == "nt":
        return
    try:
        fd = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written but not listed
        return
    try:
        os.fsync(fd)
    except OSError as error:  # some network file systems cannot
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(fd)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of the bytes at a position.

    Parameters
    ----------
    fd : int
        Open for writing; several threads may write at once.
    data : bytes or memoryview
        Contiguous bytes.
    offset : int
        Where, in bytes.

    Raises
    ------
    OSError
        When the system refuses, or stops taking bytes.
    """
    view = memoryview(data).cast("B")
    while view:
        written = _pwrite(fd, view, offset)
        if written <= 0:
            raise OSError(errno.EIO, "the system wrote no byte of a block")
        view, offset = view[written:], offset + written


def _pwrite(fd: int, view: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, view, offset)
    with _seek_and_write:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.write(fd, view)


def allocate(fd: int, length: int, path: Path) -> None:
    """Give a file its length and its place on the disk.

    Parameters
    ----------
    fd : int
        Open for writing.
    length : int
        Bytes.
    path : Path
        The file, for the message and to ask for free space.

    Raises
    ------
    StorageError
        When the disk is too small: before the first image is decoded.
    """
    free = shutil.disk_usage(path.parent).free
    if free < length:
        raise StorageError(
            f"{shown(path)} needs {size(length)} but its disk has {size(free)} free; "
            "make room, or choose another place with --cache"
        )
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, length)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    os.ftruncate(fd, length)
