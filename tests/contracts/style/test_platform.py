"""The style service as people start it: alone, with a key of its own, and beside the others."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.conftest import Server, maru, running

KEY = "a-key-for-the-tests-of-styles"
TEXT = {"text": "모던한 거실에 어울리는 의자"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    with running(tmp_path_factory.mktemp("style"), "serve", "style", STYLE_API_KEYS="") as server:
        server.wait("/readyz")
        yield server


def test_the_first_start_prints_a_key_and_a_request_that_works(alone: Server) -> None:
    alone.wait_until(lambda: "curl" in alone.log(), 20)
    (line,) = (line for line in alone.log().splitlines() if line.startswith("curl "))
    line = line.replace(f"http://localhost:{alone.port}", alone.url)
    run = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30)
    answer = json.loads(run.stdout)
    assert answer["style"] == "modern" and answer["score"] > 0.5, run
    assert httpx.post(f"{alone.url}/infer", json=TEXT).status_code == 401


def test_what_it_is_is_told(alone: Server) -> None:
    state = httpx.get(f"{alone.url}/readyz").json()
    assert state["model_ready"] is True and state["quality"], "the starter says what it is"


def test_its_own_keys_open_it_and_no_other_service(tmp_path: Path) -> None:
    with running(tmp_path, "serve", "style", STYLE_API_KEYS=KEY) as server:
        server.wait("/readyz")
        answer = httpx.post(f"{server.url}/infer", json=TEXT, headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
        assert answer.status_code == 200 and answer.headers["x-model-version"].startswith("style@")
        assert KEY not in server.log() and "모던한" not in server.log()
        assert "maru_" not in server.log(), "no key is made where there is one"
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("STYLE_MAX_CONCURRENT", "0"), ("STYLE_QUEUE_SIZE", "-1"), ("STYLE_API_KEYS", "sesame")],
)
def test_a_wrong_setting_stops_the_start_with_a_line_that_names_it(tmp_path: Path, name: str, value: str) -> None:
    run = maru(tmp_path, "serve", "style", **{name: value})
    assert run.returncode == 2 and len(run.stderr.strip().splitlines()) == 1 and name in run.stderr
    assert "KEYS" not in name or value not in run.stderr
