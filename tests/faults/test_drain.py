"""R21: a server that is told to stop, from outside, while it is busy."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections import Counter

from tests.faults.child import listening, process
from tests.http.live import answer, everything, replies, until


class Traffic:
    """Clients that each connect, ask once, and count what came of it, over and over."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.came: Counter[str] = Counter()
        self._port = port
        self._over = False
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over:
            self.came[self._once()] += 1
            time.sleep(0.005)

    def _once(self) -> str:
        try:
            peer = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        except (ConnectionRefusedError, ConnectionResetError):
            return "refused"
        with peer:
            try:
                peer.sendall(b"GET /slow?s=0.02 HTTP/1.1\r\nHost: a\r\n\r\n")
                return str(answer(peer).status)
            except (OSError, AssertionError):
                return "lost"


def connect(listener: socket.socket, target: bytes) -> socket.socket:
    peer = socket.create_connection(listener.getsockname(), timeout=20)
    peer.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
    return peer


def ask(listener: socket.socket, target: bytes) -> int:
    with connect(listener, target) as peer:
        return answer(peer).status


def test_a_busy_server_loses_nothing() -> None:
    with (
        listening() as listener,
        process(listener, drain_delay_s=0.7, grace_s=8) as server,
        contextlib.ExitStack() as stack,
    ):
        address = listener.getsockname()
        running = [stack.enter_context(connect(listener, b"/slow?s=" + s)) for s in (b"1.5", b"3")]
        streams = [stack.enter_context(connect(listener, b"/events")) for _ in range(10)]
        for stream in streams:
            assert stream.recv(15) == b"HTTP/1.1 200 OK"
        traffic = stack.enter_context(Traffic(address[1]))
        until(lambda: traffic.came["200"] > 20)
        assert ask(listener, b"/ready") == 200
        listener.close()  # the server's copy is now the only one, as when it opened the port itself
        server.send_signal(signal.SIGTERM)
        told = time.monotonic()
        with socket.create_connection(address, timeout=5) as peer:
            time.sleep(0.1)
            peer.sendall(b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answer(peer).status == 503
        until(lambda: traffic.came["refused"] > 0, within_s=5)
        assert time.monotonic() - told > 0.6, "the doors were closed before the balancer could know"
        for peer in running:
            assert replies(everything(peer))[0].status == 200
        for peer in streams:
            assert b"event: server_shutdown" in everything(peer)
        assert server.wait(10) == 0
        assert time.monotonic() - told < 8
    # Between the last accept and the close there is an instant that only a supervisor's socket bridges.
    assert traffic.came.pop("lost", 0) <= 1
    assert set(traffic.came) == {"200", "refused"}, traffic.came


def test_an_interrupt_does_not_wait_for_balancers() -> None:
    with listening() as listener, process(listener, drain_delay_s=30, grace_s=30) as server:
        assert ask(listener, b"/ready") == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(2) == 0


def test_a_second_signal_does_not_wait_for_anyone() -> None:
    with (
        listening() as listener,
        process(listener, drain_delay_s=30, grace_s=30) as server,
        connect(listener, b"/slow?s=30") as peer,
    ):
        assert ask(listener, b"/ready") == 200
        server.send_signal(signal.SIGTERM)
        until(lambda: ask(listener, b"/ready") == 503)
        server.send_signal(signal.SIGTERM)
        assert server.wait(3) == 1
        assert b"SHUTTING_DOWN" in everything(peer)


def test_one_process_takes_over_from_another() -> None:
    """The listening socket is the supervisor's: while one server drains, the next one accepts."""
    with listening() as listener, contextlib.ExitStack() as stack:
        server = stack.enter_context(process(listener, drain_delay_s=0, grace_s=8))
        with Traffic(listener.getsockname()[1]) as traffic:
            for _ in range(3):
                successor = stack.enter_context(process(listener, drain_delay_s=0, grace_s=8))
                server.send_signal(signal.SIGTERM)
                assert server.wait(10) == 0
                server = successor
            seen = traffic.came["200"]
            until(lambda: traffic.came["200"] > seen + 20)
    assert set(traffic.came) == {"200"}, traffic.came
