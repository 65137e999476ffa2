"""Reading: the bytes of an image, wherever it lies."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from featcache.core.addresses import is_url
from featcache.core.locations import Cell, Location, Member, Object
from featcache.core.manifest import Manifest
from featcache.vision.sources.cells import cell_bytes
from featcache.vision.sources.patterns import AT_ONCE
from featcache.vision.sources.pieces import remote_member
from featcache.vision.sources.remote import (
    file_status,
    forget_listings,
    remote_object,
    remote_status,
)


class PlaceError(OSError):
    """The bytes are not where they should be."""


def read_bytes(place: Location, limit: int | None = None) -> bytes:
    """Return an image's bytes.

    Parameters
    ----------
    place : Path, Member, Cell or Object
        Where they lie.
    limit : int, optional
        Read no more than these.

    Returns
    -------
    bytes
        As they are there now.

    Raises
    ------
    OSError
        When they cannot be read; `PlaceError` says why in its own words.
    UnreachableError
        When what holds them does not answer, or refuses access.
    """
    if isinstance(place, Cell):
        return cell_bytes(place)[:limit]
    if isinstance(place, Object):
        return remote_object(place.url, place.size)[:limit]
    if isinstance(place, Member) and is_url(place.shard):
        return remote_member(place)[:limit]
    file = Path(place.shard) if isinstance(place, Member) else place
    if not stat.S_ISREG(file.stat().st_mode):  # to open a pipe would wait for ever
        raise PlaceError("not a regular file")
    if not isinstance(place, Member):
        with file.open("rb") as stream:
            return stream.read(-1 if limit is None else limit)
    size = place.size if limit is None else min(place.size, limit)
    with file.open("rb") as stream:
        stream.seek(place.start)
        data = stream.read(size)
    if len(data) < size:
        raise PlaceError(f"{file.name} now ends within it")
    return data


def is_remote(place: Location) -> bool:
    """Tell whether an image has to come from a store.

    Parameters
    ----------
    place : Path, Member, Cell or Object
        Where it lies.

    Returns
    -------
    bool
        False for what lies on a disk, as far as anybody can tell.
    """
    return not isinstance(place, Path) and is_url(container(place))


def container(place: Location) -> str:
    """Return the file or object in which an image lies.

    Parameters
    ----------
    place : Path, Member, Cell or Object
        Where it lies.

    Returns
    -------
    str
        A path or a URL.
    """
    if isinstance(place, Member):
        return place.shard
    return place.file if isinstance(place, Cell) else os.fspath(place)


def changed_files(manifest: Manifest) -> list[str]:
    """Return the shards and tables that are others than those that were scanned.

    Parameters
    ----------
    manifest : Manifest
        Of any source; images with files of their own are not looked at.

    Returns
    -------
    list of str
        Their paths or URLs.

    Raises
    ------
    UnreachableError
        When the store of one fails.
    """
    if manifest.index is None:
        return []
    _, rows = np.unique(manifest.index.numbers, return_index=True)
    files = [container(manifest.file(row)) for row in rows.tolist()]
    if is_url(files[0]):
        forget_listings(files[0])

    def is_other(row: int, file: str) -> bool:
        place = manifest.file(row)
        size = place.length if isinstance(place, Member) else int(manifest.sizes[row])
        try:
            found = remote_status(file) if is_url(file) else file_status(file)
        except OSError:
            return True
        return found not in ((size, int(manifest.mtimes_ns[row])), (size, None))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        others = pool.map(is_other, rows.tolist(), files)
        return [file for file, other in zip(files, others, strict=True) if other]


def size_and_time(place: Location) -> tuple[int, int]:
    """Return what tells without reading whether an image is the one it was.

    Parameters
    ----------
    place : Path, Member, Cell or Object
        Where it lies.

    Returns
    -------
    (int, int)
        Its bytes, and when its file last changed in nanoseconds, as a manifest has
        them.

    Raises
    ------
    OSError
        When there is no such file.
    """
    size, mtime_ns = file_status(container(place))
    return place.size if isinstance(place, Member) else size, mtime_ns
