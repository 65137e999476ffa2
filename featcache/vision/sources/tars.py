"""Tar archives from front to back: where each member's bytes lie, nothing unpacked.

The headers alone are read, and by our own few lines: `tarfile` makes an object of 20
fields for each member, which takes ten times as long, and takes an archive that was
cut off for a complete one. What both read is the same; the tests compare them.
"""

import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_BLOCK = 512
_END = bytes(_BLOCK)
_SPACES = b" " * 8
_REGULAR = (b"0", b"\0", b"7")
_EXTENSIONS = (b"L", b"K", b"x", b"g")  # say something of the next member
_WINDOW = 2048  # bytes: a label, and the headers around it
_MAX_EXTENSION = 1 << 20  # bytes of a header's extension; a path has some hundreds
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstd",
}


class TarMember(NamedTuple):
    """One regular file in a tar."""

    name: bytes
    start: int  # of its bytes
    size: int


class BrokenTarError(Exception):
    """The archive cannot be read any further.

    Parameters
    ----------
    offset : int
        Of the member, or of its end, that is not as it should be.
    reason : str
        What is wrong.
    cut : bool
        Whether the members before it are whole.
    """

    def __init__(self, offset: int, reason: str, *, cut: bool = False) -> None:
        super().__init__(reason)
        self.offset, self.reason, self.cut = offset, reason, cut


class Windows:
    """A file of which small parts are wanted, each a little behind the last.

    Parameters
    ----------
    stream : binary file
        Best without a buffer of its own.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.length = stream.seek(0, os.SEEK_END)
        self._stream, self._start, self._held = stream, 0, b""

    def read(self, start: int, size: int) -> bytes:
        """Return some bytes; what lies close behind them is read with them.

        Parameters
        ----------
        start, size : int
            Which bytes.

        Returns
        -------
        bytes
            Fewer at the end of the file.
        """
        at = start - self._start
        if at < 0 or at + size > len(self._held):
            self._stream.seek(start)
            self._held = self._stream.read(max(size, _WINDOW))
            self._start, at = start, 0
        return self._held[at : at + size]


def tar_members(windows: Windows) -> Iterator[TarMember]:
    """Yield the regular files of a tar in the order of their bytes.

    Parameters
    ----------
    windows : Windows
        The archive: ustar, GNU or PAX, not compressed.

    Yields
    ------
    TarMember
        Links, folders and devices are passed over.

    Raises
    ------
    BrokenTarError
        When it ends too early, is damaged, or of a kind that has no members to seek.
    """
    at, told = 0, _Told()
    while (header := _block(windows, at)) != _END:
        _check(header, at)
        start, kind = at + _BLOCK, header[156:157]
        size = _number(header[124:136], at)
        if told.size is not None and kind not in _EXTENSIONS:
            size = told.size
        stop = start + size
        if stop > windows.length:
            raise BrokenTarError(at, f"ends within {_shown(header)}", cut=True)
        if kind in _EXTENSIONS:
            _require_small(size, at)
            told.hear(kind, windows.read(start, size), at)
        else:
            if kind == b"S":
                raise BrokenTarError(at, "holds a sparse file; make it without")
            if kind in _REGULAR:
                name = told.name or _name(header)
                if not name.endswith(b"/"):  # before ustar, folders were called so
                    yield TarMember(name, start, size)
            told = _Told()
        at = start + -(-size // _BLOCK) * _BLOCK
    _require_end(windows, at)


class _Told:
    """What headers in front of a member say of it."""

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.size: int | None = None

    def hear(self, kind: bytes, data: bytes, at: int) -> None:
        if kind == b"L":
            self.name = data.split(b"\0", 1)[0]
        elif kind == b"x":
            for key, value in _records(data, at):
                if key == b"path":
                    self.name = value
                elif key == b"size":
                    if not value.isdigit():
                        raise BrokenTarError(at, "is damaged")
                    self.size = int(value)
                elif key.startswith(b"GNU.sparse."):
                    raise BrokenTarError(at, "holds a sparse file; make it without")


def _block(windows: Windows, at: int) -> bytes:
    block = windows.read(at, _BLOCK)
    if len(block) == _BLOCK:
        return block
    if at == 0 and not windows.length:
        raise BrokenTarError(0, "is empty")
    raise BrokenTarError(at, "ends without the mark of its end", cut=True)


def _check(header: bytes, at: int) -> None:
    """Compare the header's sum, by the fastest sum that Python has.

    The low half of Adler-32 is one more than the sum of the bytes, modulo 65521.
    """
    found = zlib.adler32(
        header[156:], zlib.adler32(_SPACES, zlib.adler32(header[:148]))
    )
    try:
        stored = int(header[148:156].strip(b"\0 "), 8)
    except ValueError:
        stored = -1
    if found & 0xFFFF == (1 + stored) % 65521 and stored >= 0:
        return
    for magic, kind in _MAGIC.items():
        if at == 0 and header.startswith(magic):
            raise BrokenTarError(0, f"is compressed with {kind}; unpack that first")
    raise BrokenTarError(at, "is no tar archive" if at == 0 else "is damaged")


def _number(field: bytes, at: int) -> int:
    try:
        if field[0] & 0x80:  # GNU's way to sizes of 8 GiB and more
            return int.from_bytes(field[1:])
        return int(field.strip(b"\0 ") or b"0", 8)
    except ValueError:
        raise BrokenTarError(at, "is damaged") from None


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:
        return header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name


def _records(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    r"""Yield key and value of each record, ``b"18 path=some name\n"``."""
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(data):
            raise BrokenTarError(at, "is damaged")
        record, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        key, _, value = record.partition(b"=")
        yield key, value


def _require_small(size: int, at: int) -> None:
    if size > _MAX_EXTENSION:
        raise BrokenTarError(at, "is damaged")


def _require_end(windows: Windows, at: int) -> None:
    """Refuse what follows the end: a joined archive would be read in part only."""
    for start in range(at, windows.length, _MAX_EXTENSION):
        data = windows.read(start, _MAX_EXTENSION)
        if data.count(0) != len(data):
            raise BrokenTarError(
                at,
                f"ends at byte {at:,} of {windows.length:,} with more behind it, as "
                "archives do that were joined by cat; join them with tar --concatenate",
            )


def _shown(header: bytes) -> str:
    from featcache.core.text import shown

    return shown(_name(header))
