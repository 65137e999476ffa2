"""Shelves: where decoded images lie between epochs: in memory, in a file, nowhere."""

import errno
import mmap
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from featcache.core.errors import SpecError, StorageError
from featcache.core.finetune_spec import Store
from featcache.core.resources import available_memory
from featcache.core.text import plural, shown, size
from featcache.vision.words import Words

_ALIGNED = 64  # bytes, a cache line
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class Shelf:
    """Keeps images by their sample_index, or none, as this one; threads may share it.

    Parameters
    ----------
    description : str
        Where images are kept, or why not; for people.
    """

    def __init__(self, description: str) -> None:
        self.description = description

    def put(self, sample_index: int, words: Words) -> None:
        """Keep an image, if there is room for it.

        Parameters
        ----------
        sample_index : int
            Its number.
        words : ndarray of uint32, shape (h, w)
            C-contiguous, no longer to be changed.

        Raises
        ------
        StorageError
            When the system refuses.
        """

    def get(self, sample_index: int) -> Words | None:
        """Return an image.

        Parameters
        ----------
        sample_index : int
            Its number.

        Returns
        -------
        ndarray of uint32, shape (h, w), or None
            Read-only; None where it is not kept.
        """
        del sample_index
        return None

    def close(self) -> None:
        """Let go of all images; one that is still in use stays until it is not."""


class Memory(Shelf):
    """Images in memory.

    Parameters
    ----------
    description : str
        For people.
    """

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self._images: dict[int, Words] = {}

    def put(self, sample_index: int, words: Words) -> None:  # noqa: D102 - as a Shelf
        words.flags.writeable = False
        self._images[sample_index] = words

    def get(self, sample_index: int) -> Words | None:  # noqa: D102
        return self._images.get(sample_index)

    def close(self) -> None:  # noqa: D102
        self._images.clear()


class Disk(Shelf):
    """Images in one file without a name, which ends with the process at the latest.

    No other run can read it, so it is never stale. It has its whole length from the
    start: a disk that is too small is an error before the first image is decoded.

    Parameters
    ----------
    rooms : mapping of int to int
        Bytes of each image, by its number.
    folder : Path
        Where the file lies.
    description : str
        For people.

    Raises
    ------
    StorageError
        When the system refuses.
    """

    def __init__(
        self, rooms: Mapping[int, int], folder: Path, description: str
    ) -> None:
        super().__init__(description)
        self._folder, self._rooms = folder, dict(rooms)
        self._starts, length = _starts(rooms)
        self._shapes: dict[int, tuple[int, int]] = {}
        self._lock = threading.Lock()  # one place at a time; the system has the same
        with _writing(folder):
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        try:
            with _writing(folder):
                _allocate(self._file.fileno(), length)
            self._map = mmap.mmap(self._file.fileno(), length, access=mmap.ACCESS_READ)
        except BaseException:
            self._file.close()
            raise

    def put(self, sample_index: int, words: Words) -> None:  # noqa: D102
        if words.nbytes > self._rooms[sample_index]:
            return  # a format that tells its size only when it is decoded
        left = words.data.cast("B")
        with _writing(self._folder), self._lock:
            self._file.seek(self._starts[sample_index])
            while left:
                left = left[self._file.write(left) :]
        height, width = words.shape
        self._shapes[sample_index] = height, width

    def get(self, sample_index: int) -> Words | None:  # noqa: D102
        if sample_index not in self._shapes:
            return None
        height, width = self._shapes[sample_index]
        start = self._starts[sample_index]
        words = np.frombuffer(self._map, np.uint32, height * width, start)
        return words.reshape(height, width)

    def close(self) -> None:  # noqa: D102
        self._file.close()
        self._shapes.clear()
        del self._map


def choose_shelf(
    rooms: Mapping[int, int], store: Store, folder: Path, share: int
) -> Shelf:
    """Return an empty shelf with room for all images.

    Parameters
    ----------
    rooms : mapping of int to int
        Bytes of each image, by its number.
    store : {"auto", "ram", "disk", "off"}
        With ``auto`` memory if all images fit in a quarter of what is free, else the
        disk if it has twice their room, else none. Whoever asks for ``ram`` gets up to
        three quarters of what is free, for ``disk`` all of it.
    folder : Path
        Where the disk's file lies.
    share : int
        How many processes of this machine do so.

    Returns
    -------
    Shelf
        To be closed.

    Raises
    ------
    SpecError
        When the memory asked for is not there.
    StorageError
        When the disk asked for is too small.
    """
    if store == "off":
        return Shelf("off: every epoch decodes, as was asked for")
    need, what = sum(rooms.values()), plural(len(rooms), "image")
    told, memory = f"{what}, {size(need)}", available_memory() // share
    if store == "ram" and need > memory * 3 // 4:
        raise SpecError(
            f"{what} take {size(need)} decoded; expected at most three quarters of the "
            f"free memory, {size(memory)}{_each(share)}: use --store disk, or a "
            "smaller --store-size"
        )
    if store == "ram" or (store == "auto" and need <= memory // 4):
        return Memory(f"ram: {told}")
    disk = _free(folder) // share
    if store == "disk" and need > disk:
        raise StorageError(
            f"{what} take {size(need)} decoded, but the disk of {shown(folder)} has "
            f"{size(disk)} free{_each(share)}; make room, choose another folder, or "
            "use --store off"
        )
    if store == "disk" or need <= disk // 2:
        return Disk(rooms, folder, f"disk: {told} in {shown(folder)}")
    return Shelf(
        f"off: every epoch decodes, since {told}, are more than a quarter of the free "
        f"memory ({size(memory)}{_each(share)}) and more than half of the free disk "
        f"({size(disk)}{_each(share)})"
    )


def _each(share: int) -> str:
    return f" for each of {share} processes" if share > 1 else ""


def _free(folder: Path) -> int:
    with _writing(folder):
        return shutil.disk_usage(folder).free


def _starts(rooms: Mapping[int, int]) -> tuple[dict[int, int], int]:
    """Return where each image begins, and the length of the file."""
    starts, end = {}, 0
    for sample_index, room in rooms.items():
        starts[sample_index] = end
        end += -(-room // _ALIGNED) * _ALIGNED
    return starts, max(end, _ALIGNED)  # no system maps an empty file


def _allocate(fd: int, length: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, length)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    os.ftruncate(fd, length)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot keep images in {shown(folder)}: {error.strerror or error}; make "
            "room, choose another folder, or use --store ram or off"
        ) from error
