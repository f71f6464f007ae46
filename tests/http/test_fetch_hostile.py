"""Fetching from hosts that lie, drip, flood and talk nonsense."""

from __future__ import annotations

import asyncio
import gc
import gzip
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maru.http.fetch import Fetcher, FetchError, FetchFailed

from .fetch_world import Names, Server, answer, drip, ok, on_each_loop, run, serving, to

MIB = 2**20


@on_each_loop
async def test_a_body_is_brought_up_to_the_limit_and_no_further() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(answer("200 OK", b"", "Transfer-Encoding: chunked"))
        while True:
            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await writer.drain()
            server.sent += 0x10000

    async def until_closed(writer: asyncio.StreamWriter) -> None:
        writer.write(answer("200 OK", bytes(10 * MIB + 1)))
        await writer.drain()

    server = Server(
        {
            "/fits": ok(bytes(10 * MIB)),
            "/over": ok(bytes(10 * MIB + 1)),
            "/declared": answer("200 OK", b"x", f"Content-Length: {10 * MIB + 1}"),
            "/endless": endless,
            "/until-closed": until_closed,
        }
    )
    async with serving(server), Fetcher((), resolver=Names()) as fetcher:
        assert len((await fetcher.get("http://a.example/fits")).body) == 10 * MIB
        for path in ("over", "declared", "endless", "until-closed"):
            server.gone.clear()
            with pytest.raises(FetchFailed):
                await fetcher.get(f"http://a.example/{path}")
            await asyncio.wait_for(server.gone.wait(), 5)
        assert server.sent < 32 * MIB  # what had been read, and what was in the sockets' buffers
        with pytest.raises(FetchFailed):
            await fetcher.get("http://a.example/fits", max_bytes=10 * MIB - 1)


@on_each_loop
async def test_a_compressed_body_is_not_expanded() -> None:
    bomb = gzip.compress(bytes(4 * MIB))
    paths = {
        f"/{number}": ok(bomb, *headers)
        for number, headers in enumerate(
            (
                ["Content-Encoding: gzip"],
                ["Content-Encoding: GZIP"],
                ["Content-Encoding: identity, gzip"],
                ["Content-Encoding: identity", "Content-Encoding: deflate"],
                ["Content-Encoding: br"],
                ["Content-Encoding: zstd"],
                ["Content-Encoding: x"],
            )
        )
    }
    paths |= {"/as-is": ok(bomb), "/identity": ok(bomb, "Content-Encoding: Identity")}
    async with serving(Server(dict(paths))), Fetcher((), resolver=Names()) as fetcher:
        for number in range(7):
            with pytest.raises(FetchFailed):
                await fetcher.get(f"http://a.example/{number}")
        assert (await fetcher.get("http://a.example/as-is")).body == bomb
        assert (await fetcher.get("http://a.example/identity")).body == bomb


@on_each_loop
@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["status", "header", "body", "after 100"],
)
async def test_a_host_that_drips_is_cut_off(head: bytes) -> None:
    server = Server({"/": lambda writer: drip(writer, head)})
    async with serving(server), Fetcher((), resolver=Names(), total_timeout_s=0.4) as fetcher:
        started = time.monotonic()
        with pytest.raises(FetchFailed):
            await fetcher.get("http://a.example/")
        assert time.monotonic() - started < 2
        await asyncio.wait_for(server.gone.wait(), 2)


HOSTILE = {
    "nothing": b"",
    "cut": b"HTTP/1.1 200 OK\r\nContent-Len",
    "not http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "http 0.9": b"hello",
    "switched protocol": answer("101 Switching Protocols", b"x", "Upgrade: websocket", "Connection: upgrade"),
    "promises more": answer("200 OK", b"five!", "Content-Length: 6"),
    "length below zero": answer("200 OK", b"x", "Content-Length: -1"),
    "length not a number": answer("200 OK", b"x", "Content-Length: 0x1"),
    "length without end": answer("200 OK", b"x", "Content-Length: " + "9" * 5000),
    "two lengths": answer("200 OK", b"xx", "Content-Length: 1", "Content-Length: 2"),
    "length and chunks": answer("200 OK", b"0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"),
    "bad chunk": answer("200 OK", b"zz\r\nx\r\n", "Transfer-Encoding: chunked"),
    "cut chunk": answer("200 OK", b"ff\r\nx", "Transfer-Encoding: chunked"),
    "chunk without end": answer("200 OK", b"f" * 100 + b"\r\nx", "Transfer-Encoding: chunked"),
    "long header": answer("200 OK", b"", "X: " + "a" * 100_000),
    "many headers": answer("200 OK", b"", *(f"X{number}: a" for number in range(10_000))),
    "long status": answer("200 " + "a" * 100_000, b""),
    "nul in header": answer("200 OK", b"", "X: a\0b"),
    "no location": answer("302 Found", b"", "Content-Length: 0"),
    "empty location": to(""),
}
ODD = {
    "no type": answer("200 OK", b"hello", "Content-Length: 5"),
    "odd type": ok(b"hello", 'Content-Type: ;;=;\xff/\xe9; charset="\\'),
    "two types": ok(b"hello", "Content-Type: a/b", "Content-Type: c/d"),
    "http 1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "odd cookie": ok(b"hello", 'Set-Cookie: \xff=;;="', "Set-Cookie: " + "a" * 5000),
}


@on_each_loop
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_answer_is_a_failed_fetch(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Server({"/": HOSTILE[name]})), Fetcher((), resolver=Names()) as fetcher:
        with pytest.raises(FetchFailed):
            await fetcher.get("http://a.example/")
        gc.collect()  # what a task left unretrieved is told when it is collected
        assert caplog.text == ""


@on_each_loop
@pytest.mark.parametrize("name", ODD)
async def test_an_odd_answer_is_taken_for_what_it_is(name: str) -> None:
    async with serving(Server({"/": ODD[name]})), Fetcher((), resolver=Names()) as fetcher:
        assert (await fetcher.get("http://a.example/")).body == b"hello"


@on_each_loop
async def test_no_more_is_taken_than_was_declared() -> None:
    server = Server({"/": answer("200 OK", b"hello, hello", "Content-Length: 5")})
    async with serving(server), Fetcher((), resolver=Names()) as fetcher:
        # What is left over may be read as the start of another answer, and a bad one.
        with suppress(FetchFailed):
            assert (await fetcher.get("http://a.example/")).body == b"hello"


HEADERS = st.builds(
    "{}: {}".format,
    st.sampled_from(
        ["Content-Length", "Transfer-Encoding", "Content-Type", "Content-Encoding", "Location", "Connection"]
    ),
    st.sampled_from(["0", "5", "chunked", "gzip", "identity", "close", "http://[", "a/b; charset=x"])
    | st.text(st.characters(max_codepoint=255), max_size=20),
)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda status, headers, body: answer(status, body, *headers),
            st.sampled_from(["200 OK", "200", "302 F", "301 \xff", "999 x", "099 x"]),
            st.lists(HEADERS, max_size=4),
            st.binary(max_size=50),
        ),
    )
)
def test_whatever_a_host_answers_nothing_else_is_raised(raw: bytes) -> None:
    async def main() -> None:
        async with serving(Server({"/": raw})), Fetcher((), resolver=Names(), total_timeout_s=2) as fetcher:
            try:
                fetched = await fetcher.get("http://a.example/")
            except FetchError:
                return
            assert len(fetched.body) <= len(raw)

    run(main())
