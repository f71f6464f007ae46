"""The load generator: one process, one thread, one epoll, HTTP/1.1 keep-alive, requests prepared beforehand.

Closed loop (`clients` that each wait for their answer) or open loop (requests at intended times, whatever the
server does; latency counts from the intended time, so a stall is charged to every request it delayed). Every
answer is checked. What the generator itself costs is measured and reported, because it shares the machine.

    python -m bench.load http://127.0.0.1:8000/embed --body '{"text": "hi"}' --clients 16 --seconds 10
    python -m bench.load http://127.0.0.1:8000/embed --body '{"text": "hi"}' --rate 200 --poisson --pid 1234
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import json
import math
import random
import select
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench.http1 import Connection, Garbled, http_request
from bench.outcome import Latency, Outcome
from bench.procs import busy_s, cpu_s, proportional, resident, tree

RESTED_S = 1.0
"""A connection that was not used for longer is looked at first: its server may have closed it."""

Check = Callable[[int, bytes], bool]
"""Whether the body answers request number n. Called on every 200, so it must be cheap."""


class Requests:
    """An endless series of requests by number. `prepare` makes some of them before the run has to."""

    def __init__(self, make: Iterator[bytes]) -> None:
        self._make = make
        self._made: deque[bytes] = deque()
        self.made_late = 0
        """How many had to be made while the load was running."""

    def prepare(self, count: int) -> None:
        while len(self._made) < count:
            self._made.append(next(self._make))

    def take(self) -> bytes:
        if self._made:
            return self._made.popleft()
        self.made_late += 1
        return next(self._make)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to load. With `rate` the loop is open (requests a second), otherwise closed with `clients`.

    The window opens `lead_s` after the first request and lasts `seconds`, or, in a closed loop, until
    `min_answers` have come in it, `max_seconds` at most. An open loop goes on after it at `tail_rate` for
    `tail_s`. Answers are awaited `drain_s` after the last request.
    """

    seconds: float
    clients: int = 1
    rate: float | None = None
    poisson: bool = False
    seed: int = 0
    tail_rate: float = 0.0
    tail_s: float = 0.0
    lead_s: float = 0.3
    min_answers: int = 0
    max_seconds: float = 60.0
    drain_s: float = 30.0
    timeout_s: float = 30.0
    max_connections: int = 4096
    sample_every: int = 50
    sample_max: int = 12


_Meter = tuple[float, float, float]  # CPU seconds of this process, of the server, of the whole machine


class Load:
    """One run of one plan against one address."""

    def __init__(
        self,
        address: tuple[str, int],
        requests: Requests,
        plan: Plan,
        check: Check = lambda number, body: True,
        pids: Callable[[], list[int]] | None = None,
    ) -> None:
        self._address, self._requests, self._plan = address, requests, plan
        self._check, self._pids = check, pids
        self._epoll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self._number = 0
        self._opened = 0
        self._statuses: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._ok: list[tuple[float, float]] = []  # (answered at, latency)
        self._refused: list[tuple[float, float]] = []
        self._with_retry_after = 0
        self._late: list[float] = []
        self._bytes_in = self._bytes_out = 0
        self._samples: list[tuple[int, bytes]] = []

    def run(self) -> Outcome:
        """Load, wait for the last answers, and say what was measured."""
        gc.collect()
        gc.disable()
        try:
            return self._run()
        finally:
            gc.enable()
            for connection in self._open.values():
                connection.sock.close()
            self._epoll.close()

    def _run(self) -> Outcome:
        plan, now = self._plan, time.perf_counter
        pids = self._pids() if self._pids else []
        began = now()
        opens = began + plan.lead_s
        closes = opens + plan.seconds
        latest = opens + max(plan.max_seconds, plan.seconds)
        first: _Meter | None = None
        last: _Meter | None = None
        rss: list[int] = []
        next_tick = began
        arrivals = self._arrivals(began) if plan.rate else None
        due = next(arrivals) if arrivals else 0.0
        waiting: deque[float] = deque()
        while True:
            at = now()
            if first is None and at >= opens:
                first, opens = (time.process_time(), cpu_s(pids), busy_s()), at
            if last is None and at >= closes and (arrivals or len(self._ok) >= plan.min_answers or at >= latest):
                last, closes = (time.process_time(), cpu_s(pids), busy_s()), at
            if at >= next_tick:
                next_tick = at + 0.25
                rss.append(resident(pids))
                self._expire(at)
            wake = min(next_tick, opens if first is None else closes if closes > at else next_tick)
            if last is not None and at >= closes + plan.tail_s:
                if len(self._idle) == len(self._open) or at > closes + plan.tail_s + plan.drain_s:
                    break
            elif arrivals:
                while due <= at:
                    waiting.append(due)
                    due = next(arrivals)
                while waiting and self._send_new(waiting[0]):
                    waiting.popleft()
                wake = min(wake, due)
            else:
                for _ in range(plan.clients - len(self._open) + len(self._idle)):
                    if not self._send_new(now()):
                        break
            self._turn(wake - now())
        self._errors["unanswered"] += len(self._open) - len(self._idle)
        assert first
        return self._outcome(opens, closes, first, last, rss, len(waiting))

    def _arrivals(self, began: float) -> Iterator[float]:
        """When each request is due: at the plan's rate, then at its tail's, then never."""
        plan, due = self._plan, began
        rng = random.Random(plan.seed)
        over = began + plan.lead_s + plan.seconds
        for rate, end in ((plan.rate, over), (plan.tail_rate, over + plan.tail_s)):
            while rate and due < end:
                yield due
                due += rng.expovariate(rate) if plan.poisson else 1 / rate
        while True:
            yield math.inf

    def _turn(self, wait_s: float) -> None:
        """Handle what is ready, waiting at most `wait_s`.

        An open loop waits with select: epoll's clock ticks once a millisecond, too coarse to send on time.
        """
        wait_s = max(0.0, wait_s)
        if self._plan.rate and wait_s:
            select.select([self._epoll.fileno()], [], [], wait_s)
            wait_s = 0.0
        ready = self._epoll.poll(wait_s)
        for fd, event in ready:
            connection = self._open.get(fd)
            if connection is None:
                continue
            try:
                if connection.pending and event & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP):
                    self._flush(connection)
                if event & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP):
                    self._receive(connection)
            except Garbled:
                self._drop(connection, "garbled")
            except OSError as error:
                self._drop(connection, "connect" if error.errno == errno.ECONNREFUSED else "reset")

    def _send_new(self, intended: float) -> bool:
        """Send the next request on an idle connection or a new one; False when none is to be had."""
        while self._idle:
            connection = self._idle.pop()
            if time.perf_counter() - connection.sent < RESTED_S or not connection.gone():
                break
            self._forget(connection)
        else:
            fresh = self._opened_one()
            if fresh is None:
                return False
            connection = fresh
        connection.number = self._number
        self._number += 1
        payload = self._requests.take()
        connection.intended = intended
        connection.sent = time.perf_counter()
        if self._plan.rate:
            self._late.append(connection.sent - intended)
        connection.pending = payload
        self._bytes_out += len(payload)
        try:
            self._flush(connection)
        except OSError:
            self._drop(connection, "reset")
        return True

    def _opened_one(self) -> Connection | None:
        """A new connection, if one more may be opened, and can."""
        if len(self._open) >= self._plan.max_connections:
            return None
        try:
            connection = Connection(self._address)
        except OSError:
            self._errors["connect"] += 1
            return None
        self._opened += 1
        self._open[connection.fd] = connection
        self._epoll.register(connection.fd, select.EPOLLIN | select.EPOLLOUT)
        return connection

    def _flush(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(connection.pending)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOTCONN, errno.EALREADY):
                raise
            sent = 0
        connection.pending = connection.pending[sent:]
        if connection.writing != bool(connection.pending):
            connection.writing = not connection.writing
            self._epoll.modify(connection.fd, select.EPOLLIN | (select.EPOLLOUT * connection.writing))

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(1 << 20)
        except BlockingIOError:
            return
        if not data:
            if connection.number < 0:  # the server closed an idle connection: no request was lost
                self._forget(connection)
                return
            raise OSError(errno.ECONNRESET, "closed before the answer")
        self._bytes_in += len(data)
        body = connection.take(data)
        if body is not None:
            self._answered(connection, body)

    def _answered(self, connection: Connection, body: bytes) -> None:
        at = time.perf_counter()
        latency = at - (connection.intended if self._plan.rate else connection.sent)
        number, status = connection.number, connection.status
        self._statuses[str(status)] += 1
        if status == 200:
            if not self._check(number, body):
                self._errors["wrong"] += 1
            else:
                self._ok.append((at, latency))
                if number % self._plan.sample_every == 0 and len(self._samples) < self._plan.sample_max:
                    self._samples.append((number, body))
        elif status in (429, 503):
            self._refused.append((at, latency))
            self._with_retry_after += connection.retry_after
        closing = connection.closing
        connection.number = -1
        connection.reset()
        if closing:
            self._forget(connection)
        else:
            self._idle.append(connection)

    def _drop(self, connection: Connection, why: str) -> None:
        if connection.number >= 0:
            self._errors[why] += 1
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self._open.pop(connection.fd, None)
        if connection.number < 0:
            with contextlib.suppress(ValueError):
                self._idle.remove(connection)
        with contextlib.suppress(OSError):
            self._epoll.unregister(connection.fd)
        connection.sock.close()

    def _expire(self, at: float) -> None:
        limit = at - self._plan.timeout_s
        for connection in [c for c in self._open.values() if c.number >= 0 and c.sent < limit]:
            self._drop(connection, "timeout")

    def _outcome(
        self,
        opens: float,
        closes: float,
        first: _Meter,
        last: _Meter,
        rss: list[int],
        unsent: int,
    ) -> Outcome:
        inside = [(at, latency) for at, latency in self._ok if opens <= at < closes]
        refused = [(at, latency) for at, latency in self._refused if opens <= at < closes]
        buckets = [0] * (int(closes - opens) + 1)
        for at, _ in inside:
            buckets[int(at - opens)] += 1
        cpu = last[0] - first[0]
        late = sorted(self._late)
        return Outcome(
            seconds=round(closes - opens, 3),
            ok=len(inside),
            ok_per_s=round(self._rate(opens, closes), 3),
            latency=Latency.of(latency for _, latency in inside),
            statuses=dict(sorted(self._statuses.items())),
            errors={name: count for name, count in self._errors.items() if count},
            refused=Latency.of(latency for _, latency in refused),
            refused_with_retry_after=self._with_retry_after,
            unsent=unsent,
            late_p99_ms=round(1000 * late[int(0.99 * len(late))], 3) if late else 0.0,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            client_cpu_s=round(cpu, 4),
            client_cpu_ms_per_answer=round(1000 * cpu / max(1, len(inside) + len(refused)), 5),
            server_cpu_s=round(last[1] - first[1], 3),
            rss_first=rss[0],
            rss_max=max(rss),
            rss_last=rss[-1],
            pss=proportional(self._pids() if self._pids else []),
            other_cores_busy=round(
                max(0.0, last[2] - first[2] - cpu - last[1] + first[1]) / max(1e-9, closes - opens), 3
            ),
            connections=self._opened,
            made_late=self._requests.made_late,
            per_second_ok=buckets,
            tail=self._tail(closes),
            samples=self._samples,
        )

    def _tail(self, closes: float) -> list[tuple[float, float, bool]]:
        if not self._plan.tail_s:
            return []
        answers = [
            (at, latency, right) for right, some in ((True, self._ok), (False, self._refused)) for at, latency in some
        ]
        found = [(at - latency - closes, 1000 * latency, right) for at, latency, right in answers]
        return sorted(answer for answer in found if answer[0] >= 0)

    def _rate(self, opens: float, closes: float) -> float:
        """Right answers a second; in a closed loop, from the last one before the window to the window's last:
        from edge to edge, a slow server's rate would depend on where in an answer the window fell."""
        times = sorted(at for at, _ in self._ok if opens <= at < closes)
        if len(times) < 3 or self._plan.rate:
            return len(times) / (closes - opens)
        before = max((at for at, _ in self._ok if at < opens), default=opens)
        return len(times) / (times[-1] - before)


def warmed(
    address: tuple[str, int],
    warm: Requests,
    measured: Requests,
    plan: Plan,
    warm_s: float,
    check: Check,
    pids: Callable[[], list[int]] | None = None,
) -> Outcome:
    """Load for `warm_s` with other requests, prepare as many as that rate calls for, then measure."""
    warming = Plan(seconds=warm_s, clients=plan.clients, lead_s=0.0, drain_s=plan.drain_s)
    before = Load(address, warm, warming, check).run()
    rate = before.ok_per_s if before.ok else 1.0
    measured.prepare(int(1.4 * rate * (plan.lead_s + plan.seconds)) + 2 * plan.clients)
    return Load(address, measured, plan, check, pids).run()


def main() -> None:
    """The command line above."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("url")
    parser.add_argument("--body", help="JSON sent with POST; without it the request is a GET")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rate", type=float, help="requests a second, open loop")
    parser.add_argument("--poisson", action="store_true")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--timeout", type=float, default=30.0)
    parser.add_argument("--pid", type=int, help="measure this process and its descendants")
    options = parser.parse_args()
    url = urlsplit(options.url)
    host, port = url.hostname or "127.0.0.1", url.port or 80
    headers = dict(line.split(": ", 1) for line in options.header)
    body = options.body.encode() if options.body else b""
    request = http_request("POST" if body else "GET", f"{host}:{port}", url.path or "/", body, headers)

    def same() -> Iterator[bytes]:
        while True:
            yield request

    plan = Plan(options.seconds, options.clients, options.rate, options.poisson, timeout_s=options.timeout)
    pids = (lambda: tree(options.pid)) if options.pid else None
    print(json.dumps(Load((host, port), Requests(same()), plan, pids=pids).run().to_json(), indent=2))


if __name__ == "__main__":
    main()
