"""A server that callbacks are sent to, which answers as a test tells it to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from maru.http.standard_webhooks import key_of, verify


@dataclass(frozen=True, slots=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def check(self, secret: str) -> None:
        """Raises BadSignature unless it was signed with `secret`."""
        h = self.headers
        verify(
            key_of(secret), self.body, id=h["webhook-id"], timestamp=h["webhook-timestamp"],
            signature=h["webhook-signature"], now=time.time(),
        )  # fmt: skip


class Receiver:
    """`with` it. `status` and `headers` are its answer; while `hangs` it takes requests and says nothing."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        self._go = threading.Event()
        self._go.set()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/callback?token=1"

    @property
    def ids(self) -> set[str]:
        return {each.id for each in self.received}

    def hang(self, hangs: bool = True) -> None:
        self._go.clear() if hangs else self._go.set()

    def wait(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        until = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < until, f"it did not come true; received {len(self.received)}"
            time.sleep(0.02)

    def __enter__(self) -> Receiver:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.received.append(Received(self.path, headers, body))
                receiver._go.wait()
                try:
                    self.send_response(receiver.status)
                    for name, value in receiver.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                except OSError:
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._go.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
