"""A workshop on a real socket: a small service behind the wire guard, on the product's own server."""

from __future__ import annotations

import asyncio
import io
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any, Literal

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from maru.engine.errors import Draining
from maru.engine.events import Events
from maru.engine.lifecycle import Lifecycle
from maru.http.crowd import Bounds
from maru.http.disconnect import unless_gone
from maru.http.problem import Problem, respond
from maru.http.server import Server, serve
from maru.http.sse import EventStream, ServerEvent
from maru.http.strict_json import BadJson, loads
from maru.http.wire import Wire

Loop = Literal["uvloop", "asyncio"]
QUICK = Bounds(first_byte_s=0.4, head_s=0.4, idle_s=0.4, write_timeout_s=0.4, linger_s=0.3, max_connections=40)
"""Deadlines short enough to be waited for."""


def envelope(problem: Problem) -> dict[str, Any]:
    return {"error": problem.code, "message": problem.message, "details": problem.details}


class Workshop:
    """A service with slots to lose: `slots` is who holds one now, `ran` how many were given in all."""

    def __init__(self, *, watched: bool = True, **guard: Any) -> None:
        self.lifecycle = Lifecycle(Events())
        self.slots = 0
        self.ran = 0
        self.requests = 0
        self._watched = watched
        routes = [
            Route("/", self.hello, methods=["GET", "POST"]),
            Route("/json", self.json, methods=["POST"]),
            Route("/size", self.size, methods=["POST"]),
            Route("/slow", self.slow, methods=["GET", "POST"]),
            Route("/big", self.big),
            Route("/events", self.events),
            Route("/ready", self.ready),
            Route("/slots", lambda request: JSONResponse(self.slots)),
        ]
        service = Starlette(
            routes=routes,
            lifespan=self.lifespan,
            exception_handlers={Problem: self.problem, Draining: self.draining},
        )
        self.app: ASGIApp = Wire(service, envelope, **guard)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.lifecycle.advance("ready")
        print("ready", file=sys.stderr, flush=True)
        yield
        self.lifecycle.advance("stopped")

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        self.slots += 1
        self.ran += 1
        try:
            yield
        finally:
            self.slots -= 1

    async def problem(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return respond(error, envelope, request.scope["maru.request_id"])

    async def draining(self, request: Request, error: Exception) -> Response:
        return await self.problem(request, Problem(503, "SHUTTING_DOWN", str(error)))

    async def hello(self, request: Request) -> Response:
        self.requests += 1
        return JSONResponse({"hello": request.query_params.get("name", "world")})

    async def json(self, request: Request) -> Response:
        self.requests += 1
        try:
            return JSONResponse({"value": loads(await request.body())})
        except BadJson as bad:
            raise Problem(400, "BAD_REQUEST", str(bad)) from None

    async def size(self, request: Request) -> Response:
        self.requests += 1
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return JSONResponse({"size": size, "fields": sorted(key for key, _ in request.headers.items())})

    async def slow(self, request: Request) -> Response:
        self.requests += 1
        await request.body()
        seconds = _number(request, "s", 30)

        async def work() -> None:
            with self.lifecycle:
                async with self.slot():
                    await asyncio.sleep(seconds)

        await (unless_gone(request.receive, work()) if self._watched else work())
        return JSONResponse({"slept": seconds})

    async def big(self, request: Request) -> Response:
        return Response(bytes(int(_number(request, "n", 0))))

    async def ready(self, request: Request) -> Response:
        state = self.lifecycle.state
        client = request.client.host if request.client else None
        return JSONResponse({"state": state, "client": client}, 200 if state == "ready" else 503)

    async def events(self, request: Request) -> Response:
        count = int(_number(request, "n", 1e9))
        every = _number(request, "every", 0.01)
        size = int(_number(request, "size", 10))

        @asynccontextmanager
        async def source() -> AsyncIterator[AsyncIterator[ServerEvent]]:
            async def events() -> AsyncIterator[ServerEvent]:
                for number in range(count):
                    yield ServerEvent("x" * size, id=str(number))
                    await asyncio.sleep(every)
                yield ServerEvent.of({"count": count}, "done")

            if "full" in request.query_params:
                raise Problem(429, "TOO_MANY_REQUESTS", "later", headers={"retry-after": "3"})
            async with self.slot():
                yield events()

        return EventStream(
            source(),
            ending=self.lifecycle.ending,
            describe=lambda error: ServerEvent.of({"error": type(error).__name__}, "error"),
            heartbeat_s=_number(request, "beat", 15),
            write_timeout_s=_number(request, "patience", 0.4),
        )


def _number(request: Request, name: str, default: float) -> float:
    try:
        value = float(request.query_params.get(name, default))
    except ValueError:
        value = -1
    if not 0 <= value <= 1e9:
        raise Problem(400, "BAD_REQUEST", f"{name} is not a number from 0 to 1e9")
    return value


@dataclass
class Reply:
    """A response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Live:
    """A running server, and its workshop."""

    def __init__(self, workshop: Workshop, server: Server, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._stopped = False
        self.workshop = workshop
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A connection, which with a small receive buffer soon can't be written to."""
        peer = socket.socket()
        if receive_buffer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        peer.settimeout(10)
        peer.connect(("127.0.0.1", self.port))
        return peer

    def say(self, *parts: bytes, method: str = "GET") -> list[Reply]:
        """Every response to these bytes on one connection, until the server closes it."""
        with self.connect() as peer:
            for part in parts:
                try:
                    peer.sendall(part)
                except OSError:
                    break
                if part is not parts[-1]:
                    time.sleep(0.02)
            return replies(everything(peer), method)

    def get(self, path: str = "/") -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def stop(self, *, once: bool = False) -> None:
        """What a signal does. Again, what a second one does, unless `once`."""
        if not (once and self._stopped):
            self._stopped = True
            self._loop.call_soon_threadsafe(self.server.stop)

    def hold_up(self, seconds: float, turns: int = 1) -> None:
        """Have the event loop do nothing for so long, in each of its next turns."""

        def hold(left: int) -> None:
            time.sleep(seconds)
            if left > 1:
                self._loop.call_soon(hold, left - 1)

        self._loop.call_soon_threadsafe(hold, turns)

    def hold_up_reading(self, seconds: float) -> None:
        """The same, while it reads from its sockets."""
        ours, its = socket.socketpair()

        def hold() -> None:
            self._loop.remove_reader(its)
            time.sleep(seconds)
            its.close()

        self._loop.call_soon_threadsafe(self._loop.add_reader, its, hold)
        ours.close()

    def refuses(self) -> bool:
        """Whether no connection is taken any more."""
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return True
        return False

    def connections(self) -> int:
        return len(self.server.server_state.connections)


class Alive:
    """An application that lacks a lifespan, with one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (word := (await receive())["type"]) != "lifespan.shutdown":
                await send({"type": word + ".complete"})
            await send({"type": word + ".complete"})
        else:
            await self._app(scope, receive, send)


@contextmanager
def served(
    workshop: Workshop | None = None,
    *,
    app: ASGIApp | None = None,
    loop: Loop = "uvloop",
    bounds: Bounds = QUICK,
    grace_s: float = 5,
    drain_delay_s: float = 0,
    forwarded_allow_ips: Sequence[str] = (),
) -> Iterator[Live]:
    """A server in a thread, of the workshop or of another app, which is stopped in the end."""
    workshop = workshop or Workshop()
    server = Server(
        Alive(app) if app else workshop.app,
        lifecycle_of=lambda: workshop.lifecycle,
        bounds=bounds,
        grace_s=grace_s,
        drain_delay_s=drain_delay_s,
        forwarded_allow_ips=forwarded_allow_ips,
        loop=loop,
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = listener.getsockname()[1]
    factory = server.config.get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        thread = threading.Thread(target=lambda: runner.run(server.serve([listener])))
        thread.start()
        live = Live(workshop, server, port, runner.get_loop())
        try:
            until(lambda: server.started)
            yield live
        finally:
            live.stop(once=True)
            thread.join(15)
            assert not thread.is_alive(), "the server did not stop"


def until(condition: Callable[[], bool], within_s: float = 5.0) -> float:
    """Wait for a condition; how long it took. Fails when it does not come true."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within_s, "did not come true in time"
        time.sleep(0.002)
    return time.monotonic() - started


def everything(peer: socket.socket) -> bytes:
    """All that the server sends before it closes the connection."""
    data = bytearray()
    try:
        while chunk := peer.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    return bytes(data)


def answer(peer: socket.socket) -> Reply:
    """The next response on a connection that is kept."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        data += _some(peer)
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < int(length.split(b":")[1]):
        body += _some(peer)
    (reply,) = replies(head + b"\r\n\r\n" + body)
    return reply


def _some(peer: socket.socket) -> bytes:
    part = peer.recv(65536)
    assert part, "the connection was closed"
    return part


def replies(data: bytes, method: str = "GET") -> list[Reply]:
    """The responses in these bytes. The last may be cut off."""
    stream = io.BytesIO(data)
    found: list[Reply] = []
    while stream.tell() < len(data):
        response = HTTPResponse(_Bytes(stream), method=method)  # type: ignore[arg-type]
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        found.append(Reply(response.status, headers, response.read()))
    return found


class _Bytes:
    """What HTTPResponse takes for a socket."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def makefile(self, mode: str) -> io.BufferedIOBase:
        return _Unclosed(self._stream)


class _Unclosed(io.BufferedIOBase):
    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def read(self, size: int | None = -1) -> bytes:
        return self._stream.read(size)

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)

    def readline(self, size: int | None = -1) -> bytes:
        return self._stream.readline(size)

    def close(self) -> None: ...


def reset(peer: socket.socket) -> None:
    """Close with RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


if __name__ == "__main__":
    shop = Workshop()
    sys.exit(
        serve(
            shop.app,
            fd=int(sys.argv[1]),
            lifecycle_of=lambda: shop.lifecycle,
            drain_delay_s=float(sys.argv[2]),
            grace_s=float(sys.argv[3]),
            loop="asyncio" if "asyncio" in sys.argv else "uvloop",
        )
    )
