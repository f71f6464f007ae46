"""Fetching from servers that mean well, and never beyond where a fetch may go."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from maru.http.fetch import Fetched, Fetcher, FetchFailed, Posted, UrlRefused

from .fetch_world import PUBLIC, Names, Server, answer, drip, loop, ok, on_each_loop, serving, to


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@on_each_loop
async def test_get_brings_the_body_and_says_who_gave_it() -> None:
    image = os.urandom(300_000)
    server = Server({"/a%2Fb.png?sig=%41+b": ok(image, "Content-Type: Image/PNG; q=1")})
    async with serving(server), Fetcher((), resolver=Names()) as fetcher:
        fetched = await fetcher.get("http://CDN.example/a%2Fb.png?sig=%41+b", accept="image/png")
    assert fetched == Fetched(image, "image/png", "cdn.example")
    head = server.requests[0].decode().lower()
    assert "\r\nhost: cdn.example\r\n" in head and "\r\naccept: image/png\r\n" in head
    assert "\r\naccept-encoding: identity\r\n" in head
    assert not any(f"\r\n{name}:" in head for name in ("cookie", "authorization", "referer"))


@on_each_loop
async def test_post_sends_the_body_and_tells_the_status() -> None:
    received = asyncio.get_running_loop().create_future()

    async def hook(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        received.set_result((head, await reader.readexactly(len(body))))
        writer.write(answer("202 Accepted", b"x" * 100, "Content-Length: 1000000"))

    body = b'{"close": 1}'
    listening = await asyncio.start_server(hook, "127.0.0.1", 0)
    loop().routes[80] = listening.sockets[0].getsockname()
    headers = {"Content-Type": "application/json", "webhook-id": "m1"}
    async with listening, Fetcher((), resolver=Names()) as fetcher:
        assert await fetcher.post("http://hook.example/in", body, headers) == Posted(202)
        head, sent = await received
    assert sent == body
    assert head.startswith(b"POST /in HTTP/1.1\r\n")
    assert b"webhook-id: m1\r\n" in head and b"Content-Type: application/json\r\n" in head


@on_each_loop
async def test_a_header_that_would_forge_another_is_not_sent() -> None:
    async with serving(Server({"/": ok(b"")})) as server, Fetcher((), resolver=Names()) as fetcher:
        with pytest.raises(FetchFailed):
            await fetcher.post("http://a.example/", b"", {"webhook-id": "m1\r\nHost: b.example"})
    assert server.requests == []


@on_each_loop
async def test_post_follows_no_redirect() -> None:
    server = Server({"/": to("http://b.example/"), "/307": to("/", "307 Temporary Redirect")})
    async with serving(server), Fetcher((), resolver=Names()) as fetcher:
        assert await fetcher.post("http://a.example/", b"x", {}) == Posted(302)
        assert await fetcher.post("http://a.example/307", b"x", {}) == Posted(307)
    assert len(server.requests) == 2


@on_each_loop
@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("120", 120, 120),
        (" 7 ", 7, 7),
        pytest.param(format_datetime(datetime.now(UTC) + timedelta(hours=10), usegmt=True), 35_000, 36_000, id="date"),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("9" * 400, 999_999_999, 999_999_999),
    ],
)
async def test_post_tells_how_long_to_wait(said: str, least: float, most: float) -> None:
    server = Server({"/": answer("503 Busy", b"", f"Retry-After: {said}")})
    async with serving(server), Fetcher((), resolver=Names()) as fetcher:
        posted = await fetcher.post("http://a.example/", b"x", {})
    assert posted.status == 503 and posted.retry_after_s is not None
    assert least <= posted.retry_after_s <= most


@on_each_loop
@pytest.mark.parametrize(
    "said", ["", "-1", "soon", "1.5", "Wed, 99 Oct 2015", "Wed, 21 Oct 99999999999 07:28:00 GMT", "\xff"]
)
async def test_a_retry_after_that_says_nothing(said: str) -> None:
    server = Server({"/": answer("503 Busy", b"", f"Retry-After: {said}")})
    async with serving(server), Fetcher((), resolver=Names()) as fetcher:
        assert await fetcher.post("http://a.example/", b"x", {}) == Posted(503)


@on_each_loop
async def test_redirects_are_followed_three_times_without_cookies() -> None:
    server = Server(
        {
            "/0": to("/1"),
            "/1": to("//b.example/2", "301 Moved"),
            "/2": to("3", "308 Permanent"),
            "/3": ok(b"here"),
            "/loop": to("/loop"),
        }
    )
    names = Names()
    async with serving(server), Fetcher((), resolver=names) as fetcher:
        fetched = await fetcher.get("http://a.example/0")
        assert (fetched.body, fetched.final_host) == (b"here", "b.example")
        assert names.asked == {"a.example": 2, "b.example": 2}
        assert not any(b"cookie" in request.lower() for request in server.requests)
        server.requests.clear()
        with pytest.raises(FetchFailed):
            await fetcher.get("http://a.example/loop")
        assert len(server.requests) == 4


@on_each_loop
@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1:80/",
        "http://inside.example/",
        "//inside.example/",
        "http://0x7f.1/",
        "http://[::1]/",
        "http://a.example:22/",
        "http://user@a.example/",
        "http://a.example\\@inside.example/",
        "\\\\inside.example/",
        "/caf\xe9",
        "/#x",
        "/" + "a" * 2048,
        "file:///etc/passwd",
        "ftp://a.example/",
        "data:text/plain,x",
        "javascript:alert(1)",
        "http://[",
    ],
)
async def test_a_redirect_obeys_the_same_rules(location: str) -> None:
    names = Names({"inside.example": ["127.0.0.1"]})
    async with serving(Server({"/": to(location)})) as server, Fetcher((), resolver=names) as fetcher:
        with pytest.raises(UrlRefused):
            await fetcher.get("http://a.example/")
    assert len(server.requests) == 1
    assert loop().dialled == [(PUBLIC, 80)]


@on_each_loop
async def test_rebinding_a_name_leads_nowhere() -> None:
    """A name that is public when first asked for and loopback ever after is asked for once a fetch."""
    count = 1000
    hosts = [f"n{number}.example" for number in range(count)]
    names = Names({host: [PUBLIC, "127.0.0.1", "127.0.0.1"] for host in hosts})
    server = Server({"/": ok(b"x"), "/cut": b""})
    async with serving(server), Fetcher((), resolver=names, max_concurrent=16) as fetcher:
        before = open_files()
        bodies = await asyncio.gather(*(fetcher.get(f"http://{host}/") for host in hosts))
        assert {fetched.body for fetched in bodies} == {b"x"}
        assert names.asked == dict.fromkeys(hosts, 1)
        assert loop().dialled == [(PUBLIC, 80)] * count
        with pytest.raises(UrlRefused):
            await fetcher.get(f"http://{hosts[0]}/")
        # A connection that breaks may be tried again, at the same address and without asking.
        with pytest.raises(FetchFailed):
            await fetcher.get("http://cut.example/cut")
        assert names.asked["cut.example"] == 1
        async with asyncio.timeout(5):
            while open_files() > before:
                await asyncio.sleep(0.01)
    assert set(loop().dialled) == {(PUBLIC, 80)}


@on_each_loop
async def test_a_host_that_never_answers_is_given_up() -> None:
    """At connecting, at looking up, and over a chain of slow redirects together."""

    async def late(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.25)
        writer.write(to("/"))

    async def lost(host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async def seconds(fetcher: Fetcher) -> float:
        started = time.monotonic()
        async with fetcher:
            with pytest.raises(FetchFailed):
                await fetcher.get("http://a.example/")
        return time.monotonic() - started

    loop().routes[80] = None
    assert 0.1 < await seconds(Fetcher((), resolver=Names(), connect_timeout_s=0.2)) < 2
    assert 0.1 < await seconds(Fetcher((), resolver=lost, connect_timeout_s=0.2)) < 2
    async with serving(Server({"/": late})):
        assert 0.4 < await seconds(Fetcher((), resolver=Names(), total_timeout_s=0.5)) < 2


@on_each_loop
async def test_a_cancelled_fetch_hangs_up_and_gives_its_place_back() -> None:
    server = Server({"/drip": lambda writer: drip(writer, answer("200 OK", b"")), "/": ok(b"x")})
    async with serving(server), Fetcher((), resolver=Names(), max_concurrent=1) as fetcher:
        fetching = asyncio.ensure_future(fetcher.get("http://a.example/drip"))
        while not server.requests:
            await asyncio.sleep(0.005)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        await asyncio.wait_for(server.gone.wait(), 2)
        assert (await fetcher.get("http://a.example/")).body == b"x"


@on_each_loop
async def test_so_many_are_fetched_at_once_and_no_more() -> None:
    running: list[int] = [0]

    async def slow(writer: asyncio.StreamWriter) -> None:
        running.append(running[-1] + 1)
        await asyncio.sleep(0.02)
        running.append(running[-1] - 1)
        writer.write(ok(b"x"))

    async with serving(Server({"/": slow})), Fetcher((), resolver=Names(), max_concurrent=2) as fetcher:
        await asyncio.gather(*(fetcher.get("http://a.example/") for _ in range(6)))
    assert max(running) == 2


@on_each_loop
@pytest.mark.parametrize("status", ["204 No Content", "206 Partial Content", "304 Not Modified", "500 Oops"])
async def test_only_200_is_an_answer(status: str) -> None:
    server = Server({"/": answer(status, b"", "Content-Length: 0")})
    async with serving(server), Fetcher((), resolver=Names()) as fetcher:
        with pytest.raises(FetchFailed) as failure:
            await fetcher.get("http://a.example/")
        assert failure.value.reason == f"a.example: status {status[:3]}"


def test_a_name_server_that_hangs_does_not_take_the_process_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers choose the names; the loop's own threads must stay free for everything else."""
    answer_at_last = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer_at_last.wait() and [])

    async def main() -> None:
        async with Fetcher((), connect_timeout_s=0.2) as fetcher:
            fetches = (fetcher.get(f"http://n{number}.example/") for number in range(64))
            failures = await asyncio.gather(*fetches, return_exceptions=True)
            assert {type(failure) for failure in failures} == {FetchFailed}
            await asyncio.wait_for(asyncio.to_thread(lambda: None), 2)

    try:
        asyncio.run(main())
    finally:
        answer_at_last.set()


def test_the_system_resolver_is_asked_by_default() -> None:
    async def main() -> None:
        server = Server({"/": ok(b"local")})
        listening = await asyncio.start_server(server, "localhost", 0)
        port = listening.sockets[0].getsockname()[1]
        async with listening, Fetcher({f"localhost:{port}"}) as fetcher:
            assert (await fetcher.get(f"http://localhost:{port}/")).body == b"local"

    asyncio.run(main())
