"""Feedback, against a real server and its database."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contracts.recommend.conftest import RecommendServer, clicks, recommending

SESSION = {"session_id": 12345, "events": clicks(1001, 1002)}


def send(server: RecommendServer, body: Any) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    return httpx.post(server.url + "/events", content=json.dumps(body), headers=headers, timeout=60)


def stored(home: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(home / "maru.db") as connection:
        rows = connection.execute("SELECT session, aid, ts, type, variant FROM feedback_events ORDER BY session, ts")
        return rows.fetchall()


@pytest.fixture
def server(tmp_path: Path, compiled: Path) -> Any:
    """Without a bundle: feedback needs none."""
    with recommending(tmp_path, compiled, most=1000) as server:
        server.wait("/health")
        yield server


def test_what_is_accepted_is_there_after_a_kill_and_sent_again_changes_nothing(server: RecommendServer) -> None:
    assert send(server, SESSION).json() == {"accepted": 2, "duplicates": 0}
    server.process.kill()
    server.process.wait()
    expected = [(12345, event["aid"], event["ts"], "clicks", "live") for event in SESSION["events"]]  # type: ignore[index]
    assert stored(server.home) == expected


def test_sent_again(server: RecommendServer) -> None:
    send(server, SESSION)
    assert send(server, SESSION).json() == {"accepted": 0, "duplicates": 2}
    more = {**SESSION, "events": [*clicks(1001, 1002), *clicks(1003, ts=5), *clicks(1003, ts=5)]}
    assert send(server, more).json() == {"accepted": 1, "duplicates": 3}
    other = {**SESSION, "session_id": 12346}
    assert send(server, other).json() == {"accepted": 2, "duplicates": 0}


def test_an_id_names_an_event(server: RecommendServer) -> None:
    (event,) = clicks(1001)
    body = {"session_id": 1, "events": [{**event, "id": "a"}, {**event, "id": "b"}, {**event, "id": "a", "aid": 7}]}
    assert send(server, body).json() == {"accepted": 2, "duplicates": 1}
    assert send(server, body).json() == {"accepted": 0, "duplicates": 3}


def test_events_of_several_sessions(server: RecommendServer) -> None:
    first, second = clicks(1001, 1002)
    body = {"session_id": 1, "events": [{**first, "session_id": 2}, {**second, "ts": 1_659_304_800_999}]}
    assert send(server, body).json() == {"accepted": 2, "duplicates": 0}
    assert [row[:3] for row in stored(server.home)] == [(1, 1002, 1_659_304_800), (2, 1001, 1_659_304_800)]
    assert send(server, {"events": [{**first, "session_id": 2}]}).json() == {"accepted": 0, "duplicates": 1}


@pytest.mark.parametrize(
    "body",
    [
        {}, [], None, {"events": []}, {"session_id": 1}, {"session_id": 1, "events": []}, {"events": clicks(1001)},
        {"session_id": 1, "events": clicks(*range(1001))}, {"session_id": 1, "events": [{"aid": 1, "ts": 1}]},
        {"session_id": "1", "events": clicks(1)}, {"session_id": 1, "events": [{**clicks(1)[0], "type": "views"}]},
        {"session_id": 1, "events": [*clicks(1), {**clicks(1)[0], "ts": -1}]},
        {"session_id": 1, "events": [{**clicks(1)[0], "id": ""}]},
        {"session_id": 1, "events": [{**clicks(1)[0], "id": 1}]},
        {"session_id": 1, "events": [{**clicks(1)[0], "id": "x" * 129}]},
        {"session_id": 1, "events": [{**clicks(1)[0], "session_id": None}, {**clicks(1)[0], "price": 3}]},
    ],
)  # fmt: skip
def test_a_bad_event_is_400_and_nothing_is_stored(recommend: RecommendServer, body: Any) -> None:
    before = len(stored(recommend.home))
    answer = send(recommend, body)
    assert answer.status_code == 400 and set(answer.json()) == {"error"} and answer.json()["error"]
    assert len(stored(recommend.home)) == before


def test_it_holds_the_latest(server: RecommendServer) -> None:
    for first in range(0, 3000, 500):
        assert send(server, {"session_id": first, "events": clicks(*range(500))}).json()["accepted"] == 500
    held = stored(server.home)
    assert len(held) == 1000 and {row[0] for row in held} == {2000, 2500}


def test_many_senders_of_the_same_events(server: RecommendServer) -> None:
    bodies = [{"session_id": n % 20, "events": clicks(1001, 1002, 1003)} for n in range(120)]
    with ThreadPoolExecutor(12) as pool:
        answers = [answer.json() for answer in pool.map(lambda body: send(server, body), bodies)]
    assert sum(answer["accepted"] for answer in answers) == 60 == len(stored(server.home))
    assert sum(answer["duplicates"] for answer in answers) == 300


def test_a_database_that_can_not_be_written_is_told(server: RecommendServer) -> None:
    """Locked for longer than a writer waits."""
    with sqlite3.connect(server.home / "maru.db", isolation_level=None) as connection:
        connection.execute("BEGIN IMMEDIATE")
        answer = send(server, SESSION)
        assert answer.status_code == 503 and answer.json() == {"error": "events can't be stored now"}
        assert int(answer.headers["retry-after"]) >= 1
        connection.execute("ROLLBACK")
    assert send(server, SESSION).json() == {"accepted": 2, "duplicates": 0}


def test_what_came_of_each_variant(tmp_path: Path, compiled: Path, shop: Path) -> None:
    with recommending(tmp_path, compiled, shop, configuration={"candidate_share": 0.5}) as server:
        server.wait()
        server.bundles.promote("v2", "candidate")
        server.reload()
        variants = {id: server.recommend(session_id=id, events=clicks(1001))["variant"] for id in range(20)}
        assert set(variants.values()) == {"live", "candidate"}
        for _ in range(2):
            for id in variants:
                send(server, {"session_id": id, "events": [{"aid": 1005, "ts": 1, "type": "orders"}]})
        assert {row[0]: row[4] for row in stored(server.home)} == variants
        metrics = httpx.get(server.url + "/metrics").text
        for name in ("live", "candidate"):
            count = sum(variant == name for variant in variants.values())
            assert f'recommend_feedback_events_total{{type="orders",variant="{name}"}} {count}.0' in metrics
