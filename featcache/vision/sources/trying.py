"""Trying: what is asked of a store, again where that may help, and not for ever.

What the libraries below say of a failure may repeat a header or a signed address, so
that only the kind of it is told.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from featcache.core.errors import FeatcacheError, UnreachableError
from featcache.core.text import shown

_TRIES = 6
_PAUSE = 0.5  # seconds before the second try; twice as long before each further one
# Seconds for all tries together, beside the transfer: the libraries below try again by
# themselves, and would go on for half an hour where a server takes no notice.
_PATIENCE = 60.0
_SLOWEST = 500_000  # bytes a second that a transfer may take
_LATER = "; what is done is kept: run the same command again later"
_KINDS = (  # words in the names of errors, what they mean, and whether that may pass
    (
        ("NoCredential", "PartialCredential", "TokenRetrieval", "DefaultCredential"),
        "no credentials were found; set them as its client library wants",
        False,
    ),
    (
        ("Permission", "AccessDenied", "InvalidAccessKey", "Error 401", "Error 403"),
        "access is refused; check the credentials and their rights",
        False,
    ),
    (("Timeout",), "no answer in time", True),
    (("Connect",), "no connection", True),
)

Result = TypeVar("Result")


class RemoteError(OSError):
    """There is no such remote file, or not the bytes that were asked for."""


class _LeftError(Exception):
    """What was begun did not end in time."""


def tried(url: str, action: Callable[[], Result], size: int = 0) -> Result:
    """Do something with a remote file, again where that may help.

    Parameters
    ----------
    url : str
        The file, for the error.
    action : callable
        What to do.
    size : int
        Bytes that it transfers, for which there is more time.

    Returns
    -------
    object
        What it returned.

    Raises
    ------
    RemoteError
        When there is no such file.
    UnreachableError
        When it failed each time, or for good; within about a minute.
    """
    end, pause = time.monotonic() + _PATIENCE + size / _SLOWEST, _PAUSE
    reason = "no answer in time"
    for number in range(1, _TRIES + 1):
        try:
            return _within(end - time.monotonic(), action)
        except FeatcacheError:
            raise
        except _LeftError:  # of which an earlier try may have said more
            break
        except Exception as error:
            if _is_missing(error):
                raise RemoteError(f"{shown(url)}: there is no such file") from None
            reason, again = _reason(error)
        if not again:
            raise UnreachableError(f"{shown(url)}: {reason}")
        if number == _TRIES or time.monotonic() + pause > end:
            break
        time.sleep(pause)
        pause *= 2
    tries = f", {number} times" if number > 1 else ""
    raise UnreachableError(f"{shown(url)}: {reason}{tries}{_LATER}")


def _within(seconds: float, action: Callable[[], Result]) -> Result:
    """Do something in so many seconds, or leave it behind."""
    done: Future[Result] = Future()

    def work() -> None:
        try:
            done.set_result(action())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return done.result(max(seconds, 0.0))
    except TimeoutError:
        if done.done():  # its own
            raise
        raise _LeftError from None


def _is_missing(error: Exception) -> bool:
    """Tell a missing file from what fsspec's HTTP takes for one: any failure at all."""
    cause = error.__cause__
    failed = type(cause).__module__.startswith("aiohttp")
    return isinstance(error, FileNotFoundError) and not (
        failed and getattr(cause, "status", 0) != 404
    )


def _reason(error: BaseException) -> tuple[str, bool]:
    """Return the kind of a failure in words, and whether another try may help."""
    if isinstance(error, RemoteError):
        return str(error), True
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    said = getattr(error, "response", None) or getattr(error.__cause__, "response", {})
    code = said.get("Error", {}).get("Code", "") if isinstance(said, dict) else ""
    kind = f"{type(error).__name__} {code or getattr(error, 'status', '')}".strip()
    for words, reason, again in _KINDS:
        if any(word in kind for word in words):
            return reason, again
    return f"it cannot be read ({kind})", True
