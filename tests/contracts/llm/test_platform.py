"""The language models' service as people start it: on an empty home, with its starter, its folder and its benchmark."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.conftest import Server, maru, running

KEY = "a-key-for-the-tests-of-language-models"
ASKED = {"prompt": "Emma was", "model_id": "austen-3m", "max_tokens": 8}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ai")


@pytest.fixture(scope="module")
def alone(home: Path):
    with running(home, "serve", "ai") as server:
        server.wait("/readyz")
        yield server


def test_the_printed_request_streams_words(alone: Server) -> None:
    alone.wait_until(lambda: "curl" in alone.log(), 20)
    (line,) = (line for line in alone.log().splitlines() if line.startswith("curl "))
    line = line.replace(f"http://localhost:{alone.port}", alone.url)
    run = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
    words = [part.removeprefix("data: ") for part in run.stdout.splitlines() if part.startswith("data: ")]
    assert len(words) > 5 and "event: done" in run.stdout, run


def test_the_starter_is_listed(alone: Server) -> None:
    (model,) = httpx.get(f"{alone.url}/api/v1/models").json()["data"]
    assert model["model_id"] == "austen-3m" and model["type"] == "gguf"


def test_it_is_measured_by_a_command(alone: Server, home: Path) -> None:
    """Against the server, and without one, in a process of its own."""
    small = ("--requests", "2", "--warmup", "1", "--max-tokens", "8", "--json")
    for where in (("--url", alone.url), ()):
        run = maru(home, "bench", "llm", "austen-3m", *where, *small)
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout), run


def test_with_a_key_generation_needs_it(home: Path) -> None:
    with running(home, "serve", "ai", API_KEYS=KEY) as server:
        server.wait("/readyz")
        assert httpx.post(f"{server.url}/api/v1/generate", json=ASKED).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{server.url}/api/v1/generate", json=ASKED, headers=headers, timeout=60)
        assert answer.status_code == 200 and answer.json()["data"]["tokens_generated"] == 8
        assert "Emma was" not in server.log() and answer.json()["data"]["text"].strip() not in server.log()
        assert server.stop() == 0


def test_a_model_is_removed_by_a_command_and_an_unknown_one_is_told(tmp_path: Path, home: Path) -> None:
    run = maru(tmp_path, "models", "rm", "nothing")
    assert run.returncode == 2 and len(run.stderr.strip().splitlines()) == 1
    folder = tmp_path / "llm"
    folder.mkdir(exist_ok=True)
    (folder / "austen-3m.gguf").write_bytes((home / "llm" / "austen-3m.gguf").read_bytes())
    assert maru(tmp_path, "models", "rm", "austen-3m").returncode == 0
    assert not (folder / "austen-3m.gguf").exists()


def test_the_database_is_migrated_by_a_command(tmp_path: Path) -> None:
    for _ in range(2):
        run = maru(tmp_path, "migrate")
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("LLM_SLOTS", "0"), ("MAX_LOADED_MODELS", "0"), ("TIMESCALE_URL", "nonsense")]
)
def test_a_wrong_setting_stops_the_start_with_a_line_that_names_it(tmp_path: Path, name: str, value: str) -> None:
    run = maru(tmp_path, "serve", "ai", **{name: value})
    assert run.returncode == 2 and len(run.stderr.strip().splitlines()) == 1 and name in run.stderr
