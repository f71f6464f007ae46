"""R8 and R26: requests that nobody should send, many at once, and a loop that never stands still."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from starlette.applications import Starlette
from tests.http.live import QUICK, Workshop, served, until

SEEDS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /?name=%F0%9F%98%80 HTTP/1.1\r\nHost: a:80\r\nAccept: */*\r\nX-Request-ID: one\r\n\r\n",
    b"HEAD /big?n=10 HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    b'POST /json HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"a": [1, 2]}',
    b"POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: v\r\n\r\n",
    b"POST /slow?s=0.01 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /events?n=2&every=0 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
]
SPICE = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"%", b"{", b"\x0b", b"\x7f", b"\xff"),
    *(b"\xc3\x28", b"\x16\x03\x01", b"A" * 300, b"-1", b"0", b"99999999999", b"chunked", b"HTTP/1.1"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Host: b\r\n", b"Upgrade: h2c\r\n"),
    *(b"Connection: close\r\n", b"..%2f"),
]


def mutated(dice: random.Random) -> bytes:
    data = bytearray(dice.choice(SEEDS))
    for _ in range(dice.choice((0, 1, 1, 2, 3, 8))):
        here = dice.randrange(len(data) + 1)
        there = min(len(data), here + dice.randrange(1, 12))
        match dice.randrange(5):
            case 0:
                data[here:here] = dice.choice(SPICE)
            case 1:
                del data[here:there]
            case 2:
                data[here:there] = dice.choice(SPICE)
            case 3:
                data[here:there] = data[here:there] * 2
            case 4 if here < len(data):
                data[here] ^= 1 << dice.randrange(8)
    return bytes(data) if data else b"\n"


def heard(peer: socket.socket) -> bytes:
    """What is answered until the server closes, or shows that it is an endless stream."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while len(data) < 20_000 and (part := peer.recv(4096)):
            data += part
    return data


class Watched(Workshop):
    """Knows how long the event loop's thread computed at most before it came back: not how long it was kept waiting
    by what else runs here."""

    away_s = 0.0

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        ticker = asyncio.create_task(self.tick())
        async with super().lifespan(app):
            yield
        ticker.cancel()

    async def tick(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.01)
            self.away_s = max(self.away_s, time.thread_time() - before)


def test_mutated_requests_are_answered_or_closed() -> None:
    dice = random.Random(20261121)
    shop = Watched(body_timeout_s=0.4)
    seen: Counter[bytes] = Counter()
    gc.freeze()  # of all tests before, which would be looked through here
    with served(shop, bounds=replace(QUICK, max_connections=500)) as live:
        for _ in range(6):
            with contextlib.ExitStack() as stack:
                asked = []
                for _ in range(150):
                    peer = stack.enter_context(live.connect())
                    peer.settimeout(2)
                    said = mutated(dice)
                    with contextlib.suppress(OSError):
                        peer.sendall(said)
                    asked.append((peer, said))
                for peer, said in asked:
                    try:
                        status = heard(peer)[:12]
                    except TimeoutError:
                        # As asked: a mutated `s` or `every` may be a long time.
                        assert b"/slow" in said or b"/events" in said, said
                        continue
                    seen[status] += 1
                    assert status[9:10] in b"124", (said, status)
        until(lambda: live.connections() == 0)
        until(lambda: not live.server.server_state.tasks)
        assert live.get().status_code == 200
        assert shop.slots == 0
    assert seen[b"HTTP/1.1 200"] > 100 and seen[b"HTTP/1.1 400"] > 100, seen
    assert shop.away_s < 0.5
