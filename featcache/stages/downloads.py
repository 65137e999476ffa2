"""Downloads: a file is whole and the published one, or it is not there."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from socket import gaierror
from typing import IO, BinaryIO, Literal, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from featcache.core.errors import DownloadError, StorageError
from featcache.core.progress import Progress
from featcache.core.text import shown
from featcache.store.files import replacing, storing

OFFLINE = (
    "FEATCACHE_OFFLINE"  # environment: anything but empty or 0 forbids the network
)

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 16  # bytes read at once
_LARGEST = 4 << 30  # bytes taken where neither we nor the server know the size
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Checksum:
    """What the bytes of a file must hash to."""

    algorithm: Literal["sha1", "sha256"]
    digits: str  # lower-case hex, all of them or the first few

    @property
    def complete(self) -> bool:
        """Whether all digits are known, so that nobody can forge a match."""
        return len(self.digits) == 2 * _hasher(self).digest_size


@dataclass(frozen=True)
class RemoteFile:
    """A published file; there is none without a checksum."""

    url: str
    checksum: Checksum
    size: int | None = None  # bytes, where known


class _FailedError(Exception):
    """Why a download failed, in a few words; never seen outside of this module."""


def download(
    file: RemoteFile, target: Path, *, progress: Progress, otherwise: str
) -> Path:
    """Return a published file's place on disk; fetch it when it is not there.

    A file that is there is checked and reused, never fetched again. A new one is
    written beside the target, checked, synced and renamed; whatever goes wrong, and
    at Ctrl-C, nothing of it stays.

    Parameters
    ----------
    file : RemoteFile
        What is wanted.
    target : Path
        Where it belongs; the folder is made.
    progress : Progress
        Hears of the bytes that arrived (unit ``B``).
    otherwise : str
        What works without the file, for the error message: ``'use --weights random'``.

    Returns
    -------
    Path
        The target.

    Raises
    ------
    DownloadError
        When the file cannot be had (no network, ``FEATCACHE_OFFLINE``, an HTTP error,
        a body too short or too long), or when the bytes, new or already there, are
        not the published ones.
    StorageError
        When the disk is full, or the file or its folder may not be read or written.
    """
    with storing(target):
        there = target.exists()
    if there:
        _check_present(file, target, otherwise)
        return target
    try:
        _fetch(file, target, progress)
    except _FailedError as failure:
        raise DownloadError(
            f"cannot download {file.url}: {failure}; "
            f"put the file at {shown(target)} by hand, or {otherwise}"
        ) from failure
    return target


def _check_present(file: RemoteFile, target: Path, otherwise: str) -> None:
    wanted = file.checksum
    try:
        with target.open("rb") as source:
            found = hashlib.file_digest(source, lambda: _hasher(wanted)).hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read {shown(target)}: {error.strerror}") from error
    if not found.startswith(wanted.digits):
        raise DownloadError(
            f"{shown(target)} is not the published file: {_mismatch(wanted, found)}; "
            f"delete it, put {file.url} in its place, or {otherwise}"
        )


def _hasher(checksum: Checksum) -> "hashlib._Hash":
    # sha1 is what some publishers give; not to be refused by a FIPS build of OpenSSL
    return hashlib.new(checksum.algorithm, usedforsecurity=False)


def _mismatch(wanted: Checksum, found: str) -> str:
    digits = found[: len(wanted.digits)]
    verb = "is" if wanted.complete else "begins with"
    return f"its {wanted.algorithm} {verb} {digits}, expected {wanted.digits}"


def _fetch(file: RemoteFile, target: Path, progress: Progress) -> None:
    _check_allowed(file)
    with (
        _connect(file) as response,
        replacing(target) as partial,
        partial.open("xb") as sink,
    ):
        _receive(file, response, sink, progress)


def _check_allowed(file: RemoteFile) -> None:
    if os.environ.get(OFFLINE, "") not in ("", "0"):
        raise _FailedError(f"{OFFLINE} is set")
    if not _trusted(file.url, file.checksum):
        raise _FailedError("only https is trusted without a complete checksum")


def _trusted(url: str, checksum: Checksum) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "http":
        return checksum.complete or parts.hostname in _LOCAL
    return parts.scheme == "https"


class _Redirects(HTTPRedirectHandler):
    """Follows a redirect only to where the file could have been asked for."""

    def __init__(self, checksum: Checksum) -> None:
        self.checksum = checksum

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> Request | None:
        if not _trusted(newurl, self.checksum):
            reason = f"redirect to {newurl}, which is not https"
            raise HTTPError(req.full_url, code, reason, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _connect(file: RemoteFile) -> HTTPResponse:
    request = Request(file.url, headers={"User-Agent": "featcache"})  # noqa: S310 - _trusted
    with _network():
        opener = build_opener(_Redirects(file.checksum))
        return cast("HTTPResponse", opener.open(request, timeout=_TIMEOUT))


@contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        with error:  # it holds the connection
            raise _FailedError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _FailedError(_reason(error)) from error


def _reason(error: OSError | HTTPException) -> str:
    if isinstance(error, URLError) and isinstance(error.reason, OSError):
        return _reason(error.reason)
    if isinstance(error, TimeoutError):
        return f"no answer for {_TIMEOUT:g} seconds"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, gaierror):
        text = f"host not found, is there a network? ({text})"
    return " ".join(text.split())


def _receive(
    file: RemoteFile, response: HTTPResponse, sink: BinaryIO, progress: Progress
) -> None:
    size = _expected_size(file, response)
    limit = _LARGEST if size is None else size
    digest = _hasher(file.checksum)
    received = 0
    progress.begin(f"download {file.url.rsplit('/', 1)[-1]}", size or 0, unit="B")
    try:
        for chunk in _chunks(response):
            received += len(chunk)
            if received > limit:
                raise _FailedError(f"more than {limit:,} bytes came")
            sink.write(chunk)
            digest.update(chunk)
            progress.advance(len(chunk))
    finally:
        progress.end()
    if size is not None and received < size:
        raise _FailedError(f"the connection ended after {received:,} of {size:,} bytes")
    if not digest.hexdigest().startswith(file.checksum.digits):
        mismatch = _mismatch(file.checksum, digest.hexdigest())
        raise _FailedError(f"what came is not the published file: {mismatch}")


def _expected_size(file: RemoteFile, response: HTTPResponse) -> int | None:
    stated = response.length  # of the body, from Content-Length
    if None not in (stated, file.size) and stated != file.size:
        raise _FailedError(f"the server has {stated:,} bytes, expected {file.size:,}")
    return stated if file.size is None else file.size


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    while True:
        # the network's errors are told apart here from the disk's
        with _network():
            chunk = response.read(_CHUNK)
        if not chunk:
            return
        yield chunk
