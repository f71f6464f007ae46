"""2 running, 10 waiting, 30 s: the document's queue, and what happens when it is full."""

from __future__ import annotations

import json
import signal
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.contracts.style.conftest import KEY, NO_TLS, OTHER_KEY, Host, StyleServer, eventually, picture, styling

SLOW_S = 1.0


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[StyleServer]:
    with styling(tmp_path_factory.mktemp("slow"), toy={"texts_s": SLOW_S}) as server:
        server.wait()
        yield server


@pytest.fixture
def slow(served) -> Iterator[StyleServer]:
    """A server whose model takes `SLOW_S` over any text, and has nothing to do."""
    yield served
    eventually(lambda: state(served) == (0, 0))


@pytest.fixture
def many() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def state(server: StyleServer) -> tuple[int, int]:
    status = httpx.get(server.url + "/readyz", verify=NO_TLS).json()["queue_status"]
    return status["active_requests"], status["queued_requests"]


def ask(server: StyleServer, text: str, key: str = KEY) -> httpx.Response:
    with server.open(key) as client:
        return client.post("/infer", json={"text": text})


def filled(server: StyleServer, pool: ThreadPoolExecutor) -> list[Future[httpx.Response]]:
    """Twelve requests under way, for what is in no cache."""
    asking = [pool.submit(ask, server, f"모던 {time.monotonic_ns()} {n}") for n in range(12)]
    eventually(lambda: state(server) == (2, 10))
    return asking


def test_thirteen_at_once(slow, many) -> None:
    ask(slow, "the rate is measured by this")
    began = time.monotonic()
    asking = filled(slow, many)
    refused = ask(slow, "모던 13")
    assert refused.status_code == 429
    told = refused.json()
    assert told["error"] == "TOO_MANY_REQUESTS" and set(told) == {"error", "message", "details"}
    status = told["details"]["queue_status"]
    assert (status["active_requests"], status["queued_requests"], status["max_concurrent"]) == (2, 10, 2)
    assert SLOW_S < status["estimated_wait_time"] < 30
    after = int(refused.headers["retry-after"])
    time.sleep(after)
    with ThreadPoolExecutor(1) as one:  # whoever comes back when told to is taken
        again = one.submit(ask, slow, "모던 13")
        assert [each.result().status_code for each in asking] == [200] * 12
        assert again.result().status_code == 200
    assert time.monotonic() - began > 6 * SLOW_S  # two at a time


def test_never_more_than_two_run(slow, many) -> None:
    asking = [many.submit(ask, slow, f"클래식 {n}") for n in range(20)]
    seen = set()
    while not all(each.done() for each in asking):
        seen.add(state(slow))
    answers = [each.result().status_code for each in asking]
    assert answers.count(200) == 12 and answers.count(429) == 8
    assert max(running for running, _ in seen) == 2 and max(waiting for _, waiting in seen) == 10
    assert state(slow) == (0, 0)


def test_the_limits_can_be_set(tmp_path, many) -> None:
    configuration = {"max_concurrent": 1, "queue_size": 1}
    with styling(tmp_path, toy={"texts_s": SLOW_S}, configuration=configuration) as server:
        server.wait()
        asking = [many.submit(ask, server, str(n)) for n in range(6)]
        assert sorted(each.result().status_code for each in asking) == [200, 200, 429, 429, 429, 429]
        assert httpx.get(server.url + "/readyz").json()["queue_status"]["max_concurrent"] == 1


def test_an_answer_that_takes_too_long_is_504(tmp_path) -> None:
    with styling(tmp_path, toy={"texts_s": 1.5}, configuration={"timeout_s": 0.5}) as server:
        server.wait()
        answer = ask(server, "모던")
        assert answer.status_code == 504 and answer.json()["error"] == "TIMEOUT"
        eventually(lambda: state(server) == (0, 0))


def test_a_batch_takes_a_place_for_every_batch_of_the_model(slow, many) -> None:
    asking = filled(slow, many)
    items = [{"id": str(n), "text": f"미니멀 {n}"} for n in range(20)]
    with slow.open() as client:
        refused = client.post("/infer/batch", json={"items": items})
        assert refused.status_code == 429 and "queue_status" in refused.json()["details"]
        for each in asking:
            each.result()
        batch = many.submit(client.post, "/infer/batch", json={"items": items, "batch_size": 4})
        eventually(lambda: state(slow) == (2, 3))
        assert batch.result().status_code == 200


def test_the_same_asked_at_once_is_computed_once(slow, many) -> None:
    answers = [each.result() for each in [many.submit(ask, slow, "모던 하나") for _ in range(16)]]
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.headers["x-cache"] for answer in answers) == ["miss"] + ["shared"] * 15


def test_a_key_with_much_waiting_does_not_keep_out_another(slow, many) -> None:
    greedy = filled(slow, many)
    began = time.monotonic()
    assert ask(slow, "단 하나", OTHER_KEY).status_code == 200
    waited = time.monotonic() - began
    assert waited < 3.5 * SLOW_S  # of about six
    assert sorted(each.result().status_code for each in greedy) == [200] * 11 + [429]


def test_clients_that_leave_free_their_places(tmp_path) -> None:
    with styling(tmp_path, toy={"texts_s": 2.0}) as server:
        server.wait()
        for abruptly in (False, True):
            leaving = [started(server, f"떠남 {abruptly} {n}") for n in range(12)]
            eventually(lambda: state(server) == (2, 10))
            for client in leaving:
                if abruptly:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            eventually(lambda: state(server) == (0, 0), 1.0)
        assert ask(server, "남은 사람").status_code == 200


def started(server: StyleServer, text: str) -> socket.socket:
    """A request that was sent and whose answer nobody has read."""
    body = json.dumps({"text": text}).encode()
    head = f"POST /infer HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(head.encode() + body)
    return client


def image(server: StyleServer, url: str) -> httpx.Response:
    with server.open() as client:
        return client.post("/infer/image", json={"image_url": url})


def test_images_on_their_way_have_places_too(tmp_path, many) -> None:
    host = Host()
    host.silent.update(f"/{n}.jpg" for n in range(12))
    host.files |= {f"/{n}.jpg": picture() for n in range(13)}
    with styling(tmp_path, allowed_hosts=[host.name], toy={}) as server:
        server.wait()
        asking = [many.submit(image, server, host.url(f"/{n}.jpg")) for n in range(12)]
        eventually(lambda: state(server) == (0, 12))
        refused = image(server, host.url("/12.jpg"))
        assert refused.status_code == 429 and refused.json()["details"]["queue_status"]["queued_requests"] == 12
        assert "/12.jpg" not in host.asked and int(refused.headers["retry-after"]) >= 1
        assert ask(server, "모던").status_code == 200  # hosts that don't answer keep no text from being read
        host.released.set()
        assert {each.result().status_code for each in asking} <= {200, 429}
        eventually(lambda: state(server) == (0, 0))
    host.close()


def test_a_client_that_leaves_ends_its_fetch(tmp_path) -> None:
    host = Host()
    host.silent.add("/silent.jpg")
    with styling(tmp_path, allowed_hosts=[host.name], toy={}) as server:
        server.wait()
        body = json.dumps({"image_url": host.url("/silent.jpg")}).encode()
        head = f"POST /infer/image HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head.encode() + body)
            eventually(lambda: state(server) == (0, 1))
        eventually(lambda: state(server) == (0, 0), 1.0)
    host.close()


def test_the_loop_stays_free_while_images_are_read(toy, many) -> None:
    """Liveness is answered at once beside pictures that take seconds of computation."""
    large = picture(6000, 4000, "PNG")

    def send(n: int) -> int:
        with toy.open() as client:
            return client.post("/infer/image", files={"file": large + bytes([n])}).status_code

    sending = [many.submit(send, n) for n in range(6)]
    waits = []
    with toy.open() as client:
        while not all(each.done() for each in sending):
            began = time.monotonic()
            assert client.get("/healthz").status_code == 200
            waits.append(time.monotonic() - began)
    assert {each.result() for each in sending} == {200}
    assert sorted(waits)[len(waits) // 2] < 1.0, waits


def test_sigterm_loses_nothing_and_readiness_fails(tmp_path, many) -> None:
    with styling(tmp_path, toy={"texts_s": SLOW_S}, delay_s=2.0) as server:
        server.wait()
        asking = [many.submit(ask, server, f"끝 {n}") for n in range(4)]
        eventually(lambda: state(server) == (2, 2))
        server.process.send_signal(signal.SIGTERM)
        found: list[Any] = []

        def unready() -> bool:
            found.append(httpx.get(server.url + "/readyz"))
            return bool(found[-1].status_code == 503)

        eventually(unready, 1.5)
        assert found[-1].json()["model_ready"] is False and found[-1].json()["state"] == "draining"
        assert [each.result().status_code for each in asking] == [200] * 4
        assert server.process.wait(20) == 0
