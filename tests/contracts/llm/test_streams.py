"""Text as it is made: what is on the wire, and what ends it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from openai._streaming import SSEDecoder
from tests.contracts.llm.conftest import generating, shelve
from tests.contracts.llm.scripted import CANARY, FORGERY

STREAM, ALSO = "/api/v1/generate/stream", "/api/v1/inference/stream"
COUNTS = {
    "tokens_generated", "time_elapsed", "tokens_per_second", "model_id", "prompt_tokens", "cached_tokens",
    "finish_reason", "time_to_first_token", "queue_time",
}  # fmt: skip


def streamed(server, prompt: str, path: str = STREAM, accept: str = "*/*", **body) -> httpx.Response:
    asked = {"model_id": "echo", "prompt": prompt, **body}
    return httpx.post(server.url + path, json=asked, headers={"Accept": accept}, timeout=30)


def events(text: str) -> list[tuple[str | None, str]]:
    """Name and data of each event, by a parser that is not ours."""
    decoder = SSEDecoder()
    found: Iterator = decoder.iter_bytes(iter([text.encode()]))
    return [(event.event, event.data) for event in found]


@pytest.mark.parametrize("path", [STREAM, ALSO])
def test_the_documents_example_on_the_wire(scripted, path) -> None:
    answer = streamed(scripted, "Quantum computing is a", path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store" and answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-model-version"].startswith("echo@")
    tokens, last = answer.text.split("event: done\n")
    assert tokens == "data: Quantum\n\ndata:  computing\n\ndata:  is\n\ndata:  a\n\n"
    counts = json.loads(last.removeprefix("data: "))
    assert counts.keys() == COUNTS
    assert (counts["tokens_generated"], counts["model_id"], counts["finish_reason"]) == (4, "echo", "stop")
    assert 0 < counts["time_to_first_token"] <= counts["time_elapsed"]


def test_json_events(scripted) -> None:
    found = events(streamed(scripted, "a b c", accept="application/json").text)
    assert [json.loads(data) for _, data in found[:-1]] == [{"text": "a"}, {"text": " b"}, {"text": " c"}]
    assert [name for name, _ in found] == [None, None, None, "done"]
    assert json.loads(found[-1][1]).keys() == COUNTS


def test_the_models_text_forges_nothing(scripted) -> None:
    plain = streamed(scripted, "forge")
    found = events(plain.text)
    assert [name for name, _ in found] == [None] * len(FORGERY) + ["done"]
    assert [data for _, data in found[:-1]] == FORGERY
    exact = events(streamed(scripted, "forge", accept="application/json").text)
    assert [json.loads(data)["text"] for _, data in exact[:-1]] == FORGERY


def test_text_that_no_event_can_hold(scripted) -> None:
    assert [data for _, data in events(streamed(scripted, "surrogates").text)[:-1]] == ["a?", "b"]
    found = events(streamed(scripted, "surrogates", accept="application/json").text)
    assert json.loads(found[0][1]) == {"text": "a?"}


def test_what_ends_a_stream_that_has_begun_is_told(scripted) -> None:
    answer = streamed(scripted, "mixed panic")
    (begun, (name, data)) = events(answer.text)
    error = json.loads(data)
    assert begun == (None, "begun") and name == "error"
    assert error["success"] is False and error["error"]["code"] == "MODEL_FAILED"
    assert error["error"]["details"]["request_id"] == answer.headers["x-request-id"]
    assert CANARY not in answer.text
    codes = {"memory": "GPU_OUT_OF_MEMORY", "died": "MODEL_NOT_READY"}
    for how, code in codes.items():
        assert json.loads(events(streamed(scripted, f"mixed {how}").text)[-1][1])["error"]["code"] == code
    assert json.loads(events(streamed(scripted, "unfinished").text)[-1][1])["error"]["code"] == "MODEL_FAILED"


def test_how_it_ended_is_in_the_log(scripted) -> None:
    id = "how-it-ended"
    httpx.post(
        scripted.url + STREAM,
        json={"model_id": "echo", "prompt": "mixed memory"},
        headers={"X-Request-ID": id},
    )

    def told() -> bool:
        lines = [json.loads(line) for line in scripted.log().splitlines() if id in line]
        return any(line.get("error") == "OUT_OF_MEMORY" for line in lines)

    scripted.wait_until(told, 5)


@pytest.mark.parametrize("prompt", ["forever", "silent"])
@pytest.mark.parametrize("reset", [False, True])
def test_who_leaves_frees_the_slot(scripted, prompt, reset) -> None:
    for path in (STREAM, "/api/v1/generate", "/v1/completions"):
        body = json.dumps({"model_id": "echo", "prompt": prompt})
        if path.startswith("/v1"):
            body = json.dumps({"model": "echo", "prompt": prompt, "n": 2, "stream": True, "max_tokens": 10**5})
        client = socket.create_connection(("127.0.0.1", scripted.port))
        client.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        scripted.wait_until(lambda: scripted.held() > 0, 5)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.close()
        scripted.wait_until(lambda: scripted.held() == 0, 2)


def test_who_waits_and_leaves_gives_back_the_place(scripted) -> None:
    async def scene() -> None:
        asked = {"model_id": "echo", "prompt": "forever"}
        async with httpx.AsyncClient(base_url=scripted.url, timeout=30) as client:
            tasks = [asyncio.create_task(client.post("/api/v1/generate", json=asked)) for _ in range(6)]
            while (await asyncio.to_thread(scripted.status))["waiting"] < 4:
                await asyncio.sleep(0.02)
            for task in tasks[::-1]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(asyncio.wait_for(scene(), 30))
    scripted.wait_until(lambda: scripted.held() == 0, 2)


def test_who_does_not_read_frees_the_slot(scripted) -> None:
    body = json.dumps({"model_id": "echo", "prompt": "flood"})
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", scripted.port))
    try:
        client.sendall(
            f"POST {STREAM} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        scripted.wait_until(lambda: scripted.held() == 1, 5)
        began = time.monotonic()
        assert streamed(scripted, "a b").status_code == 200  # others are served
        scripted.wait_until(lambda: scripted.held() == 0, 15)
        assert time.monotonic() - began < 12
    finally:
        client.close()


def test_a_server_that_stops_says_so(tmp_path) -> None:
    shelve(tmp_path, "echo")
    with generating(tmp_path, scripted=True) as server, server.open() as client:
        server.wait()
        with client.stream("POST", STREAM, json={"model_id": "echo", "prompt": "forever"}) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert "event: server_shutdown" in rest and "event: done" not in rest
        assert server.process.wait(20) == 0
