"""uvicorn's HTTP/1.1 protocol with the limits it leaves out: on time, on bytes, and on connections.

A connection is in one phase at a time, and each phase has a deadline:

    FRESH     connected, nothing said yet              closed after `first_byte_s`
    HEAD      in the middle of a request's head        408 after `head_s`
    BUSY      a request is being answered              the application's own deadlines hold
    SURPLUS   answered before the body was all here    closed after `head_s`
    IDLE      kept alive between requests              closed after `idle_s`
    FINISHED  nothing more is read or answered         aborted after `linger_s`

Apart from phases, a peer that takes nothing of what is written for `write_timeout_s` is cut off: a response
waiting in memory for a reader who does not read is held by nothing else.
"""

from __future__ import annotations

import asyncio
import enum
import http
import math
import select
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from maru.http.crowd import Crowd
from maru.http.disconnect import DEPARTURE, Departure
from maru.http.wire import BODY_RECEIVED

_HELD_BYTES = 64 * 1024
"""How much a client may send ahead, behind a request that is being answered, before it is no longer read."""

_PIPELINED = 16
"""How many requests may stand in one read; a client that sends more is answered the first and let go."""

_LAST_MOMENT_S = 0.5
"""How long a server that stops waits for the request of a client that has just connected."""

_READ_S = 0.005
"""How much longer a client is waited for whose bytes are here when its time is up: in a turn of the event loop timers
come before what sockets have received, and turns may be long."""

_CHUNK_OVERHEAD = 16
"""Bytes of framing that each byte of a chunked body is given: the chunk's size line and line ends."""


class _Phase(enum.Enum):
    FRESH = enum.auto()
    HEAD = enum.auto()
    BUSY = enum.auto()
    SURPLUS = enum.auto()
    IDLE = enum.auto()
    FINISHED = enum.auto()


class Connection(HttpToolsProtocol):
    """One client's connection. Its `crowd` is shared by all connections of a server."""

    def __init__(
        self,
        crowd: Crowd,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._crowd = crowd
        self._bounds = crowd.bounds
        self._phase = _Phase.FRESH
        self._deadline = math.inf
        self._spared = False
        self._write_deadline = math.inf
        self._unwritten = 0
        self._timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        self._task: asyncio.Task[None] | None = None
        self._in_head = False
        self._overhead = 0
        self._held = bytearray()
        self._departure = Departure()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._outlet = cast(asyncio.Transport, _Outlet(self, transport))
        excess = len(self.connections) - self._bounds.max_connections
        if excess <= 0 or self._crowd.make_room():
            self._crowd.waiting[self] = None
            self._wait(_Phase.FRESH, self._bounds.first_byte_s)
        elif excess <= self._bounds.max_connections // 4 + 1:
            self._refuse(503, "too many connections", b"retry-after: 1\r\n")
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.waiting.pop(self, None)
        self._disarm()
        # uvicorn tells the newest request only, while an older one may be running.
        for cycle in [self._running, *(cycle for cycle, _ in self.pipeline)]:
            if cycle is not None:
                _abandon(cycle)
        self.pipeline.clear()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._crowd.waiting.pop(self, None)
        self._disarm()
        super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        """Close after what is being answered; a client that has only just connected gets a moment to ask."""
        if self._phase in (_Phase.FRESH, _Phase.HEAD):
            self._expect(min(self._deadline, self.loop.time() + _LAST_MOMENT_S))
        elif self._phase is _Phase.BUSY:
            self.cycle.keep_alive = False
        elif self._phase is not _Phase.FINISHED:
            self.finish()

    def data_received(self, data: bytes) -> None:
        if self._phase is _Phase.FINISHED:
            return
        running = self._running
        if running is not None and not running.response_complete and not running.more_body:
            # Not parsed before the answer is out, so that the end of the connection is always noticed.
            self._held += data
            if len(self._held) > _HELD_BYTES:
                self.flow.pause_reading()
            return
        in_head, cycle = self._in_head, self.cycle
        body = len(cycle.body) if cycle is not None else 0
        self._task = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError:
            self._malformed(400, "the request is malformed")
        else:
            if self._in_head:
                self._overhead += len(data) if in_head else 0
            elif cycle is self.cycle and cycle is not None and not in_head and not cycle.response_complete:
                grown = len(cycle.body) - body
                self._overhead = max(0, self._overhead + len(data) - grown * (1 + _CHUNK_OVERHEAD))
            if self._overhead > self._bounds.max_header_bytes:
                self._malformed(431, "the request's headers are too large")

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _PIPELINED:
            raise httptools.HttpParserError("too many pipelined requests")
        super().on_message_begin()
        self._in_head = True
        self._overhead = 0
        if not self._answering():
            self._wait(_Phase.HEAD, self._bounds.head_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        # A field after the body must not become a header of a request that was already let in.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.get_http_version() == "0.9":
            raise httptools.HttpParserError("HTTP/0.9 has no head")
        self._in_head = False
        self._overhead = 0
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self._departure = self.scope[DEPARTURE] = Departure()  # type: ignore[literal-required]
            self.cycle.transport = self._outlet
            if self._crowd.parting:
                self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.scope[BODY_RECEIVED] = True  # type: ignore[literal-required]
        self._departure.told = True
        self.flow.resume_reading()  # or the end of a connection with a large body would go unnoticed
        if self._phase is _Phase.SURPLUS:
            self._wait(_Phase.IDLE, self._bounds.idle_s)

    def _upgrade(self) -> None:
        if not self._should_upgrade():
            # Answered as if it had not asked; but the parser reads no further requests here.
            self.cycle.keep_alive = False
        elif self._answering() or _announces_body(self.headers):
            # uvicorn would write its 101 into the answer before; and wait for the body without a deadline.
            self._malformed(400, "this is no place for a WebSocket handshake")
        else:
            self.handle_websocket_upgrade()

    def _malformed(self, status: int, message: str) -> None:
        """Refuse what can't be read further. Each request has one answer at most, this one included."""
        running = self._running
        if self._phase is _Phase.SURPLUS:
            self.finish(linger=True)
        elif running is None or running.response_complete:
            self._refuse(status, message)
        elif not running.more_body:
            # A good request is being answered, and what came behind it is refused by closing.
            running.keep_alive = False
            self.pipeline.clear()
            self._phase = _Phase.FINISHED
        else:
            _abandon(running)
            if self._task is not None:
                self._task.cancel()
            if running.response_started:
                self.transport.abort()
            else:
                self._refuse(status, message)

    def _answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        self._crowd.waiting.pop(self, None)
        self._phase = _Phase.BUSY
        self._deadline = math.inf
        self._task = self.loop.create_task(cycle.run_asgi(app))
        self._task.add_done_callback(self.tasks.discard)
        self.tasks.add(self._task)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self._running is not None:
            _depart(self._running)
        if self._phase is _Phase.FINISHED or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._crowd.waiting[self] = None
            if self._in_head:
                self._wait(_Phase.HEAD, self._bounds.head_s)
            elif self.cycle.more_body:
                self._wait(_Phase.SURPLUS, self._bounds.head_s)
            else:
                self._wait(_Phase.IDLE, self._bounds.idle_s)
        if self._held:
            held, self._held = bytes(self._held), bytearray()
            self.data_received(held)

    def _refuse(self, status: int, message: str, headers: bytes = b"") -> None:
        """Answer in place of the application, and close."""
        lines = [b"HTTP/1.1 %d %s\r\n" % (status, http.HTTPStatus(status).phrase.encode())]
        lines += [b"%s: %s\r\n" % field for field in self.server_state.default_headers]
        lines += [headers, b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"]
        lines += [b"content-length: %d\r\n\r\n" % len(message), message.encode()]
        self.transport.write(b"".join(lines))
        self.finish(linger=True)

    def finish(self, *, linger: bool = False) -> None:
        """Close once everything is written; lingering, once the client has had time to stop sending too.

        A socket closed with something unread in it resets the connection, and the client may lose an
        answer that it has not read yet.
        """
        self._crowd.waiting.pop(self, None)
        self._unwritten = self.transport.get_write_buffer_size()
        self._write_deadline = math.inf
        bounds = self._bounds
        self._wait(_Phase.FINISHED, bounds.write_timeout_s if self._unwritten else bounds.linger_s)
        if linger and self.transport.can_write_eof() and not self.transport.is_closing():
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def response_closed(self) -> None:
        """The running response is the connection's last."""
        self.finish(linger=self._running is not None and self._running.more_body)

    def _wait(self, phase: _Phase, seconds: float) -> None:
        self._phase = phase
        self._expect(self.loop.time() + seconds)

    def _expect(self, deadline: float) -> None:
        self._deadline, self._spared = deadline, False
        self._arm(deadline)

    def _arm(self, when: float) -> None:
        """See to it that `_look` is called by `when`. A timer that is due earlier stays, and looks again."""
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._look)

    def _disarm(self) -> None:
        self._deadline = self._write_deadline = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self.loop.time()
        if now >= self._write_deadline:
            self._stalled(now)
        if now >= self._deadline and self._unheard():
            self._spared, self._deadline = True, now + _READ_S
        elif now >= self._deadline:
            self._deadline = math.inf
            self._expire()
        when = min(self._deadline, self._write_deadline)
        if when < math.inf:
            self._arm(when)

    def _unheard(self) -> bool:
        """Whether a request has begun to arrive that was not read yet; once, as its head has a deadline of its own."""
        if self._spared or self._phase not in (_Phase.FRESH, _Phase.IDLE):
            return False
        arrived = select.poll()
        arrived.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(arrived.poll(0))

    def _expire(self) -> None:
        if self._phase is _Phase.HEAD:
            self._refuse(408, "the request's head did not arrive in time")
        elif self._phase is not _Phase.FINISHED:
            self.finish()
        elif self._taking():
            self._expect(self.loop.time() + self._bounds.write_timeout_s)
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unwritten = self.transport.get_write_buffer_size()
        self._write_deadline = self.loop.time() + self._bounds.write_timeout_s
        self._arm(self._write_deadline)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_deadline = math.inf

    def _stalled(self, now: float) -> None:
        if self._taking():
            self._write_deadline = now + self._bounds.write_timeout_s
        else:
            self._disarm()
            self.transport.abort()

    def _taking(self) -> bool:
        """Whether the peer has taken anything since the last look."""
        before, self._unwritten = self._unwritten, self.transport.get_write_buffer_size()
        return self._unwritten < before


class _Outlet:
    """The transport as a response sees it. Closing it leaves the client time to read what was written.

    A response's head waits for the first of its body, until the end of this turn of the event loop at most: in
    one write they wake the client once.
    """

    __slots__ = ("_connection", "_flushing", "_head", "_transport", "is_closing")

    def __init__(self, connection: Connection, transport: asyncio.Transport) -> None:
        self._connection = connection
        self._transport = transport
        self._head = b""
        self._flushing: asyncio.Handle | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
            head, self._head = self._head, b""
            self._transport.write(head + data)
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._flushing = self._connection.loop.call_soon(self.write, b"")
        else:
            self._transport.write(data)

    def close(self) -> None:
        if self._flushing is not None:
            self.write(b"")
        self._connection.response_closed()


def _abandon(cycle: RequestResponseCycle) -> None:
    """Tell the application that this request's client is gone, and drop what it still sends."""
    if not cycle.response_complete:
        cycle.disconnected = True
        _depart(cycle)
    cycle.message_event.set()


def _depart(cycle: RequestResponseCycle) -> None:
    departure: Departure = cycle.scope[DEPARTURE]  # type: ignore[literal-required]
    departure.happen()


def _announces_body(headers: list[tuple[bytes, bytes]]) -> bool:
    fields = dict(headers)
    return b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0"
