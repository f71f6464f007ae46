from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from starlette.applications import Starlette

from maru.http.crowd import Bounds
from maru.http.server import Server, serve

from .live import QUICK, Loop, Workshop, answer, everything, replies, served, until

LOOPS: tuple[Loop, ...] = ("uvloop", "asyncio")
GET = b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n"


def test_answers_tell_the_time_and_not_the_server() -> None:
    with served() as live:
        headers = live.get().headers
        assert "date" in headers and "server" not in headers


def test_a_forwarded_address_is_believed_from_named_proxies_only() -> None:
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    with served() as live:
        assert httpx.get(live.url + "/ready", headers=forged).json()["client"] == "127.0.0.1"
    with served(forwarded_allow_ips=["127.0.0.1"]) as live:
        assert httpx.get(live.url + "/ready", headers=forged).json()["client"] == "203.0.113.9"
    with served(forwarded_allow_ips=["10.0.0.1"]) as live:
        assert httpx.get(live.url + "/ready", headers=forged).json()["client"] == "127.0.0.1"
    with pytest.raises(ValueError, match="any client"):
        Server(Workshop().app, lifecycle_of=lambda: None, forwarded_allow_ips=["*"])


@pytest.mark.parametrize("loop", LOOPS)
def test_draining_is_announced_before_the_doors_close(loop: Loop) -> None:
    with served(loop=loop, drain_delay_s=0.5) as live, live.connect() as kept, live.connect() as idle:
        kept.sendall(GET)
        assert answer(kept).status == 200
        idle.sendall(GET)
        assert answer(idle).status == 200
        live.stop()
        until(lambda: live.workshop.lifecycle.state == "draining")
        # New connections are still taken; each is told to go elsewhere for its next request.
        new = live.get("/ready")
        assert (new.status_code, new.headers["connection"]) == (503, "close")
        kept.sendall(GET)
        assert b"connection: close" in everything(kept)
        assert everything(idle) == b""
        until(live.refuses)
    assert live.workshop.lifecycle.state == "stopped"
    assert not live.server.cut_off


@pytest.mark.parametrize("loop", LOOPS)
def test_what_was_accepted_is_answered(loop: Loop) -> None:
    with served(loop=loop, bounds=replace(QUICK, write_timeout_s=5)) as live, contextlib.ExitStack() as stack:
        running = [stack.enter_context(live.connect()) for _ in range(5)]
        for peer in running:
            peer.sendall(b"GET /slow?s=0.4 HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: live.workshop.slots == 5)
        piped = stack.enter_context(live.connect())
        piped.sendall(b"GET /slow?s=0.2 HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        half = stack.enter_context(live.connect())
        half.sendall(b"GET /slow?s=0.1 HTTP/1.1\r\nHo")
        body = stack.enter_context(live.connect())
        body.sendall(b"POST /slow?s=0.1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{")
        fresh = stack.enter_context(live.connect())
        reading = stack.enter_context(live.connect(receive_buffer=4096))
        reading.sendall(b"GET /big?n=6000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: live.connections() == 10)
        live.stop()
        until(live.refuses)
        half.sendall(b"st: a\r\n\r\n")
        body.sendall(b"}")
        fresh.sendall(b"GET /slow?s=0.1 HTTP/1.1\r\nHost: a\r\n\r\n")
        for peer in (*running, half, body, fresh):
            (reply,) = replies(everything(peer))
            assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert [reply.status for reply in replies(everything(piped))] == [200, 200]
        assert len(replies(everything(reading))[0].body) == 6_000_000
    assert not live.server.cut_off


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_made_at_the_last_moment_is_answered(loop: Loop) -> None:
    """The client holds it for made, though the server has not accepted it when it stops listening."""
    late: list[socket.socket] = []
    with served(loop=loop) as live, contextlib.ExitStack() as stack:
        stop_listening = live.server._stop_listening

        async def meanwhile(sockets: list[socket.socket]) -> None:
            for _ in range(5):
                late.append(stack.enter_context(live.connect()))
                late[-1].sendall(GET)
            await stop_listening(sockets)

        live.server._stop_listening = meanwhile  # type: ignore[method-assign]
        live.stop()
        until(lambda: len(late) == 5)
        for peer in late:
            (reply,) = replies(everything(peer))
            assert (reply.status, reply.headers["connection"]) == (503, "close")
    assert not live.server.cut_off


@pytest.mark.parametrize("loop", LOOPS)
def test_streams_get_their_last_event(loop: Loop) -> None:
    with served(loop=loop) as live, contextlib.ExitStack() as stack:
        streams = [stack.enter_context(live.connect()) for _ in range(5)]
        for peer in streams:
            peer.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: live.workshop.slots == 5)
        live.stop()
        for peer in streams:
            (reply,) = replies(everything(peer))
            assert reply.body.rpartition(b"event: ")[2].startswith(b"server_shutdown\ndata: {")
            assert reply.body.endswith(b"}\n\n")
    assert not live.server.cut_off


@pytest.mark.parametrize("loop", LOOPS)
def test_a_burst_of_new_connections_is_taken_in_one_turn(loop: Loop) -> None:
    """Where every turn of the event loop takes long, no connection waits for more of them than another."""
    bounds = replace(QUICK, max_connections=200, first_byte_s=30)
    with served(loop=loop, bounds=bounds) as live, contextlib.ExitStack() as stack:
        live.hold_up(0.1, turns=60)
        peers = [stack.enter_context(live.connect()) for _ in range(100)]
        until(lambda: live.connections() == 100, within_s=4)  # 40 turns of the 60
        for peer in peers:
            peer.sendall(GET)
        assert [answer(peer).status for peer in peers] == [200] * 100


def test_an_idle_server_stops_at_once() -> None:
    with served() as live:
        live.get()
        started = time.monotonic()
    assert time.monotonic() - started < 0.5


def test_what_outlasts_the_grace_is_told_so() -> None:
    with served(Workshop(watched=False), grace_s=0.3) as live, live.connect() as peer:
        peer.sendall(b"GET /slow?s=60 HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: live.workshop.slots == 1)
        live.stop()
        (reply,) = replies(everything(peer))
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert b"SHUTTING_DOWN" in reply.body
    assert live.server.cut_off
    assert live.workshop.slots == 0


def test_asked_twice_it_stops_at_once() -> None:
    with served(grace_s=60, drain_delay_s=60) as live, live.connect() as peer:
        peer.sendall(b"GET /slow?s=60 HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: live.workshop.slots == 1)
        live.stop()
        live.stop()
        started = time.monotonic()
        everything(peer)
        until(live.refuses)
    assert time.monotonic() - started < 2
    assert live.server.cut_off


def test_a_start_that_fails_ends_the_process() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    with pytest.raises(SystemExit) as caught:
        serve(Starlette(lifespan=lifespan), port=0, lifecycle_of=lambda: None)
    assert caught.value.code == 3


def test_a_start_can_be_interrupted() -> None:
    cleaned: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            await asyncio.sleep(60)
            yield
        finally:
            cleaned.append("up")

    server = Server(Starlette(lifespan=lifespan), lifecycle_of=lambda: None)

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.1, server.stop)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await server.serve([listener])

    started = time.monotonic()
    asyncio.run(asyncio.wait_for(main(), 5))
    assert time.monotonic() - started < 3
    assert cleaned == ["up"] and not server.cut_off


def test_a_port_in_use_ends_the_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit):
        serve(Workshop().app, port=taken.getsockname()[1], lifecycle_of=lambda: None)


def test_connections_fit_into_the_files_the_process_may_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        server = Server(Workshop().app, lifecycle_of=lambda: None, bounds=Bounds(max_connections=1000))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 50 < server.bounds.max_connections < 200 / 1.25


def test_it_runs_in_a_thread_and_is_stopped_from_there() -> None:
    """Where there are no signals."""
    shop = Workshop()
    server = Server(shop.app, lifecycle_of=lambda: shop.lifecycle, drain_delay_s=0)
    done: list[bool] = []

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.1, server.stop)
        await server.serve([socket.create_server(("127.0.0.1", 0))])
        done.append(True)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(5)
    assert done
