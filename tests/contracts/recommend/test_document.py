"""Document 002, line by line, against a real server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.contracts.recommend.conftest import RecommendServer, clicks, recommending

from maru.services.recommend.declaration import service

SCRIPTS = Path(__file__).parent / "scripts"
SESSION: dict[str, Any] = {
    "session_id": 12345,
    "events": [
        {"aid": 1001, "ts": 1659304800, "type": "clicks"},
        {"aid": 1002, "ts": 1659304900, "type": "carts"},
    ],
}
ASKED: dict[str, Any] = {**SESSION, "top_k": 20, "weights": {"clicks": 0.1, "carts": 0.3, "orders": 0.6}}
BATCH: dict[str, Any] = {
    "sessions": [
        {"session_id": 12345, "events": [{"aid": 1001, "ts": 1659304800, "type": "clicks"}]},
        {"session_id": 12346, "events": [{"aid": 2001, "ts": 1659304800, "type": "clicks"}]},
    ],
    "top_k": 20,
    "weights": {"clicks": 0.1, "carts": 0.3, "orders": 0.6},
}
UNKNOWN = 999_999_999


def test_health(recommend: RecommendServer) -> None:
    body = httpx.get(recommend.url + "/health").json()
    documented = {"status": "healthy", "models_loaded": True, "embeddings_loaded": True, "feature_columns": 256}
    assert documented.items() <= body.items()
    assert body["model_version"] == "v1" and body["candidate_version"] is body["load_error"] is None


def test_recommend(recommend: RecommendServer) -> None:
    with recommend.open() as client:
        answer = client.post("/recommend", json=ASKED)
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"session_id", "recommendations", "scores", "fallback", "variant", "model_version"}
    assert body["session_id"] == 12345 and body["fallback"] is False
    assert (body["variant"], body["model_version"]) == ("live", "v1")
    items = body["recommendations"]
    assert len(items) == len(set(items)) == 20 and not {1001, 1002} & set(items)
    assert all(type(item) is int for item in items)
    assert set(body["scores"]) == {"clicks", "carts", "orders", "combined"}
    scores = {name: np.array(values) for name, values in body["scores"].items()}
    assert all(len(values) == 20 and (values >= 0).all() and (values <= 1).all() for values in scores.values())
    assert (np.diff(scores["combined"]) <= 0).all()
    weighted = 0.1 * scores["clicks"] + 0.3 * scores["carts"] + 0.6 * scores["orders"]
    np.testing.assert_allclose(scores["combined"], weighted, atol=1e-5)


def test_its_python_example_runs_unchanged_but_for_the_port(recommend: RecommendServer, tmp_path: Path) -> None:
    script = (SCRIPTS / "recommend.py").read_text().replace("http://localhost:5000", recommend.url)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    items = json.loads(run.stdout.removeprefix("Recommendations: "))
    assert run.stdout.startswith("Recommendations: [") and len(items) == 20


def test_its_curl_example_runs_unchanged_but_for_the_port(recommend: RecommendServer) -> None:
    script = (SCRIPTS / "recommend.sh").read_text().replace("http://localhost:5000", recommend.url)
    run = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert len(json.loads(run.stdout)["recommendations"]) == 20


def test_the_port_is_the_documents() -> None:
    assert service.port == 5000


def test_the_defaults(recommend: RecommendServer) -> None:
    with recommend.open() as client:
        bare, whole = (client.post("/recommend", json=body).json() for body in (SESSION, ASKED))
    assert bare == whole


def test_batch_recommend(recommend: RecommendServer) -> None:
    with recommend.open() as client:
        answer = client.post("/batch_recommend", json=BATCH)
        alone = [client.post("/recommend", json={**ASKED, **session}).json() for session in BATCH["sessions"]]
    body = answer.json()
    assert answer.status_code == 200
    assert (body["total"], body["success"], body["failed"], body["errors"]) == (2, 2, 0, [])
    assert [result["session_id"] for result in body["results"]] == [12345, 12346]
    for result, one, own in zip(body["results"], alone, (1001, 2001), strict=True):
        assert len(result["recommendations"]) == 20 and own not in result["recommendations"]
        assert {name: one[name] for name in result} == result


def test_a_batch_with_scores(recommend: RecommendServer) -> None:
    with recommend.open() as client:
        (result, _) = client.post("/batch_recommend", json={**BATCH, "scores": True}).json()["results"]
        alone = client.post("/recommend", json={**ASKED, **BATCH["sessions"][0]}).json()
    assert result == alone


BAD_SESSIONS: dict[str, Any] = {
    "no events": {"session_id": 1},
    "no id": {"events": []},
    "an id that is text": {"session_id": "12345", "events": []},
    "an id that is a truth": {"session_id": True, "events": []},
    "events null": {"session_id": 2, "events": None},
    "events an object": {"session_id": 3, "events": {}},
    "no aid": {"session_id": 4, "events": [{"ts": 1, "type": "clicks"}]},
    "no ts": {"session_id": 5, "events": [{"aid": 1, "type": "clicks"}]},
    "no type": {"session_id": 6, "events": [{"aid": 1, "ts": 1}]},
    "another type": {"session_id": 7, "events": [{"aid": 1, "ts": 1, "type": "views"}]},
    "aid text": {"session_id": 8, "events": [{"aid": "1001", "ts": 1, "type": "clicks"}]},
    "aid fraction": {"session_id": 9, "events": [{"aid": 1.5, "ts": 1, "type": "clicks"}]},
    "ts negative": {"session_id": 10, "events": [{"aid": 1, "ts": -1, "type": "clicks"}]},
    "ts text": {"session_id": 11, "events": [{"aid": 1, "ts": "now", "type": "clicks"}]},
    "ts beyond time": {"session_id": 12, "events": [{"aid": 1, "ts": 10**15, "type": "clicks"}]},
    "too many events": {"session_id": 13, "events": [{"aid": 1, "ts": 1, "type": "clicks"}] * 5001},
    "more than an event": {"session_id": 14, "events": [{"aid": 1, "ts": 1, "type": "clicks", "price": 3}]},
    "no object": [1, 2],
    "null": None,
}


@pytest.mark.parametrize("case", BAD_SESSIONS)
def test_a_bad_session_is_400_and_in_a_batch_fails_alone(recommend: RecommendServer, case: str) -> None:
    bad = BAD_SESSIONS[case]
    good = BATCH["sessions"]
    with recommend.open() as client:
        alone = client.post("/recommend", content=json.dumps(bad), headers={"Content-Type": "application/json"})
        answer = client.post("/batch_recommend", json={"sessions": [good[0], bad, good[1]]})
        clean = client.post("/batch_recommend", json={"sessions": good})
    assert alone.status_code == 400 and isinstance(alone.json()["error"], str) and alone.json()["error"]
    body = answer.json()
    assert answer.status_code == 200
    assert (body["total"], body["success"], body["failed"]) == (3, 2, 1)
    assert body["results"] == clean.json()["results"]
    (error,) = body["errors"]
    assert error["index"] == 1 and error["error"]
    id = bad.get("session_id") if isinstance(bad, dict) else None
    assert error["session_id"] == (id if type(id) is int else None)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"session"', b"{}", b"[" * 100_000, b"\xff\xfe",
        b'{"session_id": 1, "events": [NaN]}',
        b'{"session_id": 1, "session_id": 2, "events": []}', b'{"session_id": 1e999, "events": []}',
        b'{"session_id": 99999999999999999999, "events": []}', b'{"session_id": 1, "events": [], "a": "\\ud800"}',
        *(
            json.dumps({**SESSION, **more}).encode()
            for more in (
                {"top_k": 0}, {"top_k": -1}, {"top_k": 1001}, {"top_k": "20"}, {"top_k": 2.5}, {"top_k": None},
                {"top_k": True}, {"weights": {}}, {"weights": {"views": 1}}, {"weights": {"clicks": -0.1}},
                {"weights": {"clicks": 0, "carts": 0, "orders": 0}}, {"weights": {"clicks": "1"}}, {"weights": [1]},
                {"exclude": "1"}, {"exclude": [1.5]}, {"exclude": [1] * 10_001}, {"include": []}, {"include": ["a"]},
                {"categories": []}, {"categories": ["a"]}, {"explain": 1}, {"variant": "v1"}, {"topk": 3},
            )
        ),
    ],
)  # fmt: skip
def test_a_bad_request_is_400_in_the_documents_shape(recommend: RecommendServer, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(recommend.url + "/recommend", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"} and answer.json()["error"]
    many = httpx.post(recommend.url + "/batch_recommend", content=body, headers=headers)
    assert many.status_code == 400 and set(many.json()) == {"error"}


@pytest.mark.parametrize("sessions", [None, {}, "a", 5, [{"session_id": 1, "events": []}] * 1001])
def test_what_is_no_batch(recommend: RecommendServer, sessions: Any) -> None:
    answer = httpx.post(recommend.url + "/batch_recommend", json={"sessions": sessions})
    assert answer.status_code == 400 and answer.json()["error"].startswith("sessions")


def test_batches_of_none_of_the_same_and_of_a_thousand(recommend: RecommendServer) -> None:
    thousand = [{"session_id": n, "events": clicks(1001 + n % 150, 1001 + n % 7)} for n in range(1000)]
    with recommend.open() as client:
        none = client.post("/batch_recommend", json={"sessions": []}).json()
        same = client.post("/batch_recommend", json={"sessions": [SESSION, SESSION]}).json()
        many = client.post("/batch_recommend", json={"sessions": thousand, "top_k": 5}).json()
    assert none == {"results": [], "errors": [], "total": 0, "success": 0, "failed": 0}
    assert same["results"][0] == same["results"][1]
    assert [result["session_id"] for result in many["results"]] == list(range(1000))
    for session, result in zip(thousand, many["results"], strict=True):
        assert len(result["recommendations"]) == 5
        assert not {event["aid"] for event in session["events"]} & set(result["recommendations"])


def test_an_items_embedding(recommend: RecommendServer) -> None:
    with recommend.open() as client:
        answer = client.get("/items/1001/embedding")
        body = answer.json()
        missing = [client.get(f"/items/{aid}/embedding") for aid in (UNKNOWN, -1, 0, 2**63 - 1, -(2**63))]
        wrong = [client.get(f"/items/{aid}/embedding") for aid in ("abc", "1.5", "", 2**63, "1e3")]
    assert answer.status_code == 200 and body["aid"] == 1001
    assert body["dimension"] == len(body["embedding"]) == 128
    assert np.linalg.norm(body["embedding"]) == pytest.approx(1, abs=1e-4)
    assert {answer.status_code for answer in missing} == {404}
    assert missing[0].json() == {"error": "there is no such item"}
    assert {answer.status_code for answer in wrong} <= {400, 404} and all("error" in answer.json() for answer in wrong)


def test_a_sessions_embedding(recommend: RecommendServer) -> None:
    with recommend.open() as client:
        trained = client.get("/sessions/1/embedding")
        unseen = client.get("/sessions/777000/embedding")
        client.post("/recommend", json={"session_id": 777000, "events": clicks(1001)})
        seen = client.get("/sessions/777000/embedding").json()
        item = client.get("/items/1001/embedding").json()
        client.post("/batch_recommend", json={"sessions": [{"session_id": 777001, "events": clicks(1003)}]})
        batched = client.get("/sessions/777001/embedding").json()
        client.post("/recommend", json={"session_id": 777000, "events": clicks(1003)})
        again = client.get("/sessions/777000/embedding").json()
        blank = client.post("/recommend", json={"session_id": 777002, "events": []})
        nothing = client.get("/sessions/777002/embedding")
    assert trained.status_code == 200 and trained.json()["dimension"] == len(trained.json()["embedding"]) == 128
    assert trained.json()["session_id"] == 1
    assert unseen.status_code == 404 and unseen.json() == {"error": "there is no such session"}
    assert seen["session_id"] == 777000 and seen["dimension"] == 128
    np.testing.assert_allclose(seen["embedding"], item["embedding"], atol=1e-4)
    assert batched["embedding"] == again["embedding"] != seen["embedding"]
    assert blank.status_code == nothing.status_code == 200 and set(nothing.json()["embedding"]) == {0.0}


def test_stats(recommend: RecommendServer) -> None:
    body = httpx.get(recommend.url + "/stats").json()
    assert body["models"] == ["clicks", "carts", "orders"]
    assert (body["embedding_dimension"], body["feature_dimension"]) == (128, 256)
    every = recommend.recommend(top_k=1000)["recommendations"]
    assert body["total_items"] == len(every) > 100 and body["total_sessions"] > 500
    assert body["model_version"] == "v1"
    assert body["rankers"] == dict.fromkeys(("clicks", "carts", "orders"), "fusion")


def test_nothing_known_falls_back_and_says_so(recommend: RecommendServer) -> None:
    empty = recommend.recommend(events=[])
    strange = recommend.recommend(events=clicks(UNKNOWN, UNKNOWN + 1))
    known = recommend.recommend(events=clicks(1001))
    assert empty["fallback"] is strange["fallback"] is True and known["fallback"] is False
    assert len(empty["recommendations"]) == len(set(empty["recommendations"])) == 20
    assert strange["recommendations"] == empty["recommendations"]
    assert known["recommendations"] != empty["recommendations"]
    mixed = recommend.recommend(events=clicks(UNKNOWN, 1001))
    assert mixed["fallback"] is False and UNKNOWN not in mixed["recommendations"]


def test_top_k_or_the_whole_rest_of_the_catalogue(recommend: RecommendServer) -> None:
    total = httpx.get(recommend.url + "/stats").json()["total_items"]
    some = recommend.recommend(events=SESSION["events"], top_k=1)
    every = recommend.recommend(events=SESSION["events"], top_k=1000)
    items = every["recommendations"]
    assert len(some["recommendations"]) == 1 and some["recommendations"][0] == items[0]
    assert len(items) == len(set(items)) == total - 2 and not {1001, 1002} & set(items)
    assert all(len(values) == len(items) for values in every["scores"].values())
    combined = every["scores"]["combined"]
    assert combined == sorted(combined, reverse=True) and min(combined) >= 0


def test_the_order_and_the_unit_of_time_do_not_matter(recommend: RecommendServer) -> None:
    events = [*SESSION["events"], {"aid": 1003, "ts": 1659305000, "type": "orders"}]
    told = recommend.recommend(events=events)
    assert recommend.recommend(events=events[::-1]) == told
    assert recommend.recommend(events=events + events[:1]) == told
    assert recommend.recommend(events=[{**event, "ts": event["ts"] * 1000} for event in events]) == told


def test_weights_decide_the_order(recommend: RecommendServer) -> None:
    for name in ("clicks", "carts", "orders"):
        scores = recommend.recommend(events=SESSION["events"], weights={name: 5})["scores"]
        np.testing.assert_allclose(scores["combined"], scores[name], atol=1e-6)


def test_exclude(recommend: RecommendServer) -> None:
    before = recommend.recommend(events=SESSION["events"])["recommendations"]
    after = recommend.recommend(events=SESSION["events"], exclude=[*before[:5], UNKNOWN])["recommendations"]
    assert len(after) == len(set(after)) == 20 and not {*before[:5], 1001, 1002} & set(after)
    assert len(set(before[5:]) & set(after)) > 10, "most of the others are as good as they were"


def test_include(recommend: RecommendServer) -> None:
    wanted = list(range(1001, 1016))
    told = recommend.recommend(events=SESSION["events"], include=[*wanted, UNKNOWN])["recommendations"]
    assert sorted(told) == wanted[2:], "all of them, without those of the session"
    assert recommend.recommend(events=[], include=[UNKNOWN])["recommendations"] == []
    assert recommend.recommend(events=[], include=wanted, exclude=wanted)["recommendations"] == []


def test_categories(recommend: RecommendServer) -> None:
    every = set(recommend.recommend(top_k=1000)["recommendations"])
    parts = [set(recommend.recommend(top_k=1000, categories=[n])["recommendations"]) for n in range(40)]
    assert set().union(*parts) == every and sum(map(len, parts)) == len(every), "each item is in one category"
    first, second = [n for n, part in enumerate(parts) if len(part) > 3][:2]
    filtered = recommend.recommend(events=SESSION["events"], categories=[first, second])["recommendations"]
    assert filtered and set(filtered) <= parts[first] | parts[second]
    whole = (parts[first] | parts[second]) - {1001, 1002}
    assert len(filtered) == min(20, len(whole)), "filled up to top_k from the categories that are allowed"
    assert recommend.recommend(categories=[2**31])["recommendations"] == []


def test_explain(recommend: RecommendServer) -> None:
    told = recommend.recommend(events=SESSION["events"], explain=True)
    plain = recommend.recommend(events=SESSION["events"])
    assert [each["aid"] for each in told["explain"]] == told["recommendations"] == plain["recommendations"]
    assert "explain" not in plain
    for each in told["explain"]:
        assert each["sources"], "every recommendation has come from somewhere"
        for source in each["sources"]:
            assert set(source) == {"source", "rank", "because"} and source["rank"] >= 0
            assert source["because"] in (None, 1001, 1002)
    assert any(source["because"] for each in told["explain"][:5] for source in each["sources"])
    popular = recommend.recommend(events=[], explain=True)["explain"]
    assert {source["because"] for each in popular for source in each["sources"]} == {None}


def test_the_receipt_and_the_cache(recommend: RecommendServer) -> None:
    body = {"session_id": 1, "events": clicks(1010, 1011, 1012)}
    with recommend.open() as client:
        first = client.post("/recommend", json=body, headers={"X-Request-ID": "mine-1"})
        other = client.post("/recommend", json={**body, "session_id": 2})
    assert first.headers["x-request-id"] == "mine-1" and first.headers["x-model-version"] == "recommend@v1"
    assert [answer.headers["x-cache"] for answer in (first, other)] == ["miss", "hit"]
    assert re.fullmatch(r"queue;dur=[\d.]+, batch;dur=[\d.]+, compute;dur=[\d.]+", first.headers["server-timing"])
    assert {**other.json(), "session_id": 1} == first.json()


def test_an_explanation_from_the_cache_is_the_same(recommend: RecommendServer) -> None:
    asked = {"events": clicks(1020, 1021), "explain": True, "top_k": 30}
    assert recommend.recommend(**asked) == recommend.recommend(**asked)


def test_nothing_of_a_request_is_logged_or_told_back(recommend: RecommendServer) -> None:
    secret = 918_273_645
    with recommend.open() as client:
        answers = [
            client.post("/recommend", json={"session_id": secret, "events": clicks(secret)}),
            client.post("/recommend", json={"session_id": secret, "events": [{"aid": "canary-7f3"}]}),
            client.post("/batch_recommend", json={"sessions": [{"session_id": "canary-7f3", "events": []}]}),
            client.post("/events", json={"session_id": secret, "events": clicks(secret)}),
            client.get(f"/items/{secret}/embedding"),
            client.get("/items/canary-7f3/embedding"),
        ]
    assert [answer.status_code for answer in answers] == [200, 400, 200, 200, 404, 400]
    log = recommend.log()
    assert "canary" not in log and str(secret) not in log
    assert all("canary" not in answer.text for answer in answers)


def test_other_content_types_methods_and_large_bodies(recommend: RecommendServer) -> None:
    with recommend.open() as client:
        text = client.post("/recommend", content=json.dumps(SESSION), headers={"Content-Type": "text/plain"})
        large = client.post("/recommend", content=b" " * (17 * 2**20), headers={"Content-Type": "application/json"})
        wrong, missing = client.get("/recommend"), client.get("/no/such/page")
    assert text.status_code == 415 and large.status_code == 413
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST" and missing.status_code == 404
    assert all("error" in answer.json() for answer in (text, large, wrong, missing))


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/healthz", "/readyz", "/metrics", "/health"])
def test_open_pages(recommend: RecommendServer, path: str) -> None:
    assert httpx.get(recommend.url + path).status_code == 200


def test_the_documents_metrics(recommend: RecommendServer) -> None:
    recommend.recommend(events=clicks(1001))
    text = httpx.get(recommend.url + "/metrics").text
    for name in ("recommend_requests_total", "recommend_request_duration_seconds_count"):
        assert re.search(rf'^{name}{{.*endpoint="/recommend".*}} [1-9]', text, re.M), name
    assert re.search(r'^recommend_variant_requests_total{outcome="ok",variant="live"} [1-9]', text, re.M)
    assert re.search(r'^recommend_variant_requests_total{outcome="ok",variant="candidate"} 0', text, re.M)


def test_before_there_is_a_bundle(tmp_path: Path, compiled: Path, shop: Path) -> None:
    with recommending(tmp_path, compiled, configuration={"poll_s": 0.1}) as server:
        server.wait("/health")
        with server.open() as client:
            health = client.get("/health").json()
            asked = [
                client.post("/recommend", json=ASKED), client.post("/batch_recommend", json=BATCH),
                client.get("/stats"),
                client.get("/items/1001/embedding"), client.get("/sessions/1/embedding"), client.post("/reload"),
            ]  # fmt: skip
            empty = client.post("/batch_recommend", json={"sessions": []})
            stored = client.post("/events", json=SESSION)
            live, ready = client.get("/healthz"), client.get("/readyz")
        assert health["status"] == "healthy" and health["model_version"] is None
        assert (health["models_loaded"], health["embeddings_loaded"], health["feature_columns"]) == (False, False, 0)
        for answer in asked:
            assert answer.status_code == 503 and set(answer.json()) == {"error"}
            assert int(answer.headers["retry-after"]) >= 1
        assert empty.status_code == 200 and stored.json() == {"accepted": 2, "duplicates": 0}
        assert live.status_code == 200 and ready.status_code == 503
        server.bundles.add(lambda folder: _copied(shop / "v1", folder))
        server.bundles.promote("v1")
        server.wait("/readyz", timeout_s=120)
        assert server.recommend(events=clicks(1001))["model_version"] == "v1"


def _copied(bundle: Path, folder: Path) -> dict[str, Any]:
    for file in bundle.iterdir():
        if file.name != "manifest.json":
            (folder / file.name).write_bytes(file.read_bytes())
    return {}


def test_keys_guard_everything_but_health(tmp_path: Path, compiled: Path, shop: Path) -> None:
    key = "a-plain-key-of-somebody-0123456789"
    with recommending(tmp_path, compiled, shop, api_keys=[key]) as server:
        server.wait()
        with server.open() as client:
            asked: list[tuple[str, str, Any]] = [
                ("POST", "/recommend", ASKED), ("POST", "/batch_recommend", BATCH), ("GET", "/stats", None),
                ("GET", "/items/1001/embedding", None), ("GET", "/sessions/1/embedding", None),
                ("POST", "/events", SESSION), ("POST", "/reload", None), ("POST", "/v2/models/recommend/infer", {}),
            ]  # fmt: skip
            for method, path, body in asked:
                refused = client.request(method, path, json=body)
                assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer", path
                allowed = client.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})
                assert allowed.status_code in (200, 400) and (allowed.status_code == 200) != path.startswith("/v2")
            assert client.get("/health").status_code == 200
