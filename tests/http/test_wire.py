from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from maru.http.problem import Problem
from maru.http.wire import Wire

from .live import QUICK, Live, Reply, Workshop, envelope, everything, served, until

LIMIT = 4096


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with served(Workshop(max_body_bytes=LIMIT, body_timeout_s=0.3)) as server:
        yield server


def post(path: str, body: bytes, *headers: bytes, length: int | None = None) -> bytes:
    lines = [b"POST " + path.encode() + b" HTTP/1.1", b"Host: a", b"Connection: close", *headers]
    lines.append(b"Content-Length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(*headers: bytes, target: bytes = b"/", host: bytes = b"Host: a", version: bytes = b"HTTP/1.1") -> bytes:
    lines = [b"GET " + target + b" " + version, host, b"Connection: close", *headers]
    return b"\r\n".join(line for line in lines if line) + b"\r\n\r\n"


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def value(text: bytes) -> bytes:
    return post("/json", b'{"a": ' + text + b"}")


PROBES: dict[str, tuple[int, bytes]] = {
    "an ordinary request": (200, post("/json", b'{"a": 1}')),
    "NaN": (400, value(b"NaN")),
    "Infinity": (400, value(b"Infinity")),
    "1e999": (400, value(b"1e999")),
    "an integer no client can hold": (400, value(b"9007199254740993")),
    "a key twice": (400, post("/json", b'{"a": 1, "a": 2}')),
    "a lone surrogate": (400, value(b'"\\ud800"')),
    "a lone surrogate in a key": (400, post("/json", b'{"\\ud800": 1}')),
    "UTF-16": (400, post("/json", '{"a": 1}'.encode("utf-16"))),
    "a byte order mark": (400, post("/json", b'\xef\xbb\xbf{"a": 1}')),
    "not UTF-8": (400, value(b'"\xff"')),
    "2,000 deep": (400, value(b"[" * 2000)),
    "no body": (400, post("/json", b"")),
    "a body of the limit": (200, post("/size", b"x" * LIMIT)),
    "a body over the limit": (413, post("/size", b"x" * (LIMIT + 1))),
    "a body of an exabyte": (413, post("/size", b"", length=10**18)),
    "a chunked body of the limit": (200, chunked(b"x" * LIMIT)),
    "a chunked body over the limit": (413, chunked(b"x" * LIMIT, b"x")),
    "a body that stops": (408, post("/size", b"half", length=100)),
    "a chunked body that stops": (408, chunked(b"half", end=b"")),
    "a compressed body": (415, post("/size", b"x", b"Content-Encoding: gzip")),
    "a compressed body, told twice": (
        415,
        post("/size", b"x", b"Content-Encoding: identity", b"Content-Encoding: br"),
    ),
    "a body as it is": (200, post("/size", b"x", b"Content-Encoding: Identity")),
    "no Host": (400, get(host=b"")),
    "no Host in HTTP/1.0": (400, get(host=b"", version=b"HTTP/1.0")),
    "two Hosts": (400, get(b"Host: b")),
    "the same Host twice": (400, get(b"Host: a")),
    "an empty Host": (400, get(host=b"Host:")),
    "a Host with a path": (400, get(host=b"Host: a/../b")),
    "a Host with a user": (400, get(host=b"Host: a@b")),
    "a Host with a word for a port": (400, get(host=b"Host: a:http")),
    "a Host list": (400, get(host=b"Host: a, b")),
    "a Host that is not ASCII": (400, get(host=b"Host: \xe3\x81\x82")),
    "an IPv6 Host": (200, get(host=b"Host: [::1]:8000")),
    "a container's Host": (200, get(host=b"Host: my_service:8000")),
    "64 fields": (200, get(*(b"X-%d: y" % i for i in range(62)))),
    "65 fields": (431, get(*(b"X-%d: y" % i for i in range(63)))),
    "a field of 15 KiB": (200, get(b"X: " + b"y" * 15 * 1024)),
    "a field of 16 KiB": (431, get(b"X: " + b"y" * 16 * 1024)),
    "a target of 16 KiB": (431, get(target=b"/?" + b"y" * 16 * 1024)),
    "a path of 16 KiB": (431, get(target=b"/" + b"y" * 16 * 1024)),
    "a method the service lacks": (405, get().replace(b"GET", b"TRACE")),
    "an absolute target": (200, get(target=b"http://a/")),
}


@pytest.mark.parametrize(("status", "request_bytes"), PROBES.values(), ids=PROBES)
def test_probe(live: Live, status: int, request_bytes: bytes) -> None:
    answers = live.say(request_bytes)
    assert [reply.status for reply in answers] == [status]
    reply = answers[0]
    assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-request-id"])
    assert reply.headers["x-content-type-options"] == "nosniff"
    if status >= 400 and status != 405:
        problem = json.loads(reply.body)
        assert problem["error"] and problem["message"]
        assert problem["details"]["request_id"] == reply.headers["x-request-id"]


@pytest.mark.parametrize("probe", ["a body over the limit", "a chunked body over the limit", "a body that stops"])
def test_a_refusal_that_leaves_a_body_unread_closes(live: Live, probe: str) -> None:
    said = PROBES[probe][1].replace(b"Connection: close\r\n", b"")
    (reply,) = live.say(said + get())
    assert reply.headers["connection"] == "close"


def test_a_refusal_without_a_body_keeps_the_connection(live: Live) -> None:
    kept = get(host=b"Host: a@b").replace(b"Connection: close\r\n", b"")
    assert [reply.status for reply in live.say(kept + get())] == [400, 200]


def test_a_client_that_sends_everything_first_reads_its_refusal(live: Live) -> None:
    """Simple clients do. Closing at once would reset the connection, and they would see that instead."""
    for _ in range(10):
        client = HTTPConnection("127.0.0.1", live.port)
        client.request("POST", "/size", body=b"x" * 8_000_000)
        assert client.getresponse().status == 413
        client.close()


def test_the_service_is_not_called_for_a_declared_length_over_the_limit(live: Live) -> None:
    before = live.workshop.requests
    live.say(post("/size", b"", length=LIMIT + 1))
    assert live.workshop.requests == before


def test_the_body_has_one_deadline_however_it_drips() -> None:
    with served(Workshop(body_timeout_s=0.3)) as live, live.connect() as peer:
        started = time.monotonic()
        peer.sendall(post("/size", b"", length=100))
        peer.settimeout(0.03)
        answer = b""
        while not answer and time.monotonic() - started < 5:
            peer.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                answer = peer.recv(100)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert 0.25 < time.monotonic() - started < 1


IDS = {
    "given": (b"X-Request-ID: Order-7/x", "Order-7/x"),
    "128 long": (b"X-Request-ID: " + b"a" * 128, "a" * 128),
    "129 long": (b"X-Request-ID: " + b"a" * 129, None),
    "with a space": (b"X-Request-ID: a b", None),
    "not ASCII": (b"X-Request-ID: \xc3\xa9", None),
    "empty": (b"X-Request-ID:", None),
    "absent": (b"X-Other: a", None),
}


@pytest.mark.parametrize(("header", "expected"), IDS.values(), ids=IDS)
def test_request_id(live: Live, header: bytes, expected: str | None) -> None:
    (reply,) = live.say(get(header))
    if expected is None:
        assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-request-id"])
    else:
        assert reply.headers["x-request-id"] == expected
    (refused,) = live.say(get(header, b"Host: b"))
    assert json.loads(refused.body)["details"]["request_id"] == refused.headers["x-request-id"]


def test_head_is_get_without_the_body(live: Live) -> None:
    head = get(target=b"/big?n=1000").replace(b"GET", b"HEAD")
    kept = head.replace(b"Connection: close\r\n", b"")
    first, second = live.say(kept + head, method="HEAD")
    assert first.status == second.status == 200
    assert first.headers["content-length"] == "1000"
    (refused,) = live.say(get(b"Host: b").replace(b"GET", b"HEAD"), method="HEAD")
    assert refused.status == 400
    assert int(refused.headers["content-length"]) > 50


def test_head_of_an_endless_stream_ends(live: Live) -> None:
    (reply,) = live.say(get(target=b"/events").replace(b"GET", b"HEAD"), method="HEAD")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert live.workshop.slots == 0


def app_with(**routes: Callable[..., Any]) -> FastAPI:
    app = FastAPI()
    for name, route in routes.items():
        app.add_api_route("/" + name, route, methods=["GET", "POST"])
    return app


def ask(app: ASGIApp, *requests: bytes) -> list[Reply]:
    with served(app=Wire(app, envelope, max_body_bytes=LIMIT, body_timeout_s=0.3)) as live:
        return live.say(*requests)


def test_fastapi_cannot_turn_a_refusal_into_something_else() -> None:
    """FastAPI makes any error while reading a body a 400, and Starlette an unknown one a 500."""

    async def take(body: dict[str, Any]) -> str:
        return "taken"

    def said(body: bytes, length: int | None = None) -> bytes:
        return post("/take", body, b"Content-Type: application/json", length=length)

    assert ask(app_with(take=take), said(b'{"a": 1}'))[0].status == 200
    (late,) = ask(app_with(take=take), said(b"{", length=100))
    assert (late.status, json.loads(late.body)["error"]) == (408, "REQUEST_TIMEOUT")
    assert late.headers["connection"] == "close"

    async def handled(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return JSONResponse({"mine": error.code}, error.status)

    app = app_with(take=take)

    async def read(request: Request) -> str:
        await request.body()
        return "read"

    app.add_api_route("/read", read, methods=["POST"])
    app.add_exception_handler(Problem, handled)
    (late,) = ask(app, post("/read", b"{", length=100))
    assert (late.status, json.loads(late.body)) == (408, {"mine": "REQUEST_TIMEOUT"})
    assert late.headers["connection"] == "close"


def test_a_problem_that_escapes_is_answered() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise Problem(429, "TOO_MANY_REQUESTS", "later", headers={"retry-after": "7"})

    (reply,) = ask(app, get())
    assert reply.status == 429
    assert reply.headers["retry-after"] == "7"
    assert json.loads(reply.body)["error"] == "TOO_MANY_REQUESTS"


def test_a_refusal_in_the_middle_of_an_answer_cuts_it() -> None:
    async def echo(request: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"began"
            async for part in request.stream():
                yield part

        return StreamingResponse(parts())

    app = Wire(app_with(echo=echo), envelope, max_body_bytes=LIMIT, body_timeout_s=0.3)
    with served(app=app) as live, live.connect() as peer:
        peer.sendall(post("/echo", b"half", length=100))
        answer = everything(peer)
    assert answer.startswith(b"HTTP/1.1 200") and b"began" in answer
    assert answer.count(b"HTTP/1.1") == 1
    assert not answer.endswith(b"0\r\n\r\n"), "the client must see that it was cut"


def test_a_client_that_leaves_is_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    gone: list[str] = []

    async def read(request: Request) -> str:
        try:
            return str(len(await request.body()))
        except ClientDisconnect:
            gone.append("gone")
            raise

    with served(app=Wire(app_with(read=read), envelope)) as live:
        with live.connect() as peer:
            peer.sendall(post("/read", b"half", length=100))
            time.sleep(0.05)
        until(lambda: bool(gone))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_shared_headers_do_not_grow() -> None:
    response = PlainTextResponse("same object, each time")
    replies = ask(response, get().replace(b"Connection: close\r\n", b"") * 3 + get())
    assert len(replies) == 4
    assert len({len(reply.headers) for reply in replies[:3]}) == 1
    assert len(response.raw_headers) == 2


async def sockets(scope: Scope, receive: Receive, send: Send) -> None:
    socket = WebSocket(scope, receive, send)
    await socket.accept()
    await socket.send_text(scope["maru.request_id"])
    await socket.close()


def test_websockets_pass_if_their_host_is_valid() -> None:
    shake = (
        b"GET / HTTP/1.1\r\n%b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Request-ID: hello\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with served(app=Wire(sockets, envelope), bounds=QUICK) as live, live.connect() as peer:
        peer.sendall(shake % b"Host: a")
        answer = b""
        while b"hello" not in answer:
            part = peer.recv(1000)
            assert part
            answer += part
        assert answer.startswith(b"HTTP/1.1 101 ")
        (refused,) = live.say(shake % b"Host: a/b")
        assert refused.status == 400
        assert json.loads(refused.body)["error"] == "BAD_REQUEST"


def test_websockets_are_refused_where_the_server_can_only_close() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "headers": [], "query_string": b""}
    asyncio.run(Wire(sockets, envelope)(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]
