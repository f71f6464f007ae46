"""Style servers as processes of their own, and a host that has images."""

from __future__ import annotations

import http.server
import io
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.conftest import Server, serving

KEY = "a-plain-key-of-the-crud-api-0123456789"
OTHER_KEY = "the-next-key-of-the-crud-api-9876543210"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Clients that need not read the system's certificates are made at once."""


class StyleServer(Server):
    """A server, and what a client says to it."""

    def open(self, key: str | None = KEY, **options: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, timeout=30, headers=headers, verify=NO_TLS, **options)

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]


@contextmanager
def styling(home: Path, **settings: Any) -> Iterator[StyleServer]:
    """A server whose state and output are in `home`."""
    given = {"api_keys": [KEY, OTHER_KEY], **settings}
    with serving(StyleServer, "tests.contracts.style.serve", home, given) as server:
        yield server


def picture(width: int = 320, height: int = 240, kind: str = "JPEG", **options: Any) -> bytes:
    """A picture of three plain colours: half of it dark blue, a third light grey, the rest red."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:] = (0x2C, 0x3E, 0x50)
    pixels[height // 2 :] = (0xEC, 0xF0, 0xF1)
    pixels[height * 5 // 6 :] = (0xE7, 0x4C, 0x3C)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


class Host:
    """A host on loopback with the files that are put into `files`, some of them `moved`; `silent` ones never answer."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.moved: dict[str, str] = {}
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.released = threading.Event()
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append(self.path)
                path = self.path.partition("?")[0]
                if path in host.silent:
                    host.released.wait(30)
                found = host.files.get(path)
                moved = host.moved.get(path)
                self.send_response(302 if moved else 404 if found is None else 200)
                if moved:
                    self.send_header("Location", moved)
                self.send_header("Content-Length", str(len(found or b"")))
                self.end_headers()
                self.wfile.write(found or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.name = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://{self.name}{path}"

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="session")
def cdn() -> Iterator[Host]:
    host = Host()
    host.files["/room_images/room_123.jpg"] = picture()
    yield host
    host.close()


@pytest.fixture(scope="session")
def style(tmp_path_factory: pytest.TempPathFactory, cdn: Host) -> Iterator[StyleServer]:
    """A server of the starter, for tests that change nothing."""
    with styling(tmp_path_factory.mktemp("style"), allowed_hosts=[cdn.name]) as server:
        server.wait()
        yield server


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory, cdn: Host) -> Iterator[StyleServer]:
    """A server of a model that is known to the last digit."""
    with styling(tmp_path_factory.mktemp("toy"), allowed_hosts=[cdn.name], toy={}) as server:
        server.wait()
        yield server


def eventually(condition: Any, timeout_s: float = 10.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.01)
