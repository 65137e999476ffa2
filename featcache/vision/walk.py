"""Walking folders: every image below a folder, each folder entered only once."""

import heapq
import os
from array import array
from collections import Counter
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featcache.core.errors import DataError
from featcache.vision.listing import FOLDER, IMAGE, inside, listing, unreadable

FolderId = tuple[int, int]  # device and inode: what a folder is by whatever path

_CHUNK = 1 << 14  # paths kept as Python objects (about 80 bytes each) before packing


@dataclass(frozen=True, eq=False)
class Rows:
    """The n images of one folder, ordered by path bytes.

    Parameters
    ----------
    paths : ndarray of bytes, shape (n,)
        Relative to the data folder, with ``/``.
    sizes : ndarray of int64, shape (n,)
        Bytes of each file.
    mtimes_ns : ndarray of int64, shape (n,)
        Time of last change, nanoseconds.
    """

    paths: npt.NDArray[np.bytes_]
    sizes: npt.NDArray[np.int64]
    mtimes_ns: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "Rows":
        """Return some of the rows.

        Parameters
        ----------
        rows : ndarray
            Which ones: a mask of shape (n,), or their numbers.

        Returns
        -------
        Rows
            In the order asked for.
        """
        return Rows(self.paths[rows], self.sizes[rows], self.mtimes_ns[rows])


class _Collector:
    """Rows in the making, packed as they come."""

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self._packed: list[npt.NDArray[np.bytes_]] = []
        self._sizes, self._mtimes_ns = array("q"), array("q")

    def add(self, path: bytes, status: os.stat_result) -> None:
        names = self._names
        names.append(path)
        self._sizes.append(status.st_size)
        self._mtimes_ns.append(status.st_mtime_ns)
        if len(names) == _CHUNK:
            self._pack()

    def _pack(self) -> None:
        self._packed.append(np.array(self._names, np.bytes_))
        self._names.clear()

    def rows(self) -> Rows:
        self._pack()
        paths = np.concatenate(self._packed)
        self._packed.clear()
        sizes, mtimes_ns = np.array(self._sizes), np.array(self._mtimes_ns)
        return Rows(paths, sizes, mtimes_ns).take(np.argsort(paths))


def walk(
    root: bytes, top: bytes, above: AbstractSet[FolderId], ignored: Counter[str]
) -> Rows:
    """Return every image below a folder, nested folders and links included.

    Each folder is entered once: a link to one that was reached before is counted as a
    repeated folder, so loops end. Real folders are entered before links, links in the
    order of their paths, so the result does not depend on the disk's order.

    Parameters
    ----------
    root : bytes
        The data folder.
    top : bytes
        The folder to walk, relative to root.
    above : set of FolderId
        Folders never to enter, see `folders_above`.
    ignored : Counter
        What is passed over is counted here by kind.

    Returns
    -------
    Rows
        With paths relative to root.

    Raises
    ------
    DataError
        When a folder cannot be read.
    """
    found = _Collector()
    seen = set(above)
    pending = [(False, top)]  # a heap: is it a link, and its path
    while pending:
        _, folder = heapq.heappop(pending)
        identity = _identity(inside(root, folder))
        if identity in seen:
            ignored["repeated folder"] += 1
            continue
        seen.add(identity)
        below = folder + b"/"
        for kind, entry in listing(inside(root, folder)):
            if kind == IMAGE:
                if (status := _status(entry)) is None:
                    ignored["vanished file"] += 1
                else:
                    found.add(below + entry.name, status)
            elif kind == FOLDER:
                heapq.heappush(pending, (entry.is_symlink(), below + entry.name))
            else:
                ignored[kind] += 1
    return found.rows()


def folders_above(folder: bytes) -> AbstractSet[FolderId]:
    """Return a folder's identity and those of all folders that it lies in.

    A link from below to one of these is a loop, not a part of the data.

    Parameters
    ----------
    folder : bytes
        Where class folders lie.

    Returns
    -------
    set of FolderId
        Those that may be looked at; links in the path itself are resolved first.
    """
    real = Path(os.fsdecode(folder)).resolve()
    identities = set()
    for path in (real, *real.parents):
        with suppress(DataError):
            identities.add(_identity(os.fsencode(path)))
    return identities


def _identity(folder: bytes) -> FolderId:
    # A DirEntry's own stat has no inode on Windows, and pathlib knows no bytes.
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError as error:
        raise unreadable(folder, error) from error
    return status.st_dev, status.st_ino


def _status(entry: os.DirEntry[bytes]) -> os.stat_result | None:
    try:
        return entry.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(entry.path, error) from error
