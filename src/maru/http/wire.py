"""What every request must be before a service sees it, and what every response carries."""

from __future__ import annotations

import asyncio
import random
import re
from itertools import chain
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maru.http.disconnect import ClientGone
from maru.http.problem import Envelope, Problem, respond

# RFC 3986's reg-name and IPv4 without percent-encoding, or a bracketed IPv6 address; then a port.
# The underscore is not a host name's, but container networks give names with it.
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_CLOSE = {"connection": "close"}


BODY_RECEIVED = "maru.body_received"
"""In the scope and true where the server already has the whole body, so that `receive` won't wait for it."""


class Wire:
    """Pure ASGI around one service: bounds what a request may send, and refuses in the service's envelope.

    Refused before the service is called: more than `max_headers` fields or `max_header_bytes` of fields and
    target (431), anything but one valid Host (400), an encoded body (415), a declared length over
    `max_body_bytes` (413). Refused while the body arrives, by raising a `Problem` out of `receive`: a body
    that grows over the limit (413), or isn't complete `body_timeout_s` after the service began to read it
    (408). Such a Problem is the answer whatever the service makes of it. Nothing is buffered here.

    HEAD is answered as GET without the body. Each request has an id, the caller's `X-Request-ID` when that is
    1 to 128 visible ASCII characters, at `scope["maru.request_id"]` and in the response.
    """

    def __init__(
        self,
        app: ASGIApp,
        envelope: Envelope,
        *,
        max_body_bytes: int = 256 * 1024,
        body_timeout_s: float = 10.0,
        max_header_bytes: int = 16 * 1024,
        max_headers: int = 64,
    ) -> None:
        self.app = app
        self.envelope = envelope
        self.max_body_bytes = max_body_bytes
        self.body_timeout_s = body_timeout_s
        self.max_header_bytes = max_header_bytes
        self.max_headers = max_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        fields: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(fields)
        scope["maru.request_id"] = request_id
        refusal = self._refusal(scope, fields)
        if scope["type"] == "http":
            await self._http(_Exchange(self, scope, receive, send, request_id), refusal, fields)
        elif refusal is None:
            await self.app(scope, receive, send)
        else:
            await _deny(respond(refusal, self.envelope, request_id), scope, receive, send)

    async def _http(self, exchange: _Exchange, refusal: Problem | None, fields: dict[bytes, bytes]) -> None:
        scope = exchange.scope
        has_body = _has_body(fields)
        if refusal is not None:
            if has_body:
                refusal.headers |= _CLOSE
            await exchange.refuse(refusal)
            return
        if exchange.head:
            scope = {**scope, "method": "GET"}
        # A declared length was checked, and one that is here can't be late: nothing is left to watch.
        watch = has_body and (b"transfer-encoding" in fields or not scope.get(BODY_RECEIVED))
        try:
            await self.app(scope, exchange.receive if watch else exchange.raw_receive, exchange.send)
        except (ClientGone, ClientDisconnect):
            return
        except asyncio.CancelledError:
            # The server is out of patience with us. Who waits is told so, rather than "internal error".
            if not exchange.started:
                await exchange.refuse(
                    Problem(503, "SHUTTING_DOWN", "the server is stopping", headers={"retry-after": "1"})
                )
            raise
        except Exception as exc:
            problem = exchange.problem or (exc if isinstance(exc, Problem) else None)
            if problem is None or exchange.started:
                raise
            await exchange.refuse(problem)
        else:
            if exchange.problem is not None and not exchange.started:
                await exchange.refuse(exchange.problem)

    def _refusal(self, scope: Scope, fields: dict[bytes, bytes]) -> Problem | None:
        """The problem with a request's head, if there is one."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        size = len(b"".join(chain.from_iterable(headers)))
        size += len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if len(headers) > self.max_headers or size > self.max_header_bytes:
            return Problem(431, "HEADERS_TOO_LARGE", "the request's headers are too large", headers=dict(_CLOSE))
        repeated = len(fields) != len(headers)
        if not _HOST.fullmatch(fields.get(b"host", b"")) or (repeated and _count(headers, b"host") != 1):
            return Problem(400, "BAD_REQUEST", "the request must have one valid Host header")
        if not _has_body(fields):
            return None
        if b"content-encoding" in fields and any(
            value.lower() != b"identity" for name, value in headers if name == b"content-encoding"
        ):
            return Problem(
                415,
                "UNSUPPORTED_MEDIA_TYPE",
                "the body must be sent without a Content-Encoding",
                headers={"accept-encoding": "identity"},
            )
        if int(fields.get(b"content-length", b"0")) > self.max_body_bytes:
            return self.too_large()
        return None

    def too_large(self) -> Problem:
        message = f"the body is larger than {self.max_body_bytes} bytes"
        return Problem(413, "PAYLOAD_TOO_LARGE", message, headers=dict(_CLOSE))


class _Exchange:
    """One request's `receive` and `send`, watched."""

    __slots__ = (
        "_deadline",
        "_reading",
        "_received",
        "_request_id",
        "_send",
        "_wire",
        "ended",
        "head",
        "problem",
        "raw_receive",
        "scope",
        "started",
    )

    def __init__(self, wire: Wire, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self._wire = wire
        self._send = send
        self._request_id = request_id
        self._reading = True
        self._received = 0
        self._deadline: float | None = None
        self.scope = scope
        self.raw_receive = receive
        self.head = scope["method"] == "HEAD"
        self.problem: Problem | None = None
        """Why the body was refused. From then on it is the answer."""
        self.started = False
        self.ended = False

    async def receive(self) -> Message:
        if self.problem is not None:
            raise self.problem
        if not self._reading:
            return await self.raw_receive()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._wire.body_timeout_s
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self.raw_receive()
        except TimeoutError:
            self.problem = Problem(408, "REQUEST_TIMEOUT", "the body did not arrive in time", headers=dict(_CLOSE))
            raise self.problem from None
        self._received += len(message.get("body", b""))
        if self._received > self._wire.max_body_bytes:
            self.problem = self._wire.too_large()
            raise self.problem
        self._reading = message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self.problem is not None and message["status"] != self.problem.status:
                return
            self.started = True
            await self._send({**message, "headers": self._headers(message)})
        elif not self.started or self.ended:
            return
        elif self.head and message["type"] == "http.response.body":
            # Even of a stream: once the response is complete its source is told that the client left.
            self.ended = True
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        headers = [*message.get("headers", ()), (b"x-request-id", self._request_id.encode()), _NOSNIFF]
        if self.problem is not None and not _count(headers, b"connection"):
            headers.append((b"connection", b"close"))
        return headers

    async def refuse(self, problem: Problem) -> None:
        await respond(problem, self._wire.envelope, self._request_id)(self.scope, self.raw_receive, self.send)


def _request_id(fields: dict[bytes, bytes]) -> str:
    given = fields.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return f"{random.getrandbits(128):032x}"  # unique, which it must be, not secret


def _has_body(fields: dict[bytes, bytes]) -> bool:
    return b"content-length" in fields or b"transfer-encoding" in fields


def _count(headers: list[tuple[bytes, bytes]], wanted: bytes) -> int:
    return sum(name == wanted for name, _ in headers)


async def _deny(response: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket handshake, with the response where the server can send one."""
    await receive()
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await response(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
