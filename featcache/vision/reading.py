"""Reading: the bytes of an image, wherever it lies."""

import os
import stat
from pathlib import Path

from featcache.core.addresses import is_url
from featcache.core.locations import Cell, Location, Member
from featcache.vision.sources.cells import cell_bytes
from featcache.vision.sources.pieces import remote_member
from featcache.vision.sources.remote import file_status


class PlaceError(OSError):
    """The bytes are not where they should be."""


def read_bytes(place: Location, limit: int | None = None) -> bytes:
    """Return an image's bytes.

    Parameters
    ----------
    place : Path or Member
        Where they lie.
    limit : int, optional
        Read no more than these.

    Returns
    -------
    bytes
        As they are on the disk now.

    Raises
    ------
    OSError
        When they cannot be read; `PlaceError` says why in its own words.
    """
    if isinstance(place, Cell):
        return cell_bytes(place)[:limit]
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


def size_and_time(place: Location) -> tuple[int, int]:
    """Return what tells without reading whether an image is the one it was.

    Parameters
    ----------
    place : Path or Member
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
    if isinstance(place, Member):
        return place.size, file_status(place.shard)[1]
    return file_status(place.file if isinstance(place, Cell) else os.fspath(place))
