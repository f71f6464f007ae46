"""As much of HTTP/1.1 as a load generator needs, cheaply: requests as bytes, one answer at a time on a connection."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping

_CHUNKED = -1


class Garbled(Exception):
    """What came is not an answer to what was asked."""


def http_request(
    method: str, host: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of one keep-alive request with a JSON body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    """One non-blocking connection, being made or made, with at most one request on it.

    `number` is the request's, -1 while idle; `pending` what is still to be sent of it. The status, whether a
    Retry-After of whole seconds came with it, and whether the server will close, are known once `take` has
    given the body.
    """

    __slots__ = (
        "_chunks", "_have", "_need", "_start", "closing", "fd", "intended", "number", "pending",
        "retry_after", "sent", "sock", "status", "writing",
    )  # fmt: skip

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.sock.fileno()
        if self.sock.connect_ex(address) not in (0, errno.EINPROGRESS):
            self.sock.close()
            raise OSError("connect failed")
        self.number = -1
        self.pending = b""
        self.writing = True  # the epoll watches for writability: at first, for the connection to be made
        self.intended = self.sent = 0.0
        self.reset()

    def gone(self) -> bool:
        """Whether the server has closed it meanwhile, as clients look before they use a connection again."""
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def reset(self) -> None:
        """Ready for the next answer."""
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0
        self._start = 0
        self.status = 0
        self.closing = False
        self.retry_after = False

    def take(self, data: bytes) -> bytes | None:
        """What has just been received; the answer's body when that completes it."""
        self._chunks.append(data)
        self._have += len(data)
        if self._need > self._have:
            return None
        if len(self._chunks) > 1:
            data = b"".join(self._chunks)
            self._chunks = [data]
        try:
            if not self._need and not self._head(data):
                return None
            if self._need == _CHUNKED:
                return _dechunk(data, self._start)
        except ValueError:
            raise Garbled from None
        if self._need > len(data):
            return None
        if self._need < len(data):
            raise Garbled
        return data[self._start :]

    def _head(self, data: bytes) -> bool:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = data[:end].lower()
        if not head.startswith(b"http/1.1 ") or self.number < 0:
            raise Garbled
        self.status = int(head[9:12])
        self._start = end + 4
        length = _header(head, b"content-length")
        if length is not None:
            self._need = self._start + int(length)
        elif b"chunked" in (_header(head, b"transfer-encoding") or b""):
            self._need = _CHUNKED
        else:
            raise Garbled
        self.closing = b"\r\nconnection: close" in head
        if self.status != 200:
            self.retry_after = (_header(head, b"retry-after") or b"").isdigit()
        return True


def _header(head: bytes, name: bytes) -> bytes | None:
    at = head.find(b"\r\n" + name + b":")
    if at < 0:
        return None
    begin = at + len(name) + 3
    end = head.find(b"\r\n", begin)
    return head[begin : end if end >= 0 else len(head)].strip()


def _dechunk(data: bytes, at: int) -> bytes | None:
    """The body of a chunked answer whose chunks begin at `at`; None while some are missing."""
    parts: list[bytes] = []
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(data[at:end].partition(b";")[0], 16)
        begin = end + 2
        if len(data) < begin + size + 2:
            return None
        if not size:
            return b"".join(parts)
        parts.append(data[begin : begin + size])
        at = begin + size + 2
