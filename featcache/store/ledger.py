"""The ledger of images in work: who was being decoded when the process died.

A decoder is native code: on hostile bytes it may crash or never return, and then no
exception names the image. So each worker writes the row that it decodes into a small
mapped file first, which outlives the process, and strikes it out afterwards.
"""

import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from featcache.core.machine import CHILD
from featcache.store.files import storing, write_at

SLOTS = 1024  # threads at once; more than any machine has cores for
_PAUSE_NS = 5_000_000_000  # between two looks, which are a fifth of a second apart
_LINE = np.dtype([("row", "<i8"), ("since", "<i8")])  # row + 1, or 0; monotonic ns
_LENGTH = SLOTS * _LINE.itemsize  # bytes
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
_FLAGS |= getattr(os, "O_CLOEXEC", 0)


def ledger_path(cache: Path) -> Path:
    """Return where the ledger of a cache in work lies.

    Parameters
    ----------
    cache : Path
        ``NAME.h5``.

    Returns
    -------
    Path
        ``NAME.h5.inflight`` beside it.
    """
    return cache.with_name(f"{cache.name}.inflight")


class Slots:
    """Lines of a ledger for the threads of one process.

    Parameters
    ----------
    path : Path
        See `ledger_path`; a `Ledger` has made it, in this process or in another.
    rows : range
        Which lines.

    Raises
    ------
    StorageError
        On entering, when the file cannot be mapped.
    """

    def __init__(self, path: Path, rows: range = range(SLOTS)) -> None:
        self._path = path
        self._own = threading.local()
        self._taken = iter(rows)

    def __enter__(self) -> Self:
        with storing(self._path):
            self._map = self._mapped()
        self._lines = np.frombuffer(self._map, _LINE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._lines
        with suppress(BufferError):  # a thread that was given up still holds it
            self._map.close()

    def _mapped(self) -> mmap.mmap:
        with self._path.open("r+b") as file:
            return mmap.mmap(file.fileno(), _LENGTH)

    @contextmanager
    def decoding(self, row: int) -> Iterator[None]:
        """Note that this thread decodes a row.

        Parameters
        ----------
        row : int
            Of the cache.

        Yields
        ------
        None
            To the decoder.
        """
        if not hasattr(self._own, "slot"):
            self._own.slot = next(self._taken)  # next() of an iterator is atomic
        self._lines[self._own.slot] = (row + 1, time.monotonic_ns())
        try:
            yield
        finally:
            self._lines[self._own.slot] = (0, 0)


class Ledger(Slots):
    """Which images are being decoded right now.

    Parameters
    ----------
    path : Path
        See `ledger_path`; removed when the work ends in any other way than death.

    Attributes
    ----------
    suspects : tuple of int
        Rows that were in work when the last process died.

    Raises
    ------
    StorageError
        On entering, when the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path.absolute()
        self.suspects: tuple[int, ...] = ()
        if CHILD in os.environ:
            Path(os.environ[CHILD]).write_bytes(os.fsencode(self.path))
        self._kept = False
        self._looked = time.monotonic_ns()

    def __enter__(self) -> Self:
        super().__enter__()
        self.accuse(range(SLOTS))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._kept:
            return
        super().__exit__(kind, error, trace)
        with suppress(OSError):
            self._path.unlink()

    def _mapped(self) -> mmap.mmap:
        return _made(self._path)

    def accuse(self, slots: range) -> set[int]:
        """Count as suspects what a process was decoding when it died.

        Parameters
        ----------
        slots : range
            The lines that were the process's; they are struck out.

        Returns
        -------
        set of int
            Rows of the cache.
        """
        lines = self._lines[slots.start : slots.stop]
        rows = {int(row) - 1 for row in lines["row"] if row > 0}
        self.suspects = tuple(sorted({*self.suspects, *rows}))
        lines[:] = 0
        return rows

    def hung(self, seconds: float) -> tuple[int, int] | None:
        """Return a row whose decoding does not end.

        Parameters
        ----------
        seconds : float
            How long one image may take.

        Returns
        -------
        tuple of int, or None
            The row, and its slot; None where all is well.
        """
        now = time.monotonic_ns()
        if now - self._looked > _PAUSE_NS:  # the whole process slept, not a decoder
            self._lines["since"][self._lines["row"] > 0] = now
        self._looked = now
        for slot, (row, since) in enumerate(self._lines.tolist()):
            if row and now - since > seconds * 1e9:
                return int(row) - 1, slot
        return None

    def keep(self) -> None:
        """Leave the file behind, so that the next run finds the suspects in it."""
        self._kept = True


def _made(path: Path) -> mmap.mmap:
    """Map the ledger, with all of its bytes on the disk."""
    fd = os.open(path, _FLAGS, 0o666)
    new = os.fstat(fd).st_size == 0
    try:
        try:
            with open(fd, "rb", closefd=False) as file:
                before = file.read(_LENGTH)
            # A store into a mapped hole kills the process where the disk is full; a
            # write is refused with a reason.
            write_at(fd, before.ljust(_LENGTH, b"\0"), 0)
            os.ftruncate(fd, _LENGTH)
            return mmap.mmap(fd, _LENGTH)
        finally:
            os.close(fd)
    except OSError:
        if new:
            path.unlink(missing_ok=True)
        raise
