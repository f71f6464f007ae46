"""The recommendation service as people start it: on an empty home, trained, promoted and rolled back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.conftest import Server, keep_compiled, maru, running
from tests.contracts.recommend.conftest import clicks

KEY = "a-key-for-the-tests-of-recommendations"
SMALL = ("--simulate", "6000", "--teaching", "300", "--measuring", "100")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("recommend")


@pytest.fixture(scope="module")
def alone(home):
    with running(home, "serve", "recommend", RECOMMEND_POLL_S="0.1") as server:
        server.wait("/readyz", timeout_s=300)
        yield server


def version(server: Server) -> str:
    answer = httpx.post(f"{server.url}/recommend", json={"session_id": 1, "events": clicks(1001)}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-model-version"].removeprefix("recommend@")


def models(home: Path, *arguments: str) -> str:
    run = maru(home, "models", *arguments)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_the_printed_request_works_as_it_is(alone: Server) -> None:
    alone.wait_until(lambda: "curl" in alone.log(), 20)
    (line,) = (line for line in alone.log().splitlines() if line.startswith("curl "))
    line = line.replace(f"http://localhost:{alone.port}", alone.url)
    run = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30)
    answer = json.loads(run.stdout)
    assert len(answer["recommendations"]) == 5 and not {1001, 1002} & set(answer["recommendations"]), run
    assert answer["fallback"] is False, "the items of the request are the starter's"


def test_a_trained_bundle_is_listed_promoted_tried_and_rolled_back(alone: Server, home: Path) -> None:
    trained = maru(home, "train", "recommend", *SMALL, "--seed", "7")
    assert trained.returncode == 0, trained.stderr
    assert "Served beside V-SKNN" in trained.stderr and "maru models promote recommend v2" in trained.stderr
    assert version(alone) == "v1", "what serves goes on until the next is promoted"

    listed = json.loads(models(home, "list", "recommend", "--json"))
    assert [(one["version"], one["aliases"]) for one in listed] == [("v2", []), ("v1", ["live"])]
    assert 0 <= listed[0]["metrics"]["weighted"] <= 1
    assert "v2" in models(home, "list", "recommend")

    assert models(home, "promote", "recommend", "v2", "--to", "candidate") == "recommend@candidate → v2"
    health = f"{alone.url}/health"
    alone.wait_until(lambda: httpx.get(health).json()["candidate_version"] == "v2", 30)
    assert models(home, "promote", "recommend") == "recommend@live → v2"
    alone.wait_until(lambda: version(alone) == "v2", 30)
    assert models(home, "rollback", "recommend") == "recommend@live → v1"
    alone.wait_until(lambda: version(alone) == "v1", 30)

    models(home, "promote", "recommend", "v2", "--to", "candidate")
    alone.wait_until(lambda: httpx.get(health).json()["candidate_version"] == "v2", 30)
    models(home, "withdraw", "recommend")
    alone.wait_until(lambda: httpx.get(health).json()["candidate_version"] is None, 30)


def test_what_came_in_as_events_is_trained_on(alone: Server, home: Path) -> None:
    told = maru(home, "train", "recommend", "--feedback", *SMALL[:2])
    assert told.returncode == 2 and "no feedback yet" in told.stderr
    start = 1_700_000_000
    sent = [
        {
            "session_id": session,
            "aid": 5000 + (session + step) % 40,
            "ts": start + session * 60 + step,
            "type": "clicks",
        }
        for session in range(1200)
        for step in range(4)
    ]
    for first in range(0, len(sent), 800):
        answer = httpx.post(f"{alone.url}/events", json={"events": sent[first : first + 800]}, timeout=60)
        assert answer.status_code == 200, answer.text
    trained = maru(home, "train", "recommend", "--feedback", "--output", str(home / "other"))
    assert trained.returncode == 0, trained.stderr
    assert "4,800" in trained.stderr or (home / "other" / "v1" / "manifest.json").exists()
    manifest = json.loads((home / "other" / "v1" / "manifest.json").read_text())
    assert manifest["metrics"] and version(alone) == "v1"


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "promote", "recommend"),
        ("models", "promote", "recommend", "v99"),
        ("models", "promote", "recommend", "v1", "--to", "nowhere"),
        ("models", "rollback", "recommend", "--alias", "candidate"),
        ("models", "list", "nothing"),
        ("train", "recommend"),
        ("train", "recommend", "/nowhere/events.csv"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    keep_compiled(tmp_path)
    run = maru(tmp_path, *arguments)
    assert run.returncode == 2 and len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert run.stderr.strip().startswith("maru: ") and "Traceback" not in run.stderr


def test_with_a_key_recommendations_need_it(home: Path, alone: Server) -> None:
    with running(home, "serve", "recommend", API_KEYS=KEY) as server:
        server.wait("/readyz")
        for path, body in (
            ("/recommend", {"session_id": 1, "events": []}),
            ("/events", {"events": []}),
            ("/reload", {}),
        ):
            assert httpx.post(server.url + path, json=body).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{server.url}/recommend", json={"session_id": 1, "events": []}, headers=headers)
        assert answer.status_code == 200
        assert httpx.get(f"{server.url}/health").status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [("RECOMMEND_STARTER_EVENTS", "10"), ("RECOMMEND_CANDIDATE_SHARE", "2"), ("RECOMMEND_POLL_S", "0")],
)
def test_a_wrong_setting_stops_the_start_with_a_line_that_names_it(tmp_path: Path, name: str, value: str) -> None:
    run = maru(tmp_path, "serve", "recommend", **{name: value})
    assert run.returncode == 2 and len(run.stderr.strip().splitlines()) == 1 and name in run.stderr
