"""A web site on this machine and a listener, for the stages that fetch files."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Reply:
    """What the site answers to one path."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    silent_until: threading.Event | None = None

    def sized(self, length: int | None = None) -> "Reply":
        """State the body's length, or another one."""
        length = len(self.body) if length is None else length
        self.headers["Content-Length"] = str(length)
        return self


class Site:
    """A real HTTP server on 127.0.0.1 that knows what was asked of it."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def publish(self, path: str, body: bytes) -> str:
        """Answer a path with these bytes and return its address."""
        self.replies[path] = Reply(body).sized()
        return self.url + path

    def close(self) -> None:
        """Stop listening; from now on connections are refused."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                reply = site.replies.get(self.path, Reply(status=404))
                if reply.silent_until is not None:
                    reply.silent_until.wait()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class Recorder:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int, str]] = []
        self.count = 0
        self.ended = 0

    def begin(self, task: str, total: int, *, unit: str, done: int = 0) -> None:
        """Write the task down."""
        self.tasks.append((task, total, unit))
        self.count += done

    def advance(self, count: int) -> None:
        """Add up."""
        self.count += count

    def end(self) -> None:
        """Count the ends."""
        self.ended += 1

    def say(self, line: str) -> None:
        """Not expected of these stages."""
        raise AssertionError(line)

    def detail(self, line: str) -> None:
        """Not of interest here."""


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an environment that neither forbids the network nor sends it elsewhere."""
    monkeypatch.delenv("FEATCACHE_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def site(online: None) -> Iterator[Site]:
    """Give a web site with nothing on it yet."""
    site = Site()
    yield site
    for reply in site.replies.values():
        if reply.silent_until is not None:
            reply.silent_until.set()
    site.close()


@pytest.fixture
def heard() -> Recorder:
    """Give a listener that writes down what it hears."""
    return Recorder()


@pytest.fixture
def body() -> bytes:
    """Give 200,000 bytes that no packing makes smaller: several reads long."""
    return hashlib.shake_128(b"featcache").digest(200_000)
