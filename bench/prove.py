"""Proves the load generator: against a server whose delays, stalls and faults are known, it must report them.

python -m bench.prove        about 30 s; exits 1 when a figure is not what it has to be
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from bench.http1 import http_request
from bench.load import Check, Load, Plan, Requests
from bench.outcome import Outcome
from bench.procs import Server

_DELAY_MS = 20
_STALL_S = 1.0
_BURN_MS = 2.0
_GROWN_MIB = 64


class _Known(asyncio.Protocol):
    """Answers by path.

    /now, /delay, /stall (the 400th stops the server for a second), /chunked, /close, /refuse,
    /refuse-silently, /reset, /wrong (one in ten), /big (250 kB), /burn (2 ms of CPU), /grow (1 MiB).
    """

    served = 0
    stallable = 0
    grown: ClassVar[list[bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._data.endswith(b"\r\n\r\n"):
            return
        path = self._data.split(b" ", 2)[1].decode()
        self._data = b""
        _Known.served += 1
        if path == "/delay":
            asyncio.get_running_loop().call_later(_DELAY_MS / 1000, self._answer, path)
        elif path == "/reset":
            self._transport.abort()
        else:
            if path == "/burn":
                until = time.process_time() + _BURN_MS / 1000
                while time.process_time() < until:
                    pass
            if path == "/grow" and len(_Known.grown) < _GROWN_MIB:
                _Known.grown.append(os.urandom(1024) * 1024)
            _Known.stallable += path == "/stall"
            if path == "/stall" and _Known.stallable == 400:
                time.sleep(_STALL_S)
            self._answer(path)

    def _answer(self, path: str) -> None:
        body = b"no" if path == "/wrong" and _Known.served % 10 == 0 else b"yes"
        if path == "/big":
            body = b"0.123456," * 28_000
        if path == "/chunked":
            self._transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n2\r\n")
            asyncio.get_running_loop().call_later(0.002, self._transport.write, b"es\r\n0\r\n\r\n")
            return
        status, extra = "200 OK", ""
        if path.startswith("/refuse"):
            status, extra = "429 Too Many Requests", "Retry-After: 3\r\n" if path == "/refuse" else ""
        if path == "/close":
            extra = "Connection: close\r\n"
        self._transport.write(f"HTTP/1.1 {status}\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if path == "/close":
            self._transport.close()


async def _serve(port: int) -> None:
    """The known server, and a child of it in a session of its own, as daemons are."""
    await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    server = await asyncio.get_running_loop().create_server(_Known, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def _yes(number: int, body: bytes) -> bool:
    return body == b"yes"


class Proof:
    """Runs the loads and collects what failed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.failures: list[str] = []
        self.figures: dict[str, float] = {}

    def load(self, path: str, plan: Plan, check: Check = _yes) -> Outcome:
        request = http_request("GET", "known", path)

        def same() -> Iterator[bytes]:
            while True:
                yield request

        return Load(("127.0.0.1", self._server.port), Requests(same()), plan, check, self._server.pids).run()

    def expect(self, what: str, value: float, low: float, high: float) -> None:
        right = low <= value <= high
        self.figures[what] = value
        print(f"{'ok  ' if right else 'FAIL'} {what}: {value:g} (must be {low:g} to {high:g})")
        if not right:
            self.failures.append(what)


def prove(server: Server) -> Proof:
    """Every claim about the generator, checked; and its own limit, reported."""
    proof = Proof(server)
    delayed = proof.load("/delay", Plan(seconds=2.0, clients=8))
    proof.expect("closed loop, 20 ms: p50 ms", delayed.latency.p50, 20.0, 22.5)
    proof.expect("closed loop, 20 ms: 8 clients make about 8/20 ms a second", delayed.ok_per_s, 350, 400)
    proof.expect("closed loop: errors", sum(delayed.errors.values()), 0, 0)

    paced = proof.load("/delay", Plan(seconds=2.0, rate=300.0, poisson=True))
    proof.expect("open loop, Poisson 300/s, 20 ms: rate", paced.ok_per_s, 260, 340)
    proof.expect("open loop: p50 ms", paced.latency.p50, 20.0, 22.5)
    proof.expect("open loop: sent late, p99 ms", paced.late_p99_ms, 0.0, 2.0)

    stalled = proof.load("/stall", Plan(seconds=4.7, rate=200.0, lead_s=0.3))
    # 1,000 requests; the 400th stops the server for 1 s, so 200 are late by 1,000 ms down to 0: one in five
    proof.expect("coordinated omission: a 1 s stall, max ms", stalled.latency.max, 950, 1100)
    proof.expect("coordinated omission: a 1 s stall in 5 s, p95 ms", stalled.latency.p95, 650, 850)
    proof.expect("coordinated omission: p50 ms", stalled.latency.p50, 0.0, 5.0)

    brief = Plan(seconds=0.5, clients=4, lead_s=0.0)
    chunked = proof.load("/chunked", brief)
    proof.expect("chunked answers: right", float(chunked.ok > 50), 1, 1)
    proof.expect("chunked answers: errors", sum(chunked.errors.values()), 0, 0)
    closed = proof.load("/close", brief)
    proof.expect("Connection: close: errors", sum(closed.errors.values()), 0, 0)
    proof.expect("Connection: close: a connection a request", closed.connections / max(1, closed.ok), 0.95, 1.1)
    wrong = proof.load("/wrong", brief)
    share = wrong.errors.get("wrong", 0) / wrong.statuses["200"]
    proof.expect("wrong bodies found: share", share, 0.09, 0.11)
    refused = proof.load("/refuse", brief)
    proof.expect("429 with Retry-After: share", refused.refused_with_retry_after / refused.statuses["429"], 1, 1)
    silent = proof.load("/refuse-silently", brief)
    proof.expect("429 without Retry-After: seen with", silent.refused_with_retry_after, 0, 0)
    proof.expect("429 counted as right answers", silent.ok, 0, 0)
    gone = proof.load("/reset", Plan(seconds=0.2, clients=2, lead_s=0.0))
    proof.expect("resets found", float(gone.errors.get("reset", 0) > 10 and gone.ok == 0), 1, 1)
    timed = proof.load("/delay", Plan(seconds=0.5, clients=2, lead_s=0.0, timeout_s=0.005))
    proof.expect("timeouts found", float(timed.errors.get("timeout", 0) >= 1), 1, 1)

    burnt = proof.load("/burn", Plan(seconds=2.0, clients=4))
    spent = 1000 * burnt.server_cpu_s / burnt.ok
    proof.expect("server CPU, 2 ms a request: ms", spent, _BURN_MS, 1.15 * _BURN_MS)
    grown = proof.load("/grow", Plan(seconds=1.0, clients=1))
    proof.expect("server memory, 64 MiB more: MiB", (grown.rss_max - grown.rss_first) / 2**20, 60, 72)
    proof.expect("processes found, one of which has left the session", len(server.pids()), 2, 2)
    stepped = proof.load("/now", Plan(seconds=1.0, rate=200, tail_rate=100, tail_s=1.0))
    proof.expect("open loop with a tail: requests in the window", stepped.ok, 195, 205)
    proof.expect("open loop with a tail: requests after it", len(stepped.tail), 95, 105)

    small = proof.load("/now", Plan(seconds=2.0, clients=16))
    big = proof.load("/big", Plan(seconds=2.0, clients=4), lambda number, body: body.count(b",") == 28_000)
    for name, outcome in (("small answers", small), ("250 kB answers", big)):
        own = outcome.client_cpu_ms_per_answer
        print(
            f"     own limit, {name}: {outcome.ok_per_s:.0f}/s here beside a Python server; "
            f"{own:.4f} CPU-ms an answer, so about {1000 / own:.0f}/s on a core of its own"
        )
        proof.figures[f"{name}: req/s"] = outcome.ok_per_s
        proof.figures[f"{name}: client CPU-ms an answer"] = own
    proof.expect("own cost: CPU-ms an answer", small.client_cpu_ms_per_answer, 0.0, 0.08)
    return proof


def main() -> None:
    """Run the proof, or, with --serve PORT, be the known server."""
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(_serve(int(sys.argv[2])))
        return
    here = Path(__file__).resolve().parent

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "bench.prove", "--serve", str(port)]

    with Server("known", command, {}, "/now", here / ".cache/logs", here.parent) as server:
        proof = prove(server)
    proof.expect("processes left when the server is stopped", len(server.pids()), 0, 0)
    results = here / "results" / "load.json"
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps(proof.figures, indent=2) + "\n")
    if proof.failures:
        load = os.getloadavg()[0]
        sys.exit(f"failed: {'; '.join(proof.failures)}. Load average {load:.1f}: is the machine quiet?")


if __name__ == "__main__":
    main()
