"""Models that change under load, and registries that have nothing good to give."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from base64 import b64encode
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from tests.contracts.forecast.conftest import forecasting
from tests.contracts.forecast.graphs import folder, graph, window

FAILED = "모델 리로드 실패: "
ADDS = {"1": 1.0, "2": 2.0, "3": 3.0}


@pytest.fixture
def server(shelf, tmp_path):
    with forecasting(tmp_path) as server:
        server.wait()
        yield server


def served(server) -> tuple[str, str]:
    """The alias and version of a prediction, which must be the one that the label says."""
    body = httpx.post(server.url + "/predict", json={"X": window(100.0)}).json()
    assert body["pred_btc_close_next"] == 100.0 + ADDS[body["model_version"]]
    return body["model_alias"], body["model_version"]


def test_reload(server, shelf) -> None:
    with server.open() as client:
        answer = client.post("/reload", json={"alias": "Production"})
        assert answer.status_code == 200
        assert answer.json() == {"status": "reloaded", "model_alias": "Production", "model_version": "2"}
        assert served(server) == ("Production", "2")
        for nothing in ({"json": {}}, {"json": {"alias": None}}, {"content": b""}, {"json": None}):
            assert client.post("/reload", **nothing).json()["model_alias"] == "staging"
            assert served(server) == ("staging", "1")
            client.post("/reload", json={"alias": "Production"})
        shelf.point(staging="2")
        assert client.post("/reload").json() == {"status": "reloaded", "model_alias": "staging", "model_version": "2"}
        assert served(server) == ("staging", "2")


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"staging"',
        b"{",
        b'{"alias": 5}',
        b'{"alias": ""}',
        b'{"aliases": "a"}',
        b'{"alias": "%s"}' % (b"a" * 300),
    ],
)
def test_a_bad_body_changes_nothing(forecast, body) -> None:
    answer = httpx.post(forecast.url + "/reload", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["detail"].startswith(FAILED)
    assert served(forecast) == ("staging", "1")


def broken(place: Path, what: str) -> None:
    """Spoil version 3."""
    model, described = place / "model.onnx", place / "MLmodel"
    manifest = yaml.safe_load(described.read_text())
    function = manifest["flavors"]["python_function"]
    match what:
        case "truncated":
            model.write_bytes(model.read_bytes()[:-20])
        case "empty":
            model.write_bytes(b"")
        case "gone":
            model.unlink()
        case "garbage":
            model.write_bytes(b"\x80\x04cposix\nsystem\n" * 100)
        case "wrong shape":
            model.write_bytes(graph(3.0, n_features=17))
        case "not finite":
            model.write_bytes(graph(float("nan")))
        case "other loader":
            function["loader_module"] = "evil"
        case "code":
            function["code"] = "code"
        case "no manifest":
            described.unlink()
            return
        case "link":
            model.unlink()
            model.symlink_to("/etc/passwd")
    described.write_text(yaml.safe_dump(manifest))


BREAKS = [
    "truncated", "empty", "gone", "garbage", "wrong shape", "not finite", "other loader", "code", "no manifest",
]  # fmt: skip


@pytest.mark.parametrize("what", BREAKS)
def test_a_bad_model_leaves_the_old_one_serving(forecast, what) -> None:
    shelf = forecast.shelf
    broken(shelf.put("3", graph(3.0)), what)
    shelf.point(bad="3")
    answer = httpx.post(forecast.url + "/reload", json={"alias": "bad"})
    said = answer.json()["detail"]
    assert answer.status_code == 500 and said.startswith(FAILED) and len(said) < 300
    assert "/" not in said.removeprefix(FAILED) and "Traceback" not in said and "tmp" not in said
    assert served(forecast) == ("staging", "1")
    health = httpx.get(forecast.url + "/health").json()
    assert health["model_version"] == "1" and said == FAILED + health["reload_error"]
    assert httpx.post(forecast.url + "/reload").status_code == 200
    assert httpx.get(forecast.url + "/health").json()["reload_error"] is None


def test_artifacts_cut_at_64_places(forecast) -> None:
    shelf = forecast.shelf
    whole = graph(3.0)
    with forecast.open() as client:
        for n in range(64):
            (shelf.put("3", whole) / "model.onnx").write_bytes(whole[: len(whole) * n // 64])
            shelf.point(bad="3")
            answer = client.post("/reload", json={"alias": "bad"})
            assert answer.status_code == 500 and answer.json()["detail"].startswith(FAILED), n
            assert served(forecast) == ("staging", "1")
        assert client.post("/reload").status_code == 200


@pytest.mark.parametrize("what", ["no alias", "no version", "down", "breaks"])
def test_a_registry_that_does_not_give_a_model(forecast, what) -> None:
    shelf = forecast.shelf
    shelf.point(lost="99")
    shelf.say(what if what in ("down", "breaks") else "")
    try:
        alias = "nobody" if what == "no alias" else "lost"
        answer = httpx.post(forecast.url + "/reload", json={"alias": alias})
        said = answer.json()["detail"]
        assert answer.status_code == 500 and said.startswith(FAILED) and "/" not in said.removeprefix(FAILED)
        assert served(forecast) == ("staging", "1")
    finally:
        shelf.say("")


def test_a_registry_that_hangs_is_given_up(shelf, tmp_path) -> None:
    with forecasting(tmp_path, configuration={"registry_timeout_s": 0.5}) as server:
        server.wait()
        shelf.say("hangs")
        with ThreadPoolExecutor(1) as pool, server.open() as client:
            reloading = pool.submit(client.post, "/reload")
            while not reloading.done():
                assert served(server) == ("staging", "1")
            assert reloading.result().status_code == 500
            shelf.say("")
            assert client.post("/reload").status_code == 200


def test_who_asks_together_shares_one_load(server, shelf) -> None:
    shelf.point(staging="2")
    with ThreadPoolExecutor(20) as pool, server.open() as client:
        answers = list(pool.map(lambda _: client.post("/reload"), range(20)))
    assert {answer.json()["model_version"] for answer in answers} == {"2"}
    assert server.log().count('"model_loading"') == 2  # at the start, and now


def test_no_files_are_left_behind(server, shelf) -> None:
    temporary = server.home / "tmp"
    broken(shelf.put("3", graph(3.0)), "truncated")
    shelf.point(bad="3")
    with server.open() as client:
        for alias in ("Production", "staging", "bad", "staging", "Production", "Production"):
            client.post("/reload", json={"alias": alias})
    assert len(list(temporary.glob("maru-forecast-*"))) == 1
    assert server.stop() == 0
    assert list(temporary.glob("maru-forecast-*")) == []


def test_two_hundred_reloads_under_load(server) -> None:
    """No request fails, each answer is by the version that it names, and none by one that a reload has replaced."""
    stop = threading.Event()
    seen: Counter[str] = Counter()
    faults: list[str] = []

    def ask(worker: int) -> None:
        with server.open() as client:
            for n in range(10**9):
                if stop.is_set():
                    return
                closes = [1000.0 * worker + n % 997 + part for part in range(3 if n % 5 == 0 else 1)]
                path, given = (
                    ("/predict", window(closes[0])) if len(closes) == 1 else ("/predict/batch", [*map(window, closes)])
                )
                answer = client.post(path, json={"X": given})
                if answer.status_code != 200:
                    faults.append(answer.text)
                    continue
                body = answer.json()
                made = [each["pred_btc_close_next"] for each in body.get("predictions", [body])]
                version = body["model_version"]
                if made != [close + ADDS[version] for close in closes]:
                    faults.append(f"{closes} gave {body}")
                if body["model_alias"] != {"1": "staging", "2": "Production"}[version]:
                    faults.append(f"alias {body}")
                seen[version] += 1

    with ThreadPoolExecutor(4) as pool, server.open() as client:
        asking = [pool.submit(ask, worker) for worker in range(4)]
        try:
            for n in range(200):
                alias, version = (("Production", "2"), ("staging", "1"))[n % 2]
                assert client.post("/reload", json={"alias": alias}).json()["model_version"] == version
                after = client.post("/predict", json={"X": window(50.0)}).json()
                assert (after["pred_btc_close_next"], after["model_version"]) == (50.0 + ADDS[version], version)
        finally:
            stop.set()
        for each in asking:
            each.result()
    assert not faults, faults[:5]
    assert min(seen.values()) > 50
    metrics = httpx.get(server.url + "/metrics").text
    loaded = [line for line in metrics.splitlines() if line.startswith("maru_models_loaded")]
    assert not loaded or loaded[0].endswith(" 1.0")


def test_a_moved_alias_is_followed(shelf, tmp_path) -> None:
    with forecasting(tmp_path, configuration={"poll_s": 0.1}) as server:
        server.wait()
        shelf.point(staging="2")
        server.wait_until(lambda: served(server) == ("staging", "2"), 10)
        httpx.post(server.url + "/reload", json={"alias": "Production"})
        shelf.point(Production="1", staging="1")
        server.wait_until(lambda: served(server) == ("Production", "1"), 10)


def test_a_bad_model_that_is_followed_is_fetched_once(shelf, tmp_path) -> None:
    with forecasting(tmp_path, configuration={"poll_s": 0.05}) as server:
        server.wait()
        broken(shelf.put("3", graph(3.0)), "truncated")
        shelf.point(staging="3")
        health = server.url + "/health"
        server.wait_until(lambda: httpx.get(health).json()["reload_error"] is not None, 10)
        time.sleep(0.5)
        assert served(server) == ("staging", "1")
        assert (shelf.place / "fetched").read_text().split() == ["1", "3"]
        shelf.say("down")
        server.wait_until(lambda: "does not answer" in server.log(), 10)
        shelf.point(staging="2")
        shelf.say("")
        server.wait_until(lambda: served(server) == ("staging", "2"), 10)


def event(server, secret: str, alias: str = "staging", age_s: float = 0.0, **changes: object) -> httpx.Response:
    """As MLflow sends it (its signature is compared with MLflow's own in tests/http)."""
    data = {"name": "BTC_LSTM_Production", "alias": alias, "version": "2"}
    body = {"entity": "model_version_alias", "action": "created", "timestamp": "2026-11-21T00:00:00", "data": data}
    sent = json.dumps({**body, **changes}).encode()
    when = str(int(time.time() - age_s))
    signature = b64encode(hmac.new(secret.encode(), f"d-1.{when}.".encode() + sent, hashlib.sha256).digest()).decode()
    headers = {
        "Content-Type": "application/json", "X-MLflow-Delivery-Id": "d-1", "X-MLflow-Timestamp": when,
        "X-MLflow-Signature": f"v1,{signature}",
    }  # fmt: skip
    return httpx.post(server.url + "/hooks/mlflow", content=sent, headers=headers)


def test_mlflows_own_event_is_followed_at_once(shelf, tmp_path) -> None:
    secret = "events-are-signed-with-this"
    with forecasting(tmp_path, hook_secret=secret) as server:
        server.wait()
        shelf.point(staging="2")
        assert event(server, secret, alias="other").json() == {"status": "ignored"}
        assert event(server, secret, entity="registered_model").json() == {"status": "ignored"}
        assert served(server) == ("staging", "1")
        assert event(server, secret).json() == {"status": "following"}
        server.wait_until(lambda: served(server) == ("staging", "2"), 10)


def test_events_that_mlflow_did_not_sign_are_refused(forecast, server) -> None:
    secret = "events-are-signed-with-this"
    assert event(forecast, "another secret").status_code == 401
    assert event(forecast, secret, age_s=400).status_code == 401
    assert event(forecast, secret, age_s=-400).status_code == 401
    assert httpx.post(forecast.url + "/hooks/mlflow", json={"entity": "a", "action": "b"}).status_code == 401
    assert event(forecast, secret, entity=5).status_code == 400
    assert event(server, secret).status_code == 404  # which has no secret


def test_the_storm_is_what_it_says(tmp_path) -> None:
    """The graphs of these tests differ by what they add: a label that is wrong would show."""
    import numpy as np
    import onnxruntime

    for version, added in ADDS.items():
        folder(tmp_path / version, graph(added))
        session = onnxruntime.InferenceSession(str(tmp_path / version / "model.onnx"))
        (answer,) = session.run(None, {"X": np.array([window(7.0)], np.float32)})
        assert answer.tolist() == [[7.0 + added]]
