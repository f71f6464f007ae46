"""Bundles that change under load, and two beside each other."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contracts.recommend.conftest import RecommendServer, clicks, recommending

from maru.services.recommend.variants import Split

ASKED = {"events": clicks(1001, 1002, 1003), "top_k": 50}


@pytest.fixture
def server(tmp_path: Path, compiled: Path, shop: Path) -> Iterator[RecommendServer]:
    with recommending(tmp_path, compiled, shop, configuration={"poll_s": 0.1}) as server:
        server.wait()
        yield server


def of(server: RecommendServer) -> dict[str, Any]:
    """What each version recommends, so that an answer shows who made it."""
    made = {}
    for version in ("v2", "v3", "v1"):
        server.bundles.promote(version)
        assert server.reload().json()["model_version"] == version
        made[version] = server.recommend(**ASKED)["recommendations"]
    assert len({tuple(items) for items in made.values()}) == 3
    return made


def test_what_is_promoted_is_served_and_rolled_back(server: RecommendServer) -> None:
    made = of(server)
    server.bundles.promote("v2")
    server.wait_until(lambda: server.version() == "v2", 20)
    assert server.recommend(**ASKED)["recommendations"] == made["v2"]
    server.bundles.rollback()
    server.wait_until(lambda: server.version() == "v1", 20)
    answer = httpx.post(server.url + "/recommend", json={"session_id": 1, **ASKED})
    assert answer.json()["recommendations"] == made["v1"] and answer.headers["x-model-version"] == "recommend@v1"


def test_a_reload_answers_when_the_old_one_has_given_its_last_answer(server: RecommendServer) -> None:
    server.bundles.promote("v3")
    assert server.reload().json() == {"status": "reloaded", "model_version": "v3", "candidate_version": None}
    assert server.recommend(**ASKED)["model_version"] == "v3"
    assert httpx.get(server.url + "/stats").json()["model_version"] == "v3"
    metrics = httpx.get(server.url + "/metrics").text
    assert re.search(r'^maru_model_loaded{model="recommend",version="v1"} 0', metrics, re.M)


def test_the_embedding_of_a_session_says_whose_it_is(server: RecommendServer) -> None:
    server.recommend(session_id=777, **ASKED)
    server.bundles.promote("v2")
    server.reload()
    told = httpx.get(server.url + "/sessions/777/embedding").json()
    assert told["model_version"] == "v1"
    server.recommend(session_id=777, **ASKED)
    assert httpx.get(server.url + "/sessions/777/embedding").json()["model_version"] == "v2"
    assert httpx.get(server.url + "/items/1001/embedding").json()["model_version"] == "v2"


@pytest.mark.parametrize("what", ["cut", "gone", "strange", "manifest", "another format"])
def test_a_damaged_bundle_leaves_the_old_one_serving(server: RecommendServer, what: str) -> None:
    place = server.home / "recommend" / "v2"
    array = sorted(place.glob("*.npy"))[0]
    server.bundles.promote("v2")  # which is sound then
    server.reload()
    server.bundles.promote("v1")
    server.reload()
    match what:
        case "cut":
            array.write_bytes(array.read_bytes()[:-8])
        case "gone":
            array.unlink()
        case "strange":
            (place / "evil.pkl").write_bytes(b"\x80\x04.")
        case "manifest":
            (place / "manifest.json").write_text("{")
        case "another format":
            (place / "manifest.json").write_text('{"format": 99, "files": {}}')
    (server.home / "recommend" / "aliases.json").write_text('{"live": ["v2", "v1"]}')
    answer = server.reload()
    said = answer.json()["error"]
    assert answer.status_code == 500 and "v2" in said and "/" not in said and len(said) < 200
    health = httpx.get(server.url + "/health").json()
    assert (health["model_version"], health["load_error"], health["models_loaded"]) == ("v1", said, True)
    assert server.recommend(**ASKED)["model_version"] == "v1"
    before = server.log().count("can't be served")
    threading.Event().wait(0.5)  # several looks at it
    assert server.log().count("can't be served") <= max(1, before)
    (server.home / "recommend" / "aliases.json").write_text('{"live": ["v3"]}')
    server.wait_until(lambda: server.version() == "v3", 20)
    assert httpx.get(server.url + "/health").json()["load_error"] is None


def test_aliases_that_can_not_be_read_change_nothing(server: RecommendServer) -> None:
    (server.home / "recommend" / "aliases.json").write_text("[")
    assert server.reload().status_code == 500
    assert server.recommend(**ASKED)["model_version"] == "v1"


def test_two_bundles_share_the_sessions(server: RecommendServer) -> None:
    made = of(server)
    server.bundles.promote("v2", "candidate")
    assert server.reload().json() == {"status": "reloaded", "model_version": "v1", "candidate_version": "v2"}
    split = Split(0.5)
    sessions = [{"session_id": id, "events": ASKED["events"]} for id in range(200)]
    with server.open() as client:
        body = client.post("/batch_recommend", json={"sessions": sessions, "top_k": 50}).json()
    seen: Counter[str] = Counter()
    for result in body["results"]:
        version = {"live": "v1", "candidate": "v2"}[result["variant"]]
        assert result["variant"] == split.of(result["session_id"], "v2")
        assert (result["model_version"], result["recommendations"]) == (version, made[version])
        alone = (
            server.recommend(**{**ASKED, "session_id": result["session_id"]}) if result["session_id"] < 10 else result
        )
        assert (alone["variant"], alone["recommendations"]) == (result["variant"], result["recommendations"])
        seen[result["variant"]] += 1
    assert min(seen.values()) > 60
    health = httpx.get(server.url + "/health").json()
    assert (health["model_version"], health["candidate_version"]) == ("v1", "v2")


def test_a_variant_can_be_named(server: RecommendServer) -> None:
    answer = httpx.post(server.url + "/recommend", json={"session_id": 1, **ASKED, "variant": "candidate"})
    assert answer.status_code == 404 and answer.json() == {"error": "there is no candidate now"}
    assert server.recommend(**ASKED, variant="live")["variant"] == "live"
    server.bundles.promote("v3", "candidate")
    server.reload()
    for id in range(20):
        told = server.recommend(**ASKED, session_id=id, variant="candidate")
        assert (told["variant"], told["model_version"]) == ("candidate", "v3")
        told = server.recommend(**ASKED, session_id=id, variant="live")
        assert (told["variant"], told["model_version"]) == ("live", "v1")
    metrics = httpx.get(server.url + "/metrics").text
    assert re.search(r'^recommend_variant_requests_total{outcome="ok",variant="candidate"} 20', metrics, re.M)


def test_an_experiment_ends_in_both_ways(server: RecommendServer) -> None:
    server.bundles.promote("v2", "candidate")
    server.wait_until(lambda: httpx.get(server.url + "/health").json()["candidate_version"] == "v2", 20)
    server.bundles.withdraw()
    server.wait_until(lambda: httpx.get(server.url + "/health").json()["candidate_version"] is None, 20)
    assert {server.recommend(**ASKED, session_id=id)["variant"] for id in range(20)} == {"live"}
    server.bundles.promote("v2", "candidate")
    server.reload()
    server.bundles.promote("v2")
    assert server.reload().json() == {"status": "reloaded", "model_version": "v2", "candidate_version": None}
    told = [server.recommend(**ASKED, session_id=id) for id in range(20)]
    assert {(each["variant"], each["model_version"]) for each in told} == {("live", "v2")}


def test_a_candidate_that_can_not_be_served_leaves_all_sessions_to_the_live_one(server: RecommendServer) -> None:
    (server.home / "recommend" / "aliases.json").write_text('{"live": ["v3"], "candidate": ["v9"]}')
    answer = server.reload()
    assert answer.status_code == 500 and "v9" in answer.json()["error"]
    told = [server.recommend(**ASKED, session_id=id) for id in range(20)]
    assert {(each["variant"], each["model_version"]) for each in told} == {("live", "v3")}


def test_swaps_under_load(server: RecommendServer) -> None:
    """No request fails, each answer is by the version that it names, and none by one that a reload has replaced."""
    made = of(server)
    stop = threading.Event()
    seen: Counter[str] = Counter()
    faults: list[str] = []

    def ask(worker: int) -> None:
        with server.open() as client:
            for n in range(10**9):
                if stop.is_set():
                    return
                body = {**ASKED, "session_id": 10_000 * worker + n, "exclude": [worker * 10**6 + n]}  # not in the cache
                answer = client.post("/recommend", json=body)
                if answer.status_code != 200:
                    faults.append(answer.text)
                    continue
                told = answer.json()
                if told["recommendations"] != made[told["model_version"]]:
                    faults.append(f"{told['model_version']} did not make this")
                seen[told["model_version"]] += 1

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, worker) for worker in range(3)]
        try:
            for n in range(30):
                version = f"v{n % 3 + 1}"
                server.bundles.promote(version)
                assert server.reload().json()["model_version"] == version
                after = server.recommend(**ASKED, session_id=10**9 + n, exclude=[-n])
                assert (after["model_version"], after["recommendations"]) == (version, made[version])
        finally:
            stop.set()
        for each in asking:
            each.result()
    assert not faults, faults[:5]
    assert min(seen[version] for version in made) > 5
