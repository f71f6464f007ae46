from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.types import Message

from maru.engine.errors import Draining, QueueFull
from maru.http.disconnect import ClientGone
from maru.http.sse import EventStream, ServerEvent

from .live import QUICK, Loop, reset, served, until

Source = AbstractAsyncContextManager[AsyncIterator[ServerEvent]]
LOOPS: tuple[Loop, ...] = ("uvloop", "asyncio")


@dataclass
class Heard:
    """An event as a browser dispatches it."""

    data: str
    event: str
    id: str


class Browser:
    """The event stream parser of the WHATWG HTML standard, 9.2.5 and 9.2.6, line by line."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self._data = ""
        self._event = ""
        self._last_id = ""

    def read(self, stream: bytes) -> list[Heard]:
        text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
        *lines, rest = re.split("\r\n|\n|\r", text)
        assert rest == "", "the last line has no end"
        for line in lines:
            self._line(line)
        return self.heard

    def _line(self, line: str) -> None:
        if line == "":
            self._dispatch()
        elif line.startswith(":"):
            pass
        elif ":" in line:
            name, _, value = line.partition(":")
            self._field(name, value.removeprefix(" "))
        else:
            self._field(line, "")

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._event = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id" and "\0" not in value:
            self._last_id = value

    def _dispatch(self) -> None:
        if self._data == "":
            self._event = ""
            return
        self.heard.append(Heard(self._data.removesuffix("\n"), self._event or "message", self._last_id))
        self._data = self._event = ""


TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from("a :\r\n\0\ufeff\u2028\u2029\x0b\x0c\x1c\x85data:event:id:😀")
)
WORD = TEXT.filter(lambda value: not set("\r\n\0") & set(value))


@settings(max_examples=500, deadline=None)
@example([("a\nevent: done\ndata: {}", None, None)])
@example([("\n", None, None), ("\n\n", "x", "y"), ("", "", "")])
@example([("\ufeff", "\ufeff", "\ufeff"), (" a", " b", " c")])
@given(st.lists(st.tuples(TEXT, st.none() | WORD, st.none() | WORD), max_size=4))
def test_any_text_comes_through(events: list[tuple[str, str | None, str | None]]) -> None:
    heard = Browser().read(b"".join(ServerEvent(*event).encode() for event in events))
    assert [each.data for each in heard] == [re.sub("\r\n|\r", "\n", data) for data, _, _ in events]
    assert [each.event for each in heard] == [name or "message" for _, name, _ in events]
    last = ""
    for each, (_, _, mark) in zip(heard, events, strict=True):
        last = last if mark is None else mark
        assert each.id == last


VALUES = st.recursive(st.none() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner))


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_json_is_one_line(value: Any) -> None:
    frame = ServerEvent.of(value).encode()
    assert re.split(b"\r\n|\r|\n", frame)[1:] == [b"", b""]
    (heard,) = Browser().read(frame)
    assert json.loads(heard.data) == value


@pytest.mark.parametrize("bad", ["a\nb", "a\r", "\r\n", "a\0b"])
def test_names_and_ids_are_one_line(bad: str) -> None:
    with pytest.raises(ValueError):
        ServerEvent("x", event=bad)
    with pytest.raises(ValueError):
        ServerEvent("x", id=bad)


def test_half_a_surrogate_does_not_break_the_stream() -> None:
    (heard,) = Browser().read(ServerEvent("a\ud800b").encode())
    assert heard.data == "a?b"


@dataclass
class Scene:
    """A response without a network: what it sent, and what became of its source."""

    ending: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    sent: list[Message] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    blocked: bool = False

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.blocked:
            await asyncio.sleep(60)
        self.sent.append(message)

    @asynccontextmanager
    async def source(
        self, *data: str, every: float = 0.0, then: Exception | None = None, forever: bool = False
    ) -> AsyncIterator[AsyncIterator[ServerEvent]]:
        async def events() -> AsyncIterator[ServerEvent]:
            try:
                for each in data:
                    yield ServerEvent(each)
                    await asyncio.sleep(every)
                if forever:
                    await asyncio.sleep(60)
                if then is not None:
                    raise then
            finally:
                self.happened.append("iterator closed")

        self.happened.append("entered")
        try:
            yield events()
        except BaseException as error:
            self.happened.append(type(error).__name__)
            raise
        finally:
            self.happened.append("left")

    async def play(self, source: Source, **options: Any) -> list[Heard]:
        stream = EventStream(
            source,
            ending=self.ending,
            describe=lambda error: ServerEvent.of({"error": type(error).__name__}, "error"),
            **{"write_timeout_s": 0.1, **options},
        )
        await stream({"type": "http"}, self.receive, self.send)
        return Browser().read(self.body())

    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def ended(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False


def run(test: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(Scene()), 5)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_events_are_sent_one_a_message() -> None:
    async def test(scene: Scene) -> None:
        heard = await scene.play(scene.source("a", "b\nc"), headers={"x-model-version": "m@1"})
        assert [each.data for each in heard] == ["a", "b\nc"]
        assert len(scene.sent) == 4 and scene.ended
        headers = dict(scene.sent[0]["headers"])
        assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
        assert headers[b"cache-control"] == b"no-store"
        assert headers[b"x-accel-buffering"] == b"no"
        assert headers[b"x-model-version"] == b"m@1"
        assert b"content-length" not in headers
        assert scene.happened == ["entered", "iterator closed", "left"]

    run(test)


def test_what_entering_raises_is_raised_before_anything_is_sent() -> None:
    async def test(scene: Scene) -> None:
        @asynccontextmanager
        async def full() -> AsyncIterator[AsyncIterator[ServerEvent]]:
            await asyncio.sleep(0.01)
            raise QueueFull("no place")
            yield

        with pytest.raises(QueueFull):
            await scene.play(full())
        assert scene.sent == []

    run(test)


def test_a_client_that_leaves_the_queue_never_gets_a_slot() -> None:
    async def test(scene: Scene) -> None:
        @asynccontextmanager
        async def queue() -> AsyncIterator[AsyncIterator[ServerEvent]]:
            try:
                await asyncio.sleep(60)
                raise AssertionError
                yield
            finally:
                scene.happened.append("left the queue")

        asyncio.get_running_loop().call_later(0.02, scene.left.set)
        with pytest.raises(ClientGone):
            await scene.play(queue())
        assert scene.sent == [] and scene.happened == ["left the queue"]

    run(test)


def test_an_error_in_mid_stream_is_the_last_event() -> None:
    async def test(scene: Scene) -> None:
        heard = await scene.play(scene.source("a", then=KeyError("hunter2")))
        assert [each.event for each in heard] == ["message", "error"]
        assert heard[1].data == '{"error":"KeyError"}'
        assert b"hunter2" not in scene.body()
        assert scene.ended
        assert scene.happened == ["entered", "iterator closed", "KeyError", "left"]

    run(test)


def test_a_source_that_times_out_has_failed() -> None:
    async def test(scene: Scene) -> None:
        heard = await scene.play(scene.source("a", then=TimeoutError()))
        assert heard[-1].event == "error" and scene.ended

    run(test)


@pytest.mark.parametrize("every", [0.0, 0.001, 60.0])
def test_a_stopping_server_says_so(every: float) -> None:
    async def test(scene: Scene) -> None:
        asyncio.get_running_loop().call_later(0.03, scene.ending.set)
        heard = await scene.play(scene.source(*["a"] * 100_000, every=every))
        assert heard[-1].event == "server_shutdown" and scene.ended
        assert scene.happened[-1] == "left" and "iterator closed" in scene.happened

    run(test)


def test_a_stream_that_begins_while_the_server_stops_is_refused() -> None:
    async def test(scene: Scene) -> None:
        @asynccontextmanager
        async def queue() -> AsyncIterator[AsyncIterator[ServerEvent]]:
            await asyncio.sleep(60)
            raise AssertionError
            yield

        scene.ending.set()
        with pytest.raises(Draining):
            await scene.play(queue())
        assert scene.sent == []

    run(test)


def test_a_client_that_leaves_ends_the_source() -> None:
    async def test(scene: Scene) -> None:
        asyncio.get_running_loop().call_later(0.03, scene.left.set)
        started = time.monotonic()
        await scene.play(scene.source("a", forever=True))
        assert time.monotonic() - started < 1
        assert not scene.ended
        assert scene.happened == ["entered", "iterator closed", "CancelledError", "left"]

    run(test)


def test_a_client_that_takes_nothing_ends_the_source() -> None:
    async def test(scene: Scene) -> None:
        asyncio.get_running_loop().call_later(0.03, lambda: setattr(scene, "blocked", True))
        await scene.play(scene.source(*["a"] * 100_000, every=0.001))
        assert not scene.ended
        assert scene.happened == ["entered", "iterator closed", "left"]

    run(test)


def test_a_server_that_raises_on_a_lost_connection_ends_the_source() -> None:
    async def test(scene: Scene) -> None:
        send = scene.send

        async def lost(message: Message) -> None:
            if len(scene.sent) == 3:
                raise BrokenPipeError
            await send(message)

        scene.send = lost  # type: ignore[method-assign]
        await scene.play(scene.source(*["a"] * 100, every=0.001))
        assert scene.happened == ["entered", "iterator closed", "left"]

    run(test)


def test_a_client_that_takes_no_heartbeat_ends_the_source() -> None:
    async def test(scene: Scene) -> None:
        asyncio.get_running_loop().call_later(0.03, lambda: setattr(scene, "blocked", True))
        await scene.play(scene.source("a", forever=True), heartbeat_s=0.1)
        assert not scene.ended
        assert scene.happened[-1] == "left"

    run(test)


def test_silence_is_filled_with_comments() -> None:
    async def test(scene: Scene) -> None:
        heard = await scene.play(scene.source("a", "b", every=0.12), heartbeat_s=0.05)
        assert [each.data for each in heard] == ["a", "b"]
        assert scene.body().count(b":\n\n") == 4
        assert scene.sent[2]["body"] == b":\n\n"

    run(test)


def test_no_comments_while_there_are_events() -> None:
    async def test(scene: Scene) -> None:
        await scene.play(scene.source(*["a"] * 20, every=0.01), heartbeat_s=0.1)
        assert b":\n\n" not in scene.body()

    run(test)


def test_an_outer_cancellation_passes_through() -> None:
    async def test(scene: Scene) -> None:
        task = asyncio.create_task(scene.play(scene.source("a", forever=True)))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert scene.happened[-1] == "left"

    run(test)


STREAM = b"GET /events?every=0.01%b HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_stream_over_the_wire(loop: Loop) -> None:
    with served(loop=loop) as live:
        with httpx.stream("GET", live.url + "/events?n=20&every=0.001") as response:
            chunks = list(response.iter_raw())
        heard = Browser().read(b"".join(chunks))
        assert [each.id for each in heard[:20]] == [str(number) for number in range(20)]
        assert heard[-1].event == "done"
        assert live.workshop.slots == 0


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["FIN", "RST"])
def test_a_reader_who_leaves_frees_the_slot(loop: Loop, leave: Callable[[Any], None]) -> None:
    with served(loop=loop) as live:
        peers = [live.connect() for _ in range(20)]
        for number, peer in enumerate(peers):
            # Some leave while events come, some while the stream is silent.
            peer.sendall(STREAM % (b"" if number % 2 else b"&every=60"))
            assert peer.recv(100).startswith(b"HTTP/1.1 200")
        until(lambda: live.workshop.slots == 20)
        for peer in peers:
            leave(peer)
        assert until(lambda: live.workshop.slots == 0) < 0.5
        until(lambda: live.connections() == 0)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("guard", ["the protocol", "the stream"])
def test_a_reader_who_does_not_read_frees_the_slot(loop: Loop, guard: str) -> None:
    """Either deadline is enough: the stream's own holds on any server."""
    bounds = QUICK if guard == "the protocol" else replace(QUICK, write_timeout_s=60)
    patience = b"60" if guard == "the protocol" else b"0.4"
    with served(loop=loop, bounds=bounds) as live, contextlib.ExitStack() as stack:
        for _ in range(20):
            peer = stack.enter_context(live.connect(receive_buffer=4096))
            peer.sendall(STREAM % (b"&every=0&size=50000&patience=" + patience))
        until(lambda: live.workshop.ran == 20)  # the first may be free again when the last has begun
        assert until(lambda: live.workshop.slots == 0) < 3
        if guard == "the protocol":
            until(lambda: live.connections() == 0)
        started = time.monotonic()
        assert live.get().status_code == 200
        assert time.monotonic() - started < 0.5


def test_without_either_deadline_the_slot_stays_taken() -> None:
    """What the test above would see if there were no deadlines."""
    with served(bounds=replace(QUICK, write_timeout_s=60)) as live, live.connect(receive_buffer=4096) as peer:
        peer.sendall(STREAM % b"&every=0&size=50000&patience=60")
        until(lambda: live.workshop.slots == 1)
        with pytest.raises(AssertionError):
            until(lambda: live.workshop.slots == 0, within_s=1.5)


def test_a_refused_stream_keeps_its_status() -> None:
    with served() as live:
        refused = live.get("/events?full=1")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "3"
        assert live.workshop.slots == 0
