"""A hub on loopback that speaks as much of the real one's API as a download needs, and can misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".model", ".gguf")
"""Files kept outside of git, named by their SHA-256."""


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Hub:
    """`files` of one repository, and how it misbehaves."""

    name: str
    files: dict[str, bytes]
    commit: str = COMMIT
    gated_for_all_but: str | None = None
    """A token; any other, or none, is refused as the hub refuses a gated repository."""
    refuses: int | None = None
    """A status that every request gets."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """After how many bytes the connection is cut, at the first, second, … download of a file."""
    sends: dict[str, bytes] = field(default_factory=dict)
    """Other bytes than those that the checksum is of."""
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range of each request."""
    url: str = ""

    def checksum(self, name: str) -> str:
        content = self.files[name]
        return hashlib.sha256(content).hexdigest() if name.endswith(LARGE) else git_sha1(content)

    def tree(self) -> list[dict[str, Any]]:
        entries = []
        for name, content in self.files.items():
            entry: dict[str, Any] = {
                "type": "file",
                "path": name,
                "size": len(content),
                "oid": git_sha1(content),
            }
            if name.endswith(LARGE):
                entry["lfs"] = {"oid": self.checksum(name), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return entries

    def downloads(self, name: str | None = None) -> list[str]:
        """The Range headers with which a file, or any, was asked for."""
        return [
            span for method, path, span in self.seen
            if method == "GET" and "/resolve/" in path and (name is None or path.endswith(f"/{name}"))
        ]  # fmt: skip


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._handle(body=True)

        def do_HEAD(self) -> None:
            self._handle(body=False)

        def _handle(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.seen.append((self.command, path, self.headers.get("Range", "")))
            if hub.refuses:
                return self._answer(hub.refuses, b"{}")
            if hub.gated_for_all_but and self.headers.get("Authorization") != f"Bearer {hub.gated_for_all_but}":
                return self._answer(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
            api, resolve = f"/api/models/{hub.name}", f"/{hub.name}/resolve/{hub.commit}/"
            if path in (f"{api}/revision/main", api):
                return self._answer(200, json.dumps({"id": hub.name, "sha": hub.commit, "siblings": []}).encode())
            if path.startswith(f"{api}/tree/{hub.commit}"):
                return self._answer(200, json.dumps(hub.tree()).encode())
            if path.startswith(resolve) and (name := path.removeprefix(resolve)) in hub.files:
                return self._file(name, body)
            return self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        def _file(self, name: str, body: bool) -> None:
            content = hub.sends.get(name, hub.files[name])
            headers = {
                "X-Repo-Commit": hub.commit,
                "ETag": f'"{hub.checksum(name)}"',
                "Accept-Ranges": "bytes",
            }
            span = self.headers.get("Range", "")
            start = int(span.removeprefix("bytes=").partition("-")[0]) if span and body else 0
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            cut = hub.cuts[name].pop(0) if body and hub.cuts.get(name) else None
            self._answer(206 if start else 200, content[start:], headers, body=body, cut=cut)

        def _answer(
            self, status: int, content: bytes, headers: dict[str, str] | None = None, *, body: bool = True,
            cut: int | None = None,
        ) -> None:  # fmt: skip
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content[:cut])
            if cut is not None:
                self.wfile.flush()
                self.connection.close()
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
