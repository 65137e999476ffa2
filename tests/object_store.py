"""An S3 server on this machine, and one before it that fails as the real ones do."""

import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERRORS = {
    "500": "InternalError",
    "503": "SlowDown",
    "403": "SignatureDoesNotMatch",
    "400": "ExpiredToken",
}


class Store:
    """A proxy to an S3 server; ``faults`` are what happens to the next reads.

    Each is an error such as ``500``, ``cut`` (half of the body), ``reset`` (half, and
    the connection is reset), ``hang`` (no answer) or ``ok``; ``always`` is that of all
    requests from now on.
    """

    def __init__(self, url: str) -> None:
        self.faults: list[str] = []
        self.always = ""
        self.delay = 0.0  # seconds before each answer
        self.requests: list[tuple[str, str]] = []  # path and range
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(url))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self, url: str) -> type[BaseHTTPRequestHandler]:  # noqa: C901
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                ranged = self.headers.get("Range", "")
                store.requests.append((self.path, ranged))
                fault = store.faults.pop(0) if ranged and store.faults else "ok"
                fault = store.always or fault
                time.sleep(store.delay)
                if fault == "hang":
                    time.sleep(4)
                    self.close_connection = True
                elif fault in ERRORS:
                    error = f"<Error><Code>{ERRORS[fault]}</Code></Error>"
                    self.answer(int(fault), {}, error.encode())
                else:
                    self.pass_on(fault)

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the base class' names

            def pass_on(self, fault: str) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else None
                headers = {k: v for k, v in self.headers.items() if k != "Host"}
                asked = urllib.request.Request(
                    url + self.path, body, headers, method=self.command
                )
                try:
                    with urllib.request.urlopen(asked, timeout=10) as found:
                        self.answer(
                            found.status, dict(found.headers), found.read(), fault
                        )
                except urllib.error.HTTPError as error:
                    self.answer(error.code, dict(error.headers), error.read())

            def answer(self, status, headers, body, fault="ok") -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in (
                        "content-length",
                        "transfer-encoding",
                        "connection",
                        "date",
                        "server",
                    ):
                        self.send_header(name, value)
                length = headers.get("Content-Length", len(body))
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if fault in ("cut", "reset"):
                    body, self.close_connection = body[: len(body) // 2], True
                if self.command != "HEAD":
                    self.wfile.write(body)
                if fault == "reset":  # without what is still to be sent
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, linger
                    )
                    self.connection.close()

            def log_message(self, *_: object) -> None:
                pass

        return Handler
