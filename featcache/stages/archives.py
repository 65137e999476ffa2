"""Archives: a zip file becomes a folder, and nothing outside of it is touched."""

import shutil
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from featcache.core.errors import DataError, FeatcacheError
from featcache.core.progress import Progress
from featcache.core.text import shown
from featcache.store.files import storing

_RATIO = 20  # images hardly shrink, so a sound archive is far below this factor
_MOST_MEMBERS = 200_000
_DEEPEST = 16  # folders in one another
_CHUNK = 1 << 16  # bytes unpacked at once
_ENCRYPTED = 0x1  # bit of a member's flags
_KINDS = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: packed where there are no kinds

# what zipfile raises on hostile bytes, found by flipping every byte of an archive
_BROKEN = (
    BadZipFile,
    EOFError,
    NotImplementedError,
    OSError,
    ValueError,
    struct.error,
    zlib.error,
)


def unpack(
    archive: Path, target: Path, *, progress: Progress, limit: int | None = None
) -> None:
    """Write every file of a zip archive below a folder.

    Names are checked before the first byte is written, sizes while writing (a header
    may lie), contents against their CRC. Times, owners and permissions of the archive
    are not taken over.

    Parameters
    ----------
    archive : Path
        A zip file, stored or deflated.
    target : Path
        An empty folder; whatever was written stays there after an error.
    progress : Progress
        Hears of the files.
    limit : int, optional
        Bytes that may be written in all; default 20 times the archive's size.

    Raises
    ------
    DataError
        When the archive is broken or encrypted, holds a link, a name twice or one
        that is absolute or leaves the folder, or is larger than the limit.
    StorageError
        When the disk is full or the folder cannot be written.
    """
    with _judging(archive), ZipFile(archive) as packed:
        room = _RATIO * archive.stat().st_size if limit is None else limit
        members = packed.infolist()
        if len(members) > _MOST_MEMBERS:
            raise BadZipFile(f"it has more than {_MOST_MEMBERS:,} members")
        files = {info: target.joinpath(*_safe_parts(info)) for info in members}
        progress.begin(f"unpack {archive.name}", len(files), unit="file")
        try:
            for info, path in files.items():
                with storing(path):
                    room -= _write(packed, info, path, room)
                progress.advance(1)
        finally:
            progress.end()


@contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """Give an empty folder; what it then holds under the target's name is renamed.

    So a target that is there is complete, even after a kill. (After a power cut its
    files may be empty: they are not synced one by one.)

    Parameters
    ----------
    target : Path
        The folder to be made, not there yet.

    Yields
    ------
    Path
        A hidden folder beside the target; it goes away in the end.

    Raises
    ------
    StorageError
        When the disk is full or the folder cannot be written.
    """
    partial = target.with_name(f".{target.name}.{uuid4().hex}.partial")
    with storing(target):
        try:
            partial.mkdir(parents=True)
            yield partial
            _publish(partial / target.name, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _publish(made: Path, target: Path) -> None:
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        # another process was faster, and its folder is as complete as ours


@contextmanager
def _judging(archive: Path) -> Iterator[None]:
    try:
        yield
    except FeatcacheError:
        raise
    except _BROKEN as error:
        raise DataError(f"{shown(archive)} cannot be unpacked: {error}") from error


def _safe_parts(info: ZipInfo) -> list[str]:
    """Return the parts of a member's name, once it is known to be harmless."""
    name = info.orig_filename  # `filename` is already cut at NUL
    parts = name.removesuffix("/").split("/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    complaints = {
        "has a name with a backslash, a colon or NUL": set(name) & set("\\:\0"),
        "is absolute": name.startswith("/"),
        # Windows drops dots and spaces at the end, so ".. " is ".." there
        "leaves the folder": any(not part.strip(". ") for part in parts),
        "lies too deep": len(parts) > _DEEPEST,
        "is a link or a device": kind not in _KINDS,
        "is encrypted": info.flag_bits & _ENCRYPTED,
        "is packed in an unusual way": info.compress_type
        not in (ZIP_STORED, ZIP_DEFLATED),
    }
    for complaint, holds in complaints.items():
        if holds:
            raise BadZipFile(f"its member {shown(name)!r} {complaint}")
    return parts


def _write(packed: ZipFile, info: ZipInfo, path: Path, room: int) -> int:
    """Write one member, at most ``room`` bytes, and return how many it had."""
    try:
        if info.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            return 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as sink:
            for chunk in _content(packed, info):
                if sink.tell() + len(chunk) > room:
                    raise BadZipFile("it holds far more than its size lets expect")
                sink.write(chunk)
            return sink.tell()
    except (FileExistsError, NotADirectoryError) as error:
        raise BadZipFile(f"it holds {shown(info.filename)!r} twice") from error


def _content(packed: ZipFile, info: ZipInfo) -> Iterator[bytes]:
    try:
        with packed.open(info) as source:
            while chunk := source.read(_CHUNK):
                yield chunk
    except OSError as error:  # such as a header that points to nowhere
        raise BadZipFile(error.strerror) from error
