"""Worker processes, as the process that gives them work sees them."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from typing import Any

from featcache.core import errors
from featcache.core.errors import FeatcacheError
from featcache.core.locations import Location, location_to_json
from featcache.stages.posts import Post
from featcache.store.ledger import Ledger

Answer = tuple[Mapping[str, Any], bytes]  # what a worker says, and its rows' bytes

_PATIENCE = 5.0  # seconds for a process to end when its pipe has


class WorkerLostError(Exception):
    """A worker's process ended while work was with it."""


class Worker:
    """One process of a worker, from its start to its end.

    Parameters
    ----------
    post : Post
        Device and job.
    bury : callable
        Called with this object when the process has ended, before anybody who waits
        for an answer hears of it.

    Attributes
    ----------
    ready : Future
        What the worker has set up; an error where it cannot work.
    ended : bool
        Whether the process is gone.
    failure : BaseException or None
        What the worker said before it ended.
    expelled : bool
        Whether it was ended from here, since it hung.
    suspects : set of int
        Rows that it was decoding when it ended.
    """

    def __init__(self, post: Post, bury: Callable[["Worker"], None]) -> None:
        self.post = post
        self.ready: Future[Mapping[str, Any]] = Future()
        self.ended = self.expelled = False
        self.failure: BaseException | None = None
        self.suspects: set[int] = set()
        self._bury = bury
        self._numbers = count()
        self._asked: dict[int, tuple[Future[Answer], int]] = {}
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._process = _started(post)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._send(post.job.line() + post.tensors)

    @property
    def load(self) -> float:
        """How many blocks are with the worker, for each of its threads."""
        return len(self._asked) / self.post.job.threads

    @property
    def returncode(self) -> int:
        """The exit code, as `subprocess` gives it."""
        return self._process.wait()

    def attach(self, ledger: Ledger) -> None:
        """Tell where to note what is being decoded.

        Parameters
        ----------
        ledger : Ledger
            Open.
        """
        slots = self.post.slots
        path = os.fspath(ledger.path)
        self._send(_line({"ledger": path, "first": slots.start, "stop": slots.stop}))

    def ask(
        self,
        rows: Sequence[int],
        files: Sequence[Location],
        views: Sequence[int],
        expected: int,
    ) -> "Future[Answer]":
        """Give the worker a block.

        Parameters
        ----------
        rows : sequence of int
            Of the cache.
        files : sequence of Path or Member
            The image of each.
        views : sequence of int
            How many views of each are wanted.
        expected : int
            Bytes of features, digests and status in the answer.

        Returns
        -------
        Future
            Of the answer.

        Raises
        ------
        WorkerLostError
            When the process has ended, here or from the future.
        """
        answer: Future[Answer] = Future()
        with self._lock:
            if self.ended:
                raise WorkerLostError
            number = next(self._numbers)
            self._asked[number] = answer, expected
        places = [location_to_json(file) for file in files]
        wanted = {"rows": list(rows), "files": places, "views": list(views)}
        self._send(_line({"number": number, **wanted}))
        return answer

    def kill(self) -> None:
        """End the process; it has nothing to put in order."""
        self._process.kill()

    def close(self) -> None:
        """End the process and wait for that."""
        self.kill()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()

    def _send(self, line: bytes) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        # Where the process has ended, the listener tells everybody.
        with self._sending, suppress(OSError, ValueError):
            pipe.write(line)
            pipe.flush()

    def _listen(self) -> None:
        """Take in what the worker says, and its end; one thread's life."""
        pipe = self._process.stdout
        assert pipe is not None
        try:
            while line := pipe.readline():
                if not line.endswith(b"\n"):
                    break  # it ended in the middle of a word
                self._hear(json.loads(line), pipe.read)
        except EOFError:
            pass
        except BaseException as error:
            self.failure = error
        self._end()

    def _hear(self, message: Mapping[str, Any], read: Callable[[int], bytes]) -> None:
        if "error" in message:
            self.failure = rebuilt(message, self.post.place)
        elif "ready" in message:
            self.ready.set_result(message["ready"])
        else:
            number = message["number"]
            answer, expected = self._asked[number]
            payload = read(expected)
            if len(payload) < expected:
                raise EOFError
            with self._lock:
                del self._asked[number]
            answer.set_result((message, payload))

    def _end(self) -> None:
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._bury(self)
        with self._lock:
            self.ended = True
            waiting = [answer for answer, _ in self._asked.values()]
            self._asked.clear()
        reason = self.failure or WorkerLostError()
        for answer in waiting:
            answer.set_exception(reason)
        if not self.ready.done():
            self.ready.set_exception(reason)


def _started(post: Post) -> "subprocess.Popen[bytes]":
    # A terminal's Ctrl-C is for this process, which then ends the others.
    group: dict[str, Any] = {"process_group": 0}
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "featcache.stages.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=post.environment(),
        **group,
    )


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def rebuilt(message: Mapping[str, Any], place: str) -> Exception:
    """Return the error that a worker has told of, with its place.

    Parameters
    ----------
    message : mapping
        ``error``, a class of featcache's or nothing, and ``text``.
    place : str
        Device or machine.

    Returns
    -------
    Exception
        To be raised.
    """
    if not message["error"]:
        return RuntimeError(f"the process on {place} failed:\n{message['text']}")
    kind = getattr(errors, message["error"], FeatcacheError)
    found: Exception = kind(f"{place}: {message['text']}")
    return found


def ending(returncode: int) -> str:
    """Return how a process ended.

    Parameters
    ----------
    returncode : int
        As `subprocess` gives it.

    Returns
    -------
    str
        Such as ``was killed (SIGKILL)``.
    """
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"was ended by signal {-returncode}"
