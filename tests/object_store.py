"""An S3 server on this machine, and one before it that fails as the real ones do."""

import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Store:
    """A proxy to an S3 server; ``faults`` are what happens to the next requests.

    Each is ``500``, ``cut`` (half of the body), ``hang`` (no answer) or ``ok``.
    """

    def __init__(self, url: str) -> None:
        self.faults: list[str] = []
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
                if fault == "hang":
                    time.sleep(4)
                    self.close_connection = True
                    return
                if fault == "500":
                    self.answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
                    return
                self.pass_on(fault)

            do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815 - the base class' names

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
                if self.command != "HEAD":
                    self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
                if fault == "cut":
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler
