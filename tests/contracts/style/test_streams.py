"""Server-sent events: a text read word by word, and the state of the service."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contracts.style.conftest import KEY, StyleServer, eventually, styling

TEXT = "실시간으로 분석할 텍스트"


def events(server: StyleServer, **asked: Any) -> list[dict[str, Any]]:
    with server.open() as client:
        answer = client.post("/stream/infer", json=asked)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-model-version"].startswith("style@")
    *frames, rest = answer.text.split("\n\n")
    assert not rest and all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def without_time(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != "processing_time"}


def test_every_step_is_an_inference_on_the_words_read_so_far(toy) -> None:
    text = "모던 하고 클래식 모던 미니멀"
    found = events(toy, text=text, stream_interval=0)
    assert [each["step"] for each in found] == [1, 2, 3, 4, 5]
    assert [each["progress"] for each in found] == [0.2, 0.4, 0.6, 0.8, 1.0]
    with toy.open() as client:
        for each, end in zip(found[:-1], (2, 5, 9, 12), strict=True):
            one = client.post("/infer", json={"text": text[:end]})
            assert one.headers["x-cache"] == "hit"  # it was computed for the stream
            assert each["partial_result"].items() <= one.json().items()
        whole = client.post("/infer", json={"text": text}).json()
    assert set(found[-1]) == {"step", "progress", "final_result"}
    assert without_time(found[-1]["final_result"]) == without_time(whole)


@pytest.mark.parametrize(
    ("text", "steps"),
    [(TEXT, 3), ("의자", 1), ("  긴   의자 ", 2), ("말 " * 500, 10), ("한\n줄\t씩", 3), ("가" * 2000, 1)],
)
def test_steps(toy, text, steps) -> None:
    found = events(toy, text=text, stream_interval=0)
    progress = [each["progress"] for each in found]
    assert len(found) == steps and progress == sorted(set(progress)) and progress[-1] == 1.0
    assert ["final_result" in each for each in found] == [False] * (steps - 1) + [True]


def test_events_keep_their_distance(toy) -> None:
    began = time.monotonic()
    events(toy, text=TEXT, stream_interval=0.3)
    assert time.monotonic() - began >= 0.6


@pytest.mark.parametrize("interval", [-0.1, 5.1, "1", True, None])
def test_a_bad_interval(toy, interval) -> None:
    with toy.open() as client:
        answer = client.post("/stream/infer", json={"text": TEXT, "stream_interval": interval})
    assert answer.status_code == 400 and "stream_interval" in answer.json()["message"]


def test_a_stream_that_can_not_begin_is_a_status_code(toy) -> None:
    with toy.open() as client:
        assert client.post("/stream/infer", json={"text": "고장 난 의자"}).status_code == 500


def test_an_error_on_the_way_is_an_event(toy) -> None:
    with toy.open() as client:
        text = client.post("/stream/infer", json={"text": "의자 고장", "stream_interval": 0}).text
    first, last, _ = text.split("\n\n")
    assert first.startswith('data: {"step":1')
    name, data = last.split("\n")
    told = json.loads(data.removeprefix("data: "))
    assert name == "event: error" and told["error"] == "INTERNAL_SERVER_ERROR" and told["details"]["request_id"]


def test_whoever_reads_slowly_holds_no_slot(tmp_path) -> None:
    with styling(tmp_path, toy={}, configuration={"max_concurrent": 1, "queue_size": 1}) as server:
        server.wait()
        done = threading.Event()

        def watch() -> None:
            events(server, text=TEXT, stream_interval=0.5)
            done.set()

        watching = [threading.Thread(target=watch) for _ in range(4)]
        for each in watching:
            each.start()
            time.sleep(0.05)
        with server.open() as client:
            statuses = [client.post("/infer", json={"text": f"모던 {n}"}).status_code for n in range(10)]
        assert statuses == [200] * 10 and not done.is_set()
        for each in watching:
            each.join()


def test_a_stream_goes_on_when_the_line_is_full_for_a_while(tmp_path) -> None:
    configuration = {"max_concurrent": 1, "queue_size": 1}
    with styling(tmp_path, toy={"texts_s": 1.0}, configuration=configuration) as server:
        server.wait()

        def ask(n: int) -> int:
            with server.open() as client:
                return client.post("/infer", json={"text": f"모던 {n}"}).status_code

        data: list[str] = []
        with server.open() as client, ThreadPoolExecutor(4) as pool:
            with client.stream("POST", "/stream/infer", json={"text": TEXT, "stream_interval": 0.5}) as answer:
                for line in answer.iter_lines():
                    if line and not data:
                        asking = [pool.submit(ask, n) for n in range(4)]
                    data += [line] * bool(line)
            assert sorted(each.result() for each in asking) == [200, 200, 429, 429]
    assert len(data) == 3 and "final_result" in data[-1]


def states(server: StyleServer, count: int, **params: Any) -> Iterator[tuple[float, dict[str, Any]]]:
    with server.open() as client, client.stream("GET", "/stream", params=params) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        for line in answer.iter_lines():
            if line.startswith("data: "):
                yield time.monotonic(), json.loads(line.removeprefix("data: "))
                count -= 1
                if not count:
                    return


def test_the_state_comes_at_once_and_then_every_interval(toy) -> None:
    began = time.monotonic()
    found = list(states(toy, 4, interval=0.5))
    assert found[0][0] - began < 0.5 and found[3][0] - found[0][0] >= 1.2
    told = found[0][1]
    ready = httpx.get(toy.url + "/readyz").json()
    assert {name: told[name] for name in ready if name != "queue_status"}.items() <= ready.items()
    assert set(told["queue_status"]) == set(ready["queue_status"])
    assert isinstance(told["gpu"], list) and told["host"]["memory_total"] > 2**20 and told["host"]["rss"] > 2**20
    assert found[0][1]["host"]["time"] < found[3][1]["host"]["time"]


def test_the_state_is_live(tmp_path) -> None:
    with styling(tmp_path, toy={"texts_s": 1.0}) as server:
        server.wait()

        def ask() -> None:
            with server.open() as client:
                client.post("/infer", json={"text": "모던"})

        asking = threading.Thread(target=ask)
        busy = []
        for _, told in states(server, 30, interval=0.1):
            if not busy:
                asking.start()
            busy.append(told["concurrent_requests"])
        asking.join()
    assert busy[0] == 0 and max(busy) == 1 and busy[-1] == 0


@pytest.mark.parametrize("interval", ["0.05", "61", "nan", "inf", "a", "", "-1"])
def test_a_bad_interval_of_states(toy, interval) -> None:
    with toy.open() as client:
        answer = client.get("/stream", params={"interval": interval})
    assert answer.status_code == 400 and "interval" in answer.json()["message"]


def test_streams_end_with_a_last_event_when_the_server_stops(tmp_path) -> None:
    with styling(tmp_path, toy={}) as server:
        server.wait()
        ends: list[str] = []

        def watch(method: str, path: str, body: Any) -> None:
            with server.open() as client, client.stream(method, path, json=body) as answer:
                ends.append("".join(answer.iter_text()))

        long = {"text": "말 " * 10, "stream_interval": 5}
        watching = [
            threading.Thread(target=watch, args=("GET", "/stream?interval=0.2", None)),
            threading.Thread(target=watch, args=("POST", "/stream/infer", long)),
        ]
        for each in watching:
            each.start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        for each in watching:
            each.join()
        assert server.process.wait(20) == 0
    assert all("event: server_shutdown" in end.split("\n\n")[-2] for end in ends), ends


def test_watchers_that_leave_are_noticed(toy) -> None:
    descriptors = Path(f"/proc/{toy.process.pid}/fd")

    def open_now() -> int:
        return len(list(descriptors.iterdir()))

    before = open_now()
    watching = []
    for _ in range(20):
        client = socket.create_connection(("127.0.0.1", toy.port))
        head = f"GET /stream?interval=0.1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        client.sendall(head.encode())
        client.recv(100)
        watching.append(client)
    assert open_now() >= before + 20
    for client in watching:
        client.close()
    eventually(lambda: open_now() <= before + 2, 5.0)
