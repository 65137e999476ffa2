"""Statuses: sizes and times of many remote files, in few requests."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.core.errors import UnreachableError
from featcache.vision.sources.patterns import AT_ONCE
from featcache.vision.sources.remote import (
    file_status,
    file_system,
    forget_listings,
    status_of,
)
from featcache.vision.sources.trying import RemoteError, tried

_FEW = 8  # files of a folder that are asked for one by one
_CHUNK = 4096  # of them, that are under way or wait
_NO_LISTING = ("http", "https")  # what a page links to is no folder

Status = tuple[int, int]
_NOTHING = (0, 0)


def remote_statuses(
    urls: Sequence[str],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return sizes and times of remote files.

    A folder of which more than a few files are wanted is listed, by a thousand files
    in a request; where that is not allowed, files are asked for one by one.

    Parameters
    ----------
    urls : sequence of str
        n files.

    Returns
    -------
    sizes, mtimes_ns : ndarray of int64, shape (n,)
        0 and 0 for a file that is not there.

    Raises
    ------
    UnreachableError
        When a store does not answer, or refuses access.
    """
    for one in {url.partition("://")[0]: url for url in urls}.values():
        forget_listings(one)
    folders: dict[str, list[int]] = {}
    for row, url in enumerate(urls):
        folders.setdefault(url.rpartition("/")[0], []).append(row)
    found = np.zeros((2, len(urls)), np.int64)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        listings = pool.map(_listing, folders, map(len, folders.values()))
        alone: list[int] = []
        for rows, listing in zip(folders.values(), listings, strict=True):
            if listing is None:
                alone += rows
                continue
            names = [urls[row].rpartition("/")[2] for row in rows]
            found[:, rows] = np.array([listing.get(n, _NOTHING) for n in names]).T
        for start in range(0, len(alone), _CHUNK):
            rows = alone[start : start + _CHUNK]
            found[:, rows] = np.array([*pool.map(_status, (urls[r] for r in rows))]).T
    return found[0], found[1]


def _listing(folder: str, count: int) -> dict[str, Status] | None:
    """Return what lies in a folder by name; None where that cannot be told."""
    if count <= _FEW or folder.startswith(_NO_LISTING):
        return None
    system, path = file_system(folder)
    try:
        found: list[dict[str, Any]] = tried(
            folder, lambda: system.ls(path, detail=True)
        )
        listing = {}
        for info in found:
            if info.get("type") == "file":
                size, changed = status_of(folder, info)
                if changed is None:
                    return None
                listing[info["name"].rpartition("/")[2]] = size, changed
    except RemoteError:
        return {}
    except UnreachableError:  # to list may be forbidden, and to read allowed
        return None
    return listing


def _status(url: str) -> Status:
    try:
        return file_status(url)
    except RemoteError:
        return _NOTHING
