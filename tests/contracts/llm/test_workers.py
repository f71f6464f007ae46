"""What happens to answers when the processes that make them do not behave, and when readers leave."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest
from tests.contracts.llm.conftest import WORDS, generating
from tests.fixtures_llm import SLOW, reciting_gguf

STREAM = "/api/v1/generate/stream"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Its own, as its workers are harmed."""
    home = tmp_path_factory.mktemp("harmed")
    reciting_gguf(home / "models" / "slow.gguf", WORDS, ends=False, size=SLOW)
    with generating(home, context=4096) as server:
        server.wait()
        yield server


def workers(server) -> list[int]:
    """The processes that a server has started, which run models."""
    children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    pids = [int(pid) for path in children for pid in path.read_text().split()]
    return [pid for pid in pids if b"llama_cpp_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def said(server, model: str) -> httpx.Response:
    asked = {"model_id": model, "prompt": "?", "max_tokens": 4}
    return httpx.post(server.url + "/api/v1/generate", json=asked, timeout=60)


def test_a_worker_that_is_killed_ends_its_answers_and_is_started_again(server) -> None:
    asked = {"model_id": "slow", "prompt": "a", "max_tokens": 100_000}
    with server.open() as client, client.stream("POST", STREAM, json=asked) as answer:
        lines = answer.iter_lines()
        next(lines)
        (worker,) = [pid for pid in workers(server) if "slow" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(worker, signal.SIGKILL)
        began = time.monotonic()
        rest = list(lines)
        assert time.monotonic() - began < 5
    assert "event: error" in rest and "event: done" not in rest
    assert json.loads(rest[-2].removeprefix("data: "))["error"]["code"] == "MODEL_NOT_READY"
    assert said(server, "slow").status_code == 200
    server.wait()


def test_workers_end_with_their_server(tmp_path) -> None:
    for name in ("one", "two"):
        reciting_gguf(tmp_path / "models" / f"{name}.gguf", WORDS)
    with generating(tmp_path) as server:
        server.wait()
        assert said(server, "one").status_code == said(server, "two").status_code == 200
        pids = workers(server)
        assert len(pids) == 2
        server.process.kill()
        server.process.wait()
        server.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 10)


@pytest.mark.parametrize("where", ["generating", "reading the prompt"])
@pytest.mark.parametrize("path", [STREAM, "/api/v1/generate"])
def test_who_leaves_a_real_model_frees_it(server, where, path) -> None:
    assert said(server, "slow").status_code == 200
    prompt = "a" if where == "generating" else "a b " * 900
    body = json.dumps({"model_id": "slow", "prompt": prompt, "max_tokens": 100_000})
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    server.wait_until(lambda: server.held("slow") == 1, 10)
    client.close()
    server.wait_until(lambda: server.held("slow") == 0, 2)
    server.wait_until(lambda: _busy_s(server) < 0.1, 10)  # nobody is computed for any more


def _busy_s(server) -> float:
    """What the workers use in a third of a second, in seconds."""
    before = _cpu_s(server)
    time.sleep(0.33)
    return _cpu_s(server) - before


def _cpu_s(server) -> float:
    """Seconds of computing that the workers have used."""
    ticks = 0
    for pid in workers(server):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
