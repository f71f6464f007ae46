"""The service with many clients, clients that leave, and a signal in the middle."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.conftest import Server, running

TEXT = "a sentence of a dozen words or so, long enough to take a little while "


def gauge(server: Server, name: str) -> float:
    text = httpx.get(server.url + "/metrics").text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? ([\d.e+-]+)$", text, re.M))


def at_rest(server: Server, timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if gauge(server, "maru_queue_running_items") == gauge(server, "maru_queue_waiting_items") == 0:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def own(embedding, tmp_path):
    """A server of this test's own."""
    shutil.copytree(embedding.home / "cache", tmp_path / "cache")
    with running(tmp_path, "serve", "embedding") as server:
        server.wait()
        yield server


def test_the_gauges_rise_under_load(own) -> None:
    """What the tests below read is really what the queue holds."""
    with ThreadPoolExecutor(1) as pool, own.client() as client:
        slow = pool.submit(client.post, "/batch-embed", json={"texts": [f"{n} {TEXT}" for n in range(1000)]})
        seen = 0.0
        while not slow.done():
            seen = max(seen, gauge(own, "maru_queue_running_items") + gauge(own, "maru_queue_waiting_items"))
    assert slow.result().status_code == 200 and seen > 400


@pytest.mark.parametrize("abruptly", [False, True])
def test_clients_that_leave_free_their_places(own, abruptly) -> None:
    body = json.dumps({"texts": [f"{n} {TEXT * 20}" for n in range(500)]}).encode()
    head = f"POST /batch-embed HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {own.token()}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    leaving = []
    for _ in range(8):
        client = socket.create_connection(("127.0.0.1", own.port))
        client.sendall(head.encode() + body)
        leaving.append(client)
    while gauge(own, "maru_queue_waiting_items") == 0:
        time.sleep(0.01)
    for client in leaving:
        if abruptly:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    # 4,000 texts of 300 tokens would take minutes.
    assert at_rest(own, 5.0)
    with own.client() as client:
        answer = client.post("/embed", json={"text": "still here"})
    assert answer.status_code == 200


def test_a_full_line_refuses_and_says_when_to_come_back(own) -> None:
    results: list[httpx.Response] = []

    def send(user: int) -> None:
        with httpx.Client(base_url=own.url, timeout=60) as client:
            texts = [f"{user} {n} {TEXT}" for n in range(2048)]
            results.append(client.post("/batch-embed", json={"texts": texts}, headers=own.headers("one")))

    senders = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    refused = [answer for answer in results if answer.status_code == 429]
    assert refused and all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert {answer.status_code for answer in results} <= {200, 429, 504}
    assert at_rest(own, 10.0)


def test_a_greedy_caller_does_not_starve_another(own) -> None:
    greedy = [f"{n} {TEXT}" for n in range(2000)]
    with ThreadPoolExecutor(1) as pool, own.client("greedy") as many, own.client("modest") as one:
        running_list = pool.submit(many.post, "/batch-embed", json={"texts": greedy})
        while gauge(own, "maru_queue_waiting_items") == 0:
            time.sleep(0.01)
        began = time.monotonic()
        assert one.post("/embed", json={"text": "only this"}).status_code == 200
        waited = time.monotonic() - began
        assert not running_list.done()
        assert running_list.result().status_code in (200, 504)
        whole = time.monotonic() - began
    assert waited < whole / 3


def test_sigterm_under_load_loses_nothing(embedding, tmp_path) -> None:
    """Readiness fails at once, and for two seconds more whoever has not noticed yet is served as before."""
    shutil.copytree(embedding.home / "cache", tmp_path / "cache")
    stop = threading.Event()
    answers: list[int | str] = []

    def send(worker: int) -> None:
        with httpx.Client(base_url=server.url, headers=server.headers(f"user-{worker}"), timeout=30) as client:
            while not stop.is_set():
                try:
                    answers.append(client.post("/embed", json={"text": f"{worker} {len(answers)} {TEXT}"}).status_code)
                except httpx.TransportError as error:
                    answers.append(repr(error))

    with running(tmp_path, "serve", "embedding", DRAIN_DELAY_S="2") as server, ThreadPoolExecutor(8) as pool:
        server.wait()
        for worker in range(8):
            pool.submit(send, worker)
        while len(answers) < 100:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: httpx.get(server.url + "/readyz").status_code == 503, 1.0)
        before = len(answers)
        time.sleep(0.5)
        stop.set()
        assert server.process.wait(40) == 0
    assert set(answers) == {200} and len(answers) > before
