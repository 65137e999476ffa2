"""Remote files by fsspec: found, looked at, and read in large pieces.

Credentials are the caller's, as fsspec and the libraries below it find them. What these
say of a failure may repeat a header or a signed address, so that only the kind of it is
told.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from featcache.core.addresses import is_url
from featcache.core.errors import DataError, DependencyError, FeatcacheError
from featcache.core.libraries import optional
from featcache.core.text import shown

_TRIES = 4
_PAUSE = 0.5  # seconds before the second try; twice as long before each further one
_KINDS = (  # words in the names of errors, what they mean, and whether that may pass
    (
        ("NoCredential", "PartialCredential", "TokenRetrieval", "DefaultCredential"),
        "no credentials were found; set them as its client library wants",
        False,
    ),
    (
        ("Permission", "AccessDenied", "Forbidden", "Unauthorized", "InvalidAccessKey"),
        "access is refused; check the credentials and their rights",
        False,
    ),
    (("Timeout",), f"no answer in time, {_TRIES} times", True),
    (("Connect",), f"no connection, {_TRIES} times", True),
)

Result = TypeVar("Result")


class RemoteError(OSError):
    """A remote file cannot be read; says why in words without a secret."""


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
        raise DependencyError(
            f"{shown(url)} cannot be read: fsspec lacks the library for {scheme}://; "
            "pip install 'featcache[remote]' has the one for s3://"
        ) from None
    except ValueError:
        raise DataError(
            f"{shown(url)}: fsspec knows no {scheme}:// addresses"
        ) from None
    return found


def tried(url: str, action: Callable[[], Result]) -> Result:
    """Do something with a remote file, again where that may help.

    Parameters
    ----------
    url : str
        The file, for the error.
    action : callable
        What to do.

    Returns
    -------
    object
        What it returned.

    Raises
    ------
    RemoteError
        When it failed each time, or for good.
    """
    for number in range(1, _TRIES + 1):
        try:
            return action()
        except FeatcacheError:
            raise
        except Exception as error:
            reason, again = _reason(error)
            if number == _TRIES or not again:
                raise RemoteError(f"{shown(url)}: {reason}") from None
        time.sleep(_PAUSE * 2 ** (number - 1))
    raise AssertionError


def _reason(error: BaseException) -> tuple[str, bool]:
    """Return the kind of a failure in words, and whether another try may help."""
    if isinstance(error, RemoteError):
        return str(error), True
    if isinstance(error, FileNotFoundError):
        return "there is no such file", False
    said = getattr(error, "response", {}).get("Error", {})
    kind = f"{type(error).__name__} {said.get('Code', '')}".strip()
    for words, reason, again in _KINDS:
        if any(word in kind for word in words):
            return reason, again
    return f"it cannot be read ({kind})", True


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
    RemoteError
        When nobody answers, or access is refused.
    """
    system, path = file_system(pattern)
    if "*" in path or "?" in path:
        found = tried(pattern, lambda: system.glob(path))
    else:
        found = [path] if tried(pattern, lambda: _exists(system, path)) else []
    scheme = pattern.split("://", 1)[0]
    return [f"{scheme}://{system._strip_protocol(each).lstrip('/')}" for each in found]  # noqa: SLF001


def _exists(system: Any, path: str) -> bool:  # noqa: ANN401 - of fsspec
    try:  # whose own answer is no, whatever went wrong
        system.info(path)
    except FileNotFoundError:
        return False
    return True


def remote_status(url: str) -> tuple[int, int]:
    """Return a remote file's size, and when it last changed.

    Parameters
    ----------
    url : str
        The file.

    Returns
    -------
    (int, int)
        Bytes, and nanoseconds; now, where the store does not say: then only the bytes
        tell whether it is another.

    Raises
    ------
    RemoteError
        When it cannot be looked at.
    """
    system, path = file_system(url)
    size = int(tried(url, lambda: system.info(path))["size"])
    try:
        changed = system.modified(path)
    except Exception:
        return size, time.time_ns()
    return size, int(changed.timestamp()) * 10**9 + changed.microsecond * 1000


def file_status(file: str) -> tuple[int, int]:
    """Return a file's size, and when it last changed.

    Parameters
    ----------
    file : str
        A path or a URL.

    Returns
    -------
    (int, int)
        Bytes, and nanoseconds.

    Raises
    ------
    OSError
        When there is no such file.
    """
    if is_url(file):
        return remote_status(file)
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
        When they cannot be read, or are fewer.
    """
    system, path = file_system(url)

    def read() -> bytes:
        data = bytes(system.cat_file(path, start=start, end=start + size))
        if len(data) < size:
            raise RemoteError(f"it gives {len(data):,} of {size:,} bytes")
        return data

    return tried(url, read)
