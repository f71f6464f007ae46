"""Serve an application over HTTP/1.1, and stop without losing a request."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Required, TypedDict, Unpack, cast

import uvicorn
from starlette.types import ASGIApp

from maru.engine.lifecycle import Lifecycle
from maru.http.crowd import Bounds, Crowd
from maru.http.listener import Listener
from maru.http.protocol import Connection

_PARTING_S = 1.0
"""How long streams and requests that are cut short have to send their last words."""

_SPARE_FILES = 64
"""File descriptors kept for everything that is not a client's connection."""


def serve(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    fd: int | None = None,
    **options: Unpack[Options],
) -> int:
    """Serve `app` until SIGTERM or SIGINT, on `host` and `port` or on the listening socket `fd`.

    The exit status: 0 when every accepted request was answered, 1 when some were cut off. A failed start
    raises SystemExit.
    """
    server = Server(app, host, port, **options)
    listener = server.config.bind_socket() if fd is None else socket.socket(fileno=fd)
    server.run([listener])
    return 1 if server.cut_off else 0


class Options(TypedDict, total=False):
    """What a server may be told beside where it listens.

    `lifecycle_of` may answer None until the application has started. `X-Forwarded-For` is believed from
    the addresses in `forwarded_allow_ips` only; "*" is refused.
    """

    lifecycle_of: Required[Callable[[], Lifecycle | None]]
    grace_s: float
    drain_delay_s: float
    bounds: Bounds
    forwarded_allow_ips: Sequence[str]
    max_websocket_bytes: int
    loop: Literal["auto", "uvloop", "asyncio"]


class Server(uvicorn.Server):
    """uvicorn's server with an orderly end.

    On the first signal the lifecycle is draining at once, so that readiness fails; connections are still
    accepted for `drain_delay_s` (after SIGINT, not at all). Then running work has `grace_s` to finish, open
    streams end with their last event, and the application's lifespan is left. A second signal stops at once.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        lifecycle_of: Callable[[], Lifecycle | None],
        grace_s: float = 30.0,
        drain_delay_s: float = 2.0,
        bounds: Bounds | None = None,
        forwarded_allow_ips: Sequence[str] = (),
        max_websocket_bytes: int = 256 * 1024,
        loop: Literal["auto", "uvloop", "asyncio"] = "auto",
    ) -> None:
        if "*" in forwarded_allow_ips:
            raise ValueError("forwarded_allow_ips: with '*' any client could choose its own address")
        self.bounds = _affordable(bounds or Bounds())
        self._crowd = Crowd(self.bounds)
        config = uvicorn.Config(
            app,
            host,
            port,
            loop=loop,
            http=cast(Any, partial(Connection, self._crowd)),
            ws_max_size=max_websocket_bytes,
            lifespan="on",
            log_config=None,
            log_level="info",
            access_log=False,
            server_header=False,
            proxy_headers=bool(forwarded_allow_ips),
            forwarded_allow_ips=list(forwarded_allow_ips),
        )
        super().__init__(config)
        self._lifecycle_of = lifecycle_of
        self._grace_s = grace_s
        self._drain_delay_s = drain_delay_s
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._main: asyncio.Task[Any] | None = None
        self._listeners: list[Listener] = []
        self.cut_off = False
        """Whether requests were still unanswered when the grace was over."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._main = asyncio.current_task()
        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError, ValueError, RuntimeError):  # only Unix's main thread has signals
            loop.add_signal_handler(signal.SIGTERM, self.stop)
            loop.add_signal_handler(signal.SIGINT, self.stop, 0.0)
        try:
            await self._serve(sockets)
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise

    def stop(self, drain_delay_s: float | None = None) -> None:
        """Begin to drain, as on the first signal; called again, stop at once."""
        if self._stopping.is_set():
            self._hurry.set()
            return
        self._stopping.set()
        if not self.started and self._main is not None:
            self._main.cancel()
        if drain_delay_s is not None:
            self._drain_delay_s = drain_delay_s
        self._crowd.parting = True
        lifecycle = self._lifecycle_of()
        if lifecycle is not None:
            lifecycle.advance("draining")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        self._listeners = [Listener(sock, self._connection, self.config.backlog) for sock in sockets or ()]

    async def main_loop(self) -> None:
        while not self._stopping.is_set():
            await self.on_tick(0)
            await _within(1.0, self._stopping)
        await _within(self._drain_delay_s, self._hurry)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._stop_listening(sockets or [])
        for connection in list(self.server_state.connections):
            connection.shutdown()
        drain = asyncio.create_task(self._drain())
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((drain, hurry), return_when=asyncio.FIRST_COMPLETED)
        drain.cancel()
        hurry.cancel()
        await self._cut()
        if not self._hurry.is_set():
            await self.lifespan.shutdown()

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Take no more connections but those that clients already hold for made.

        The kernel completes a connection before it is accepted here; closing the socket would reset it.
        What comes in the microseconds after the last look is lost, unless a supervisor keeps the socket open.
        """
        doors = [sock.dup() for sock in sockets]
        for listener in self._listeners:
            await listener.close()
        for sock in sockets:
            sock.close()
        waiting: list[socket.socket] = []
        for door in doors:
            with door, suppress(OSError):
                door.setblocking(False)
                while True:
                    waiting.append(door.accept()[0])
        for client in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, client)

    def _connection(self) -> Connection:
        return Connection(self._crowd, self.config, self.server_state, self.lifespan.state)

    async def _drain(self) -> None:
        """Wait until all that was accepted is answered.

        The lifecycle is closed last. Nothing new can arrive: no connection is accepted any more, and each
        one that is open closes with its next answer. Closed first, it would refuse just those requests that
        are here but still being read or authenticated.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._grace_s
        lifecycle = self._lifecycle_of()
        if lifecycle is not None:
            await lifecycle.drained(self._grace_s)
        deadline = max(deadline, loop.time() + _PARTING_S)
        # Polled, for uvicorn tells nobody when the last one goes.
        while (self.server_state.tasks or self.server_state.connections) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if lifecycle is not None:
            lifecycle.close()

    async def _cut(self) -> None:
        """Cancel what is still being answered; it is told so, if it can be."""
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            self.cut_off = True
            await asyncio.wait(tasks, timeout=_PARTING_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for the event, but no longer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _affordable(bounds: Bounds) -> Bounds:
    """The bounds with no more connections, and a quarter to refuse, than the process may have files."""
    if sys.platform == "win32":
        return bounds
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return bounds
    room = max(files - _SPARE_FILES, files // 2) * 4 // 5
    return replace(bounds, max_connections=max(1, min(bounds.max_connections, room)))
