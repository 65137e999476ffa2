"""Remote shards piece by piece: large requests, shared by all who want their bytes."""

import io
import os
from pathlib import Path
from typing import Any, BinaryIO, cast

from featcache.core.addresses import is_url
from featcache.core.locations import Member
from featcache.core.machine import cores
from featcache.vision.sources.remote import remote_bytes
from featcache.vision.sources.shared import Shared

PIECE = 8 << 20  # bytes of one request: its latency is little beside its transfer

_pieces = Shared(2 * cores() + 2)


def forget_pieces() -> None:
    """Forget what was read of remote files, before they are looked at anew."""
    _pieces.clear()


def remote_part(url: str, start: int, size: int, length: int) -> bytes:
    """Return a part of a remote file, of which its neighbours are wanted soon.

    Parameters
    ----------
    url : str
        The file.
    start, size : int
        Which bytes.
    length : int
        Of the whole file.

    Returns
    -------
    bytes
        All of them, out of pieces that are kept for a while.

    Raises
    ------
    RemoteError
        When there is no such file.
    UnreachableError
        When its store fails.
    """
    pieces = []
    for number in range(start // PIECE, -(-(start + size) // PIECE)):
        at = number * PIECE
        count = min(PIECE, length - at)

        def read(at: int = at, count: int = count) -> bytes:
            return remote_bytes(url, at, count)

        pieces.append(_pieces.get((url, number), read))
    begin = start % PIECE
    return b"".join(pieces)[begin : begin + size] if size else b""


def remote_member(place: Member) -> bytes:
    """Return an image's bytes out of a remote shard.

    Parameters
    ----------
    place : Member
        Where they lie.

    Returns
    -------
    bytes
        All of them.

    Raises
    ------
    RemoteError
        When there is no such file.
    UnreachableError
        When its store fails.
    """
    if place.size > PIECE:
        return remote_bytes(place.shard, place.start, place.size)
    return remote_part(place.shard, place.start, place.size, place.length)


class RemoteStream(io.RawIOBase):
    """A remote file as one that is open, without a buffer.

    Parameters
    ----------
    url : str
        The file.
    length : int
        Its bytes.
    """

    def __init__(self, url: str, length: int) -> None:
        self._url, self._length, self._at = url, length, 0

    def readable(self) -> bool:
        """Tell that it can be read.

        Returns
        -------
        bool
            True.
        """
        return True

    def seekable(self) -> bool:
        """Tell that it can seek.

        Returns
        -------
        bool
            True.
        """
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte.

        Parameters
        ----------
        offset : int
            Where to.
        whence : int
            Counted from the beginning, from here or from the end.

        Returns
        -------
        int
            Where it is now.
        """
        self._at = offset + (0, self._at, self._length)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - collections.abc.Buffer
        """Fill a buffer with the next bytes.

        Parameters
        ----------
        buffer : buffer of bytes
            To be filled.

        Returns
        -------
        int
            How many there were: fewer than have room at the end alone.
        """
        size = min(len(buffer), max(0, self._length - self._at))
        buffer[:size] = remote_bytes(self._url, self._at, size)
        self._at += size
        return size


def opened(file: str, length: int) -> BinaryIO:
    """Open a file to be read from front to back, here and there.

    Parameters
    ----------
    file : str
        A path or a URL.
    length : int
        Bytes of what lies at a URL.

    Returns
    -------
    binary file
        On a disk without a buffer of its own; at a URL it has a piece.
    """
    if is_url(file):
        return io.BufferedReader(RemoteStream(file, length), PIECE)
    return cast("BinaryIO", Path(file).open("rb", buffering=0))
