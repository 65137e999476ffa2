"""Listing folders: what each entry is, by its name and type; no file is opened.

Paths are bytes throughout, so that any file name works.
"""

import errno
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from featcache.core.errors import DataError
from featcache.core.text import shown

IMAGE_SUFFIXES = frozenset(
    b".jpg .jpeg .jpe .jfif .png .ppm .bmp .pgm .tif .tiff .webp".split()
)
IMAGE, FOLDER = "image", "folder"  # kinds that are used; every other is passed over

_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


@dataclass(frozen=True)
class Contents:
    """What lies directly in a folder."""

    images: int
    folders: list[bytes]  # names, sorted; hidden ones are not among them
    ignored: Counter[str]  # the rest by kind

    @property
    def holds_classes(self) -> bool:
        """Whether there are folders and no images: what a split looks like."""
        return bool(self.folders) and not self.images


def listing(folder: bytes) -> Iterator[tuple[str, os.DirEntry[bytes]]]:
    """Yield what lies in a folder, in no order.

    Parameters
    ----------
    folder : bytes
        Path of the folder.

    Yields
    ------
    kind : str
        `IMAGE`, `FOLDER` or, in words, what else it is.
    entry : os.DirEntry
        The entry itself.

    Raises
    ------
    DataError
        When the folder cannot be read, with the system's reason.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield _kind(entry), entry
    except OSError as error:
        raise unreadable(folder, error) from error


def contents(folder: bytes) -> Contents:
    """Return what lies directly in a folder.

    Parameters
    ----------
    folder : bytes
        Path of the folder.

    Returns
    -------
    Contents
        Images, folders and the rest.

    Raises
    ------
    DataError
        When the folder cannot be read.
    """
    folders: list[bytes] = []
    kinds: Counter[str] = Counter()
    for kind, entry in listing(folder):
        if kind == FOLDER:
            folders.append(entry.name)
        else:
            kinds[kind] += 1
    return Contents(kinds.pop(IMAGE, 0), sorted(folders), kinds)


def holds_images(folder: bytes) -> bool:
    """Tell whether an image lies directly in a folder, reading no further than it.

    Parameters
    ----------
    folder : bytes
        Path of the folder.

    Returns
    -------
    bool
        True at the first image.

    Raises
    ------
    DataError
        When the folder cannot be read.
    """
    return any(kind == IMAGE for kind, _ in listing(folder))


def inside(folder: bytes, name: bytes) -> bytes:
    """Return the path of something in a folder.

    Parameters
    ----------
    folder, name : bytes
        The folder, and a path relative to it; either may be empty.

    Returns
    -------
    bytes
        Both joined by ``/``, which every system accepts.
    """
    return b"/".join(filter(None, (folder, name)))


def unreadable(path: bytes, error: OSError) -> DataError:
    """Return the error that says why something cannot be read.

    Parameters
    ----------
    path : bytes
        What was being read, where the system's error does not name it.
    error : OSError
        The system's error.

    Returns
    -------
    DataError
        One line with the path, the reason and what to do.
    """
    what, reason = shown(error.filename or path), error.strerror or str(error)
    return DataError(
        f"{what} cannot be read: {reason}; make it readable or move it elsewhere"
    )


def _kind(entry: os.DirEntry[bytes]) -> str:
    name = entry.name
    if name.startswith(b"."):
        return f"hidden {FOLDER if entry.is_dir(follow_symlinks=False) else 'file'}"
    try:
        if entry.is_file():
            return _kind_of_file(name)
        if entry.is_dir():
            return "__MACOSX folder" if name == b"__MACOSX" else FOLDER
        entry.stat()  # raises when there is nothing
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        return "dangling link" if entry.is_symlink() else "vanished file"
    return "pipe or device file"  # never opened: reading it could wait for ever


def _kind_of_file(name: bytes) -> str:
    _, dot, ending = name.rpartition(b".")
    suffix = (dot + ending).lower() if dot else b""
    if suffix in IMAGE_SUFFIXES:
        return IMAGE
    letters = suffix[1:]
    # Numbers and long tails (a.1, a.2, ...) would make a kind of every file.
    if len(letters) <= 5 and letters.isalnum() and not letters.isdigit():
        return f"{shown(suffix)} file"
    return "other file"
