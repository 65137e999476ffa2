"""Remote files by fsspec: found, looked at, and read.

Credentials are the caller's, as fsspec and the libraries below it find them.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from featcache.core.addresses import is_url
from featcache.core.errors import DataError, DependencyError, UnreachableError
from featcache.core.libraries import optional
from featcache.core.text import shown
from featcache.vision.sources.trying import RemoteError, tried

# What stores call the time of an object's last change.
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")
_HTTP_TIME = "Last-Modified"


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Parameters
    ----------
    url : str
        Such as ``s3://bucket/key``.

    Returns
    -------
    fsspec.AbstractFileSystem, str
        Connected when it is first asked.

    Raises
    ------
    DependencyError
        When fsspec is not installed, or lacks the library for the scheme.
    DataError
        When fsspec knows no such scheme.
    """
    fsspec = optional("fsspec", f"reading {shown(url)}", extra="remote")
    scheme = url.partition("://")[0]
    try:
        found: tuple[Any, str] = fsspec.url_to_fs(url)
    except ImportError:
        known = import_module("fsspec.registry").known_implementations[scheme]["class"]
        library = known.partition(".")[0].replace("fsspec", "aiohttp")
        raise DependencyError(
            f"{shown(url)} cannot be read: fsspec lacks {library}, the library for "
            f"{scheme}://; pip install {library}"
        ) from None
    except ValueError:
        raise DataError(
            f"{shown(url)}: fsspec knows no {scheme}:// addresses"
        ) from None
    return found


def forget_listings(url: str) -> None:
    """Forget what was listed of a store, before it is looked at anew.

    Parameters
    ----------
    url : str
        Anything in it.
    """
    file_system(url)[0].invalidate_cache()


def remote_files(pattern: str) -> list[str]:
    """Return the URLs of what a pattern without braces matches.

    Parameters
    ----------
    pattern : str
        A URL, perhaps with ``*``.

    Returns
    -------
    list of str
        Those that are there.

    Raises
    ------
    UnreachableError
        When nobody answers, or access is refused.
    """
    system, path = file_system(pattern)
    if "*" in path or "?" in path:
        found = tried(pattern, lambda: system.glob(path))
    else:
        found = [path] if tried(pattern, lambda: _exists(system, path)) else []
    return [_url(pattern, system, each) for each in found]


def _url(like: str, system: Any, path: str) -> str:  # noqa: ANN401 - of fsspec
    """Return the URL of a path, written as another one of the same store is."""
    plain: str = system._strip_protocol(path)  # noqa: SLF001
    if is_url(plain):  # HTTP strips nothing
        return plain
    return f"{like.split('://', 1)[0]}://{plain.lstrip('/')}"


def _exists(system: Any, path: str) -> bool:  # noqa: ANN401 - of fsspec
    try:  # whose own answer is no, whatever went wrong
        system.info(path)
    except FileNotFoundError:
        return False
    return True


def remote_status(url: str) -> tuple[int, int | None]:
    """Return a remote file's size, and when it last changed.

    Parameters
    ----------
    url : str
        The file.

    Returns
    -------
    (int, int or None)
        Bytes, and nanoseconds; None where the store does not say.

    Raises
    ------
    RemoteError
        When there is no such file.
    UnreachableError
        When it cannot be looked at.
    """
    system, path = file_system(url)
    return status_of(url, tried(url, lambda: system.info(path)))


def status_of(url: str, info: Mapping[str, Any]) -> tuple[int, int | None]:
    """Return size and time out of what a store says of a file.

    Parameters
    ----------
    url : str
        The file, for the error.
    info : mapping
        As fsspec gives it.

    Returns
    -------
    (int, int or None)
        See `remote_status`.

    Raises
    ------
    RemoteError
        When it has no size.
    """
    size = info.get("size")
    if not isinstance(size, int):
        raise RemoteError(f"{shown(url)}: its store does not say how large it is")
    # In whole seconds, since a listing may say more than the answer for one file.
    with suppress(ValueError, TypeError):  # said in a way that nobody knows
        return size, int(_seconds(info)) * 10**9
    return size, None


def _seconds(info: Mapping[str, Any]) -> float:
    """Return the time of the last change, in seconds since 1970."""
    if _HTTP_TIME in info:
        return parsedate_to_datetime(info[_HTTP_TIME]).timestamp()
    changed = next((info[name] for name in _TIMES if info.get(name)), None)
    if isinstance(changed, str):
        changed = datetime.fromisoformat(changed)
    return (
        changed.timestamp() if isinstance(changed, datetime) else float(changed or "")
    )


def file_status(file: str) -> tuple[int, int]:
    """Return a file's size, and when it last changed.

    Parameters
    ----------
    file : str
        A path or a URL.

    Returns
    -------
    (int, int)
        Bytes, and nanoseconds; now, where a store does not say: then nothing but its
        bytes vouches for the file.

    Raises
    ------
    OSError
        When there is no such file.
    UnreachableError
        When its store fails.
    """
    if is_url(file):
        size, changed = remote_status(file)
        return size, time.time_ns() if changed is None else changed
    status = Path(file).stat()
    return status.st_size, status.st_mtime_ns


def remote_bytes(url: str, start: int, size: int) -> bytes:
    """Return a part of a remote file.

    Parameters
    ----------
    url : str
        The file.
    start, size : int
        Which bytes.

    Returns
    -------
    bytes
        All of them.

    Raises
    ------
    RemoteError
        When there is no such file.
    UnreachableError
        When they cannot be read, or are others than these.
    """
    system, path = file_system(url)

    def read() -> bytes:
        data = bytes(system.cat_file(path, start=start, end=start + size))
        if len(data) > size:
            raise UnreachableError(
                f"{shown(url)}: its server gives whole files alone, no parts of them; "
                "copy them to a disk or an object store"
            )
        if len(data) < size:
            raise RemoteError(f"it gives {len(data):,} of {size:,} bytes asked for")
        return data

    return tried(url, read, size) if size else b""


def remote_object(url: str, size: int) -> bytes:
    """Return a whole remote file.

    Parameters
    ----------
    url : str
        The file.
    size : int
        Its bytes when it was listed; 0 where nobody knows.

    Returns
    -------
    bytes
        As they are now.

    Raises
    ------
    RemoteError
        When there is no such file.
    UnreachableError
        When it cannot be read.
    """
    system, path = file_system(url)
    # From byte 0 on is one request; without, some libraries ask for the size before.
    how = {"start": 0} if size else {}
    return tried(url, lambda: bytes(system.cat_file(path, **how)), size)
