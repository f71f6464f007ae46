"""Server-sent events, as the WHATWG HTML standard defines them (section 9.2)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from maru.engine.cutoff import Cutoff
from maru.engine.errors import Draining
from maru.http.disconnect import DEPARTURE, ClientGone, unless_gone

_LINE_END = re.compile(r"\r\n|\r|\n")
_FORBIDDEN = frozenset("\r\n\0")
_HEARTBEAT = b":\n\n"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event. `data` may be any text: its lines arrive joined by LF, however they were ended.

    `event` and `id` can't hold a line end or a NUL: ValueError.
    """

    data: str
    event: str | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        for value in (self.event, self.id):
            if value is not None and not _FORBIDDEN.isdisjoint(value):
                raise ValueError("an event's name and id can't hold a line end or a NUL")

    @classmethod
    def of(cls, value: Any, event: str | None = None, id: str | None = None) -> ServerEvent:
        """An event whose data is `value` as JSON, on one line."""
        return cls(orjson.dumps(value).decode(), event, id)

    def encode(self) -> bytes:
        """The event's frame. A lone surrogate, which UTF-8 can't carry, becomes a question mark."""
        data = self.data
        if "\n" in data or "\r" in data:
            data = "\ndata: ".join(_LINE_END.split(data))
        name = "" if self.event is None else f"event: {self.event}\n"
        mark = "" if self.id is None else f"id: {self.id}\n"
        return f"{name}{mark}data: {data}\n\n".encode(errors="replace")


SHUTDOWN = ServerEvent.of({"message": "the server is shutting down"}, "server_shutdown")
"""The last event of a stream that the server ends because it is stopping."""


class EventStream(Response):
    """A stream of the events that `source` yields, and the owner of `source`.

    `source` is entered before anything is sent: what it raises then (a full queue, an unknown model) is
    raised to whoever called this response, and can still become a status code. After that an error is sent
    as the event that `describe` makes of it, and `last`, by default `SHUTDOWN`, when `ending` is set, and the
    stream ends. The source is left, and its iterator closed, whatever happens: at the end, on an error, when
    the client leaves, or takes longer than `write_timeout_s` over one event.

    A comment is sent when nothing else was for `heartbeat_s`, so that a dead connection is noticed.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: AbstractAsyncContextManager[AsyncIterator[ServerEvent]],
        *,
        ending: asyncio.Event,
        describe: Callable[[Exception], ServerEvent],
        headers: Mapping[str, str] | None = None,
        last: ServerEvent | None = None,
        heartbeat_s: float = 15.0,
        write_timeout_s: float = 5.0,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})})
        self._source = source
        self._ending = ending
        self._describe = describe
        self._last = last or SHUTDOWN
        self._heartbeat_s = heartbeat_s
        self._write_timeout_s = write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the stream. ClientGone, like any error, is raised only if nothing was sent before."""
        channel = _Channel(send, self._write_timeout_s)
        try:
            await unless_gone(receive, self._run(channel), scope.get(DEPARTURE))
        except ClientGone:
            if not channel.started:
                raise

    async def _run(self, channel: _Channel) -> None:
        try:
            last = await self._relay(channel)
        except Exception as exc:
            if not channel.started:
                raise
            last = self._describe(exc)
        # By now the source is left: who is slow to take the end of the stream holds nothing.
        if last is not None:
            await channel.write(last.encode())
        await channel.write(b"", more=False)

    async def _relay(self, channel: _Channel) -> ServerEvent | None:
        """Send the source's events. The event to end with, if there is to be one."""
        try:
            with Cutoff() as cut:
                keeper = asyncio.create_task(self._keep(channel, cut))
                try:
                    async with self._source as events:
                        await channel.start(self.status_code, self.raw_headers)
                        await _pour(events, channel)
                finally:
                    keeper.cancel()
        except Exception:
            if not cut.reached:
                raise
            if not channel.started:
                raise Draining("the server is stopping") from None
        return self._last if cut.reached else None

    async def _keep(self, channel: _Channel, cut: Cutoff) -> None:
        """Beat while the source is silent. Cut it short when the server stops or the client is stuck."""
        while not (channel.stuck or self._ending.is_set()):
            try:
                async with asyncio.timeout_at(channel.last_sent + self._heartbeat_s):
                    await self._ending.wait()
            except TimeoutError:
                await channel.beat(self._heartbeat_s)
        cut.after(0.0)


async def _pour(events: AsyncIterator[ServerEvent], channel: _Channel) -> None:
    try:
        async for event in events:
            await channel.write(event.encode())
            if channel.stuck:
                return
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


class _Channel:
    """The way to the client: one message at a time, and none for longer than the deadline."""

    def __init__(self, send: Send, write_timeout_s: float) -> None:
        self._send = send
        self._write_timeout_s = write_timeout_s
        self._writing = asyncio.Lock()
        self._now = asyncio.get_running_loop().time
        self.last_sent = self._now()
        self.started = False
        self.stuck = False
        """Whether the client did not take a message in time, or is gone. Nothing more is sent to it."""

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        await self._put({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, frame: bytes, more: bool = True) -> None:
        await self._put({"type": "http.response.body", "body": frame, "more_body": more})

    async def _put(self, message: Message) -> None:
        async with self._writing:
            if self.stuck:
                return
            try:
                with Cutoff() as cut:
                    cut.after(self._write_timeout_s)
                    await self._send(message)
            except OSError:  # TimeoutError is one, and what servers raise when the client is gone
                self.stuck = True
            self.last_sent = self._now()

    async def beat(self, every_s: float) -> None:
        """Send a comment if nothing was sent for so long."""
        if not self.started:
            self.last_sent = self._now()
        elif self._now() >= self.last_sent + every_s:
            await self.write(_HEARTBEAT)
