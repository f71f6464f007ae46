"""R5 and R25: what a crowd of clients may cost the process."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from tests.faults.child import listening, process
from tests.http.live import answer, everything, replies, until


def connect(listener: socket.socket, target: bytes, receive_buffer: int | None = None) -> socket.socket:
    peer = socket.socket()
    if receive_buffer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    peer.settimeout(10)
    peer.connect(listener.getsockname())
    peer.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % target)
    return peer


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def busy_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def slots(listener: socket.socket) -> int:
    with connect(listener, b"/slots") as peer:
        return int(answer(peer).body)


def test_readers_who_do_not_read_cost_little() -> None:
    with listening() as listener, process(listener) as server, contextlib.ExitStack() as stack:
        for _ in range(20):
            assert slots(listener) == 0
        before = resident_mib(server.pid)
        for _ in range(50):
            target = b"/events?every=0&size=5000&patience=2"
            stack.enter_context(connect(listener, target, receive_buffer=4096))
        until(lambda: slots(listener) == 50)
        most = before
        while slots(listener):
            most = max(most, resident_mib(server.pid))
            time.sleep(0.05)
        assert most - before < 16, "64 KiB are buffered for each, and no more"


def test_more_clients_than_files() -> None:
    """Those there is room for are served, some are told so, none is left hanging, and nothing spins."""
    with listening() as listener, process(listener, files=64) as server, contextlib.ExitStack() as stack:
        assert slots(listener) == 0
        began, started = busy_s(server.pid), time.monotonic()
        peers = [stack.enter_context(connect(listener, b"/slow?s=1")) for _ in range(100)]
        answers = [replies(everything(peer)) for peer in peers]
        assert busy_s(server.pid) - began < 0.5 * (time.monotonic() - started)
        statuses = [reply[0].status for reply in answers if reply]
        assert statuses.count(200) >= 20
        assert statuses.count(503) >= 1
        assert set(statuses) == {200, 503}
        assert slots(listener) == 0
