from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from .live import QUICK, Live, Loop, Workshop, answer, everything, replies, served, until

LOOPS: tuple[Loop, ...] = ("uvloop", "asyncio")
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST /size HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n"
SMUGGLED = b"GET /?name=smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module", params=LOOPS)
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    with served(Workshop(body_timeout_s=0.4), loop=request.param) as server:
        yield server


def closing(peer: socket.socket, drip: bytes = b"", limit_s: float = 5.0) -> tuple[float, bytes]:
    """How long the server keeps a connection on which a byte comes now and then, and its last words."""
    started = time.monotonic()
    said = bytearray()
    peer.settimeout(0.02)
    while time.monotonic() - started < limit_s:
        with contextlib.suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
            if drip:
                peer.sendall(drip)
            part = peer.recv(4096)
            if not part:
                return time.monotonic() - started, bytes(said)
            said += part
    raise AssertionError("the connection was kept")


SLOW = {
    "says nothing": (b"", b"", b""),
    "sends blank lines": (b"", b"\r\n", b""),
    "drips its target": (b"GET /", b"a", b"HTTP/1.1 408"),
    "drips a field": (b"GET / HTTP/1.1\r\nX: ", b"y", b"HTTP/1.1 408"),
    "drips fields": (b"GET / HTTP/1.1\r\n", b"X: y\r\n", b"HTTP/1.1 408"),
    "drips its body": (POST % b"Content-Length: 9999", b"x", b"HTTP/1.1 408"),
    "drips its chunks": (POST % b"Transfer-Encoding: chunked", b"1\r\nx\r\n", b"HTTP/1.1 408"),
    "drips its trailers": (POST % b"Transfer-Encoding: chunked" + b"0\r\n", b"X: y\r\n", b"HTTP/1.1 408"),
    "idles": (GET, b"", b"HTTP/1.1 200"),
    "idles with blank lines": (GET, b"\r\n", b"HTTP/1.1 200"),
    "drips a body nobody reads": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n",
        b"x",
        b"HTTP/1.1 200",
    ),
    "drips a second head": (GET + b"GET / HT", b"", b"HTTP/1.1 200"),
}


def test_slow_clients_are_let_go(live: Live) -> None:
    def run(case: tuple[bytes, bytes, bytes]) -> tuple[float, bytes]:
        first, drip, _ = case
        with live.connect() as peer:
            peer.sendall(first)
            return closing(peer, drip)

    with ThreadPoolExecutor(len(SLOW)) as pool:
        came = dict(zip(SLOW, pool.map(run, SLOW.values()), strict=True))
    for name, (seconds, said) in came.items():
        last_words = SLOW[name][2]
        assert 0.3 < seconds < 2, name
        assert said.startswith(last_words) and bool(said) == bool(last_words), (name, said)


def test_slow_clients_do_not_hold_up_others(live: Live) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(30):
            peer = stack.enter_context(live.connect())
            peer.sendall([b"", b"G", b"GET / HTTP/1.1\r\nX: ", POST % b"Content-Length: 9"][number % 4])
        started = time.monotonic()
        assert live.get().status_code == 200
        assert time.monotonic() - started < 0.3
        until(lambda: live.connections() == 0)


def test_a_connection_in_use_outlives_its_deadlines(live: Live) -> None:
    with live.connect() as peer:
        for _ in range(8):
            peer.sendall(GET)
            assert answer(peer).status == 200
            time.sleep(0.1)
        peer.sendall(b"GET /slow?s=0.7 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer(peer).status == 200


MALFORMED = {
    "CL and TE": POST % b"Content-Length: 3\r\nTransfer-Encoding: chunked" + b"0\r\n\r\n",
    "TE and CL": POST % b"Transfer-Encoding: chunked\r\nContent-Length: 3" + b"0\r\n\r\n",
    "two CL": POST % b"Content-Length: 3\r\nContent-Length: 3" + b"abc",
    "two different CL": POST % b"Content-Length: 3\r\nContent-Length: 60" + b"abc",
    "a list of CL": POST % b"Content-Length: 3, 3" + b"abc",
    "a signed CL": POST % b"Content-Length: +3" + b"abc",
    "a hexadecimal CL": POST % b"Content-Length: 0x3" + b"abc",
    "an empty CL": POST % b"Content-Length:" + b"abc",
    "a CL beyond 64 bits": POST % b"Content-Length: 99999999999999999999999" + b"abc",
    "TE: xchunked": POST % b"Transfer-Encoding: xchunked" + b"0\r\n\r\n",
    "TE: identity": POST % b"Transfer-Encoding: identity" + b"abc",
    "TE: chunked, identity": POST % b"Transfer-Encoding: chunked, identity" + b"0\r\n\r\n",
    "two TE": POST % b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity" + b"0\r\n\r\n",
    "TE with a vertical tab": POST % b"Transfer-Encoding: \x0bchunked" + b"0\r\n\r\n",
    "TE with a space before the colon": POST % b"Transfer-Encoding : chunked" + b"0\r\n\r\n",
    "bare LF": GET.replace(b"\r\n", b"\n"),
    "bare LF in the fields": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "bare LF at the end": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "bare CR": GET.replace(b"\r\n", b"\r"),
    "bare CR in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: w\r\n\r\n",
    "obs-fold": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
    "a folded first field": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost a\r\n\r\n",
    "no field name": b"GET / HTTP/1.1\r\n: a\r\n\r\n",
    "a field name in brackets": b"GET / HTTP/1.1\r\nHost: a\r\nX(): y\r\n\r\n",
    "bare LF in chunks": POST % b"Transfer-Encoding: chunked" + b"3\nabc\n0\n\n",
    "a negative chunk": POST % b"Transfer-Encoding: chunked" + b"-3\r\nabc\r\n0\r\n\r\n",
    "a hexadecimal chunk": POST % b"Transfer-Encoding: chunked" + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": POST % b"Transfer-Encoding: chunked" + b"FFFFFFFFFFFFFFFFF\r\nabc",
    "a chunk longer than it says": POST % b"Transfer-Encoding: chunked" + b"3\r\nabcdef\r\n0\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a version of the future": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target that is not ASCII": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "no slash": b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a head of 1 MB": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
    "10,000 fields": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "a target of 1 MB": b"GET /" + b"y" * 1_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED)
def test_malformed_is_refused_once(live: Live, malformed: bytes) -> None:
    """With a request behind it that only a server that misread the first one would answer."""
    before = live.workshop.requests
    (reply,) = live.say(malformed + SMUGGLED)
    assert 400 <= reply.status < 500
    assert b"smuggled" not in reply.body
    assert live.workshop.requests == before, "the service was called"


@pytest.mark.parametrize("malformed", [b"\x00\x01garbage\r\n\r\n", MALFORMED["CL and TE"]])
def test_what_came_before_is_answered_and_what_comes_behind_is_not(live: Live, malformed: bytes) -> None:
    slow = b"GET /slow?s=0.1 HTTP/1.1\r\nHost: a\r\n\r\n"
    answers = live.say(slow + malformed + SMUGGLED)
    assert [reply.status for reply in answers] == [200]
    answers = live.say(slow, malformed, SMUGGLED)
    assert answers[0].status == 200
    assert [reply.status for reply in answers[1:]] in ([], [400])


def test_a_body_that_turns_out_malformed_is_refused_once(live: Live) -> None:
    before = live.workshop.ran
    began = b"POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    (reply,) = live.say(began, b"zzz\r\n", SMUGGLED)
    assert reply.status == 400
    assert live.workshop.ran == before
    until(lambda: not live.server.server_state.tasks)


def test_a_malformed_body_ends_its_request_at_once() -> None:
    """Even if the client stays."""
    with served(bounds=replace(QUICK, linger_s=30)) as live, live.connect() as peer:
        peer.sendall(b"POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        until(lambda: live.workshop.requests == 1)
        peer.sendall(b"zzz\r\n")
        assert answer(peer).status == 400
        until(lambda: not live.server.server_state.tasks, within_s=1)
        assert live.connections() == 1


def test_an_answer_given_before_the_body_is_the_only_one(live: Live) -> None:
    early = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    (reply,) = live.say(early, b"zzz\r\n", SMUGGLED)
    assert reply.status == 200
    kept = live.say(early, b"0\r\n\r\n" + LAST)
    assert [reply.status for reply in kept] == [200, 200]


def test_nothing_after_a_last_request_is_read(live: Live) -> None:
    before = live.workshop.requests
    (reply,) = live.say(LAST + SMUGGLED)
    assert reply.status == 200 and b"world" in reply.body
    assert live.workshop.requests == before + 1


def test_trailers_do_not_become_headers(live: Live) -> None:
    said = POST % b"Transfer-Encoding: chunked\r\nConnection: close"
    (reply,) = live.say(said + b"3\r\nabc\r\n0\r\n", b"Authorization: Bearer x\r\n\r\n")
    assert reply.status == 200
    assert b"authorization" not in reply.body and b"transfer-encoding" in reply.body


@pytest.mark.parametrize(
    "endless",
    [b"0\r\nX: ", b"0\r\n", b"3;", b""],
    ids=["a trailer", "trailers", "a chunk extension", "a chunk size"],
)
def test_framing_without_end_is_refused(live: Live, endless: bytes) -> None:
    """Only bytes of the body count towards its limit: what surrounds them has its own."""
    filler = b"X: y\r\n" * 20_000 if endless == b"0\r\n" else b"0" * 120_000
    answers = live.say(POST % b"Transfer-Encoding: chunked", endless, filler, filler)
    assert [reply.status for reply in answers] in ([431], [400])
    until(lambda: not live.server.server_state.tasks)


def test_a_body_in_single_bytes_is_taken(live: Live) -> None:
    said = POST % b"Transfer-Encoding: chunked\r\nConnection: close"
    (reply,) = live.say(said, b"1\r\nx\r\n" * 5000, b"1\r\nx\r\n" * 5000, b"0\r\n\r\n")
    assert reply.status == 200
    assert b'"size":10000' in reply.body


def test_pipelined_requests_are_answered_in_order(live: Live) -> None:
    names = [b"GET /?name=%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(12)]
    slow = b"GET /slow?s=0.05 HTTP/1.1\r\nHost: a\r\n\r\n"
    said = slow + b"".join(names)
    for parts in ([said + LAST], [said[:200], said[200:] + LAST], [slow, *names, LAST]):
        answers = live.say(*parts)
        assert [reply.status for reply in answers] == [200] * 14
        assert [reply.body for reply in answers[1:13]] == [b'{"hello":"%d"}' % n for n in range(12)]


def test_a_pipelined_body_may_come_later(live: Live) -> None:
    slow = b"GET /slow?s=0.1 HTTP/1.1\r\nHost: a\r\n\r\n"
    two = POST % b"Content-Length: 4"
    answers = live.say(slow + GET + two + b"ab", b"c", b"d" + LAST)
    assert [reply.status for reply in answers] == [200] * 4
    assert b'"size":4' in answers[2].body


def test_a_flood_of_pipelined_requests_is_cut(live: Live) -> None:
    before = live.workshop.requests
    answers = live.say(GET * 20_000)
    assert all(reply.status == 200 for reply in answers)
    assert live.workshop.requests - before < 100
    until(lambda: live.connections() == 0)


def test_an_unknown_upgrade_is_ignored(live: Live) -> None:
    said = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    (reply,) = live.say(said + SMUGGLED)
    assert reply.status == 200
    assert reply.headers["connection"] == "close"


SHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%b\r\n"
)


def test_a_websocket_handshake_stands_alone(live: Live) -> None:
    """The workshop has no WebSocket: 403."""
    assert [reply.status for reply in live.say(SHAKE % b"")] == [403]
    assert [reply.status for reply in live.say(GET, SHAKE % b"Content-Length: 0\r\n")] == [200, 403]
    for body in (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"):
        (reply,) = live.say(SHAKE % body)
        assert reply.status in (400, 408)
    slow = b"GET /slow?s=0.1 HTTP/1.1\r\nHost: a\r\n\r\n"
    assert [reply.status for reply in live.say(slow + SHAKE % b"")] == [200]
    assert [reply.status for reply in live.say(slow, SHAKE % b"")] == [200, 403]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_that_came_in_time_is_answered_by_a_server_that_was_late(loop: Loop) -> None:
    """Its connection's time was up before the event loop came to see what it had received."""
    with served(loop=loop) as live, live.connect() as kept, live.connect() as fresh:
        kept.sendall(GET)
        assert answer(kept).status == 200
        until(lambda: live.connections() == 2)
        live.hold_up_reading(2 * QUICK.idle_s)
        time.sleep(QUICK.idle_s / 2)
        for peer in (kept, fresh):
            peer.sendall(GET)
        assert [answer(peer).status for peer in (kept, fresh)] == [200, 200]


@pytest.mark.parametrize("loop", LOOPS)
def test_idle_connections_make_room(loop: Loop) -> None:
    """Those that wait longest go first, and none that is being answered."""
    bounds = replace(QUICK, max_connections=10, first_byte_s=30, head_s=30, idle_s=30)
    with served(loop=loop, bounds=bounds) as live, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(live.connect()) for _ in range(4)]
        for peer in busy:
            peer.sendall(b"GET /slow?s=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: live.workshop.slots == 4)
        idle = []
        for _ in range(6):
            peer = stack.enter_context(live.connect())
            peer.sendall(GET)
            assert answer(peer).status == 200
            idle.append(peer)
        until(lambda: live.connections() == 10)
        fresh = [stack.enter_context(live.connect()) for _ in range(3)]
        for peer in fresh:
            peer.sendall(GET)
            assert answer(peer).status == 200
        assert [everything(peer) for peer in idle[:3]] == [b""] * 3
        idle[5].sendall(GET)
        assert answer(idle[5]).status == 200
        assert live.connections() == 10
        for peer in busy:
            assert answer(peer).status == 200


@pytest.mark.parametrize("loop", LOOPS)
def test_too_many_requests_at_once_are_refused_in_words(loop: Loop) -> None:
    bounds = replace(QUICK, max_connections=8)
    with served(loop=loop, bounds=bounds) as live, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(live.connect()) for _ in range(8)]
        for peer in busy:
            peer.sendall(b"GET /slow?s=0.5 HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: live.workshop.slots == 8)
        (refused,) = live.say(GET)
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1"
        for peer in busy:
            assert answer(peer).status == 200
            peer.close()
        until(lambda: live.connections() == 0)
        assert live.get().status_code == 200


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reader_who_does_not_read_is_cut_off(loop: Loop) -> None:
    with served(loop=loop) as live, contextlib.ExitStack() as stack:
        for last in (b"", b"Connection: close\r\n"):
            for size in (8_000_000, 30_000_000):
                peer = stack.enter_context(live.connect(receive_buffer=4096))
                peer.sendall(b"GET /big?n=%d HTTP/1.1\r\nHost: a\r\n%b\r\n" % (size, last))
        until(lambda: live.connections() == 4)
        assert 0.3 < until(lambda: live.connections() == 0) < 2
        assert live.get().status_code == 200


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
def test_a_reader_who_reads_slowly_is_not(loop: Loop, last: bytes) -> None:
    """Nor is it taken for idle, though its response was complete long ago."""
    size = 20_000_000
    with served(loop=loop) as live, live.connect(receive_buffer=65536) as peer:
        peer.sendall(b"GET /big?n=%d HTTP/1.1\r\nHost: a\r\n%b\r\n" % (size, last))
        data = bytearray()
        started = time.monotonic()
        while time.monotonic() - started < 1.2:
            data += peer.recv(65536)
            time.sleep(0.01)
        data += everything(peer)
        assert len(replies(bytes(data))[0].body) == size


def test_a_connection_that_ends_in_the_middle_of_an_answer_is_forgotten(live: Live) -> None:
    for _ in range(20):
        with live.connect(receive_buffer=4096) as peer:
            peer.sendall(b"GET /big?n=5000000 HTTP/1.1\r\nHost: a\r\n\r\n")
            peer.recv(10)
    until(lambda: live.connections() == 0)
    until(lambda: not live.server.server_state.tasks)
