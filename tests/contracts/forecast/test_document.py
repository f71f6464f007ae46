"""Document 001, line by line, against a real server."""

from __future__ import annotations

import json
import re
import time

import httpx
import pytest
from tests.contracts.forecast.conftest import forecasting
from tests.contracts.forecast.graphs import FEATURES, UNANSWERABLE, window

NOT_LOADED = "모델이 로드되지 않았습니다. /reload를 시도하세요."
GOOD = window()


def test_health(forecast) -> None:
    body = httpx.get(forecast.url + "/health").json()
    documented = {"status": "ok", "model_loaded": True, "model_alias": "staging", "model_version": "1"}
    assert documented.items() <= body.items()
    assert body["features"] == FEATURES and body["close_index"] == 3 and body["interval"] == "1h"
    assert (body["seq_len"], body["n_features"], body["source"]) == (12, 18, "models:/m-1")
    assert body["reload_error"] is None


def test_predict(forecast) -> None:
    with forecast.open() as client:
        answer = client.post("/predict", json={"X": window(43_210.5)})
        whole = client.post("/predict", json={"X": [[1] * 18] * 12, "metadata": None, "callback_url": None})
    assert answer.status_code == whole.status_code == 200
    assert answer.json() == {
        "pred_btc_close_next": 43_211.5,
        "posted_to_callback": False,
        "model_alias": "staging",
        "model_version": "1",
    }
    assert whole.json()["pred_btc_close_next"] == 2.0


def test_the_receipt(forecast) -> None:
    with forecast.open() as client:
        answers = [client.post("/predict", json={"X": window(1234.5)}) for _ in range(2)]
    first, again = answers
    assert first.headers["x-model-version"] == "BTC_LSTM_Production@1"
    assert [answer.headers["x-cache"] for answer in answers] == ["miss", "hit"]
    assert re.fullmatch(r"queue;dur=[\d.]+, batch;dur=[\d.]+, compute;dur=[\d.]+", first.headers["server-timing"])
    assert first.json() == again.json()


BAD_WINDOWS = {
    "rows missing": (GOOD[1:], "[11, 18]"),
    "a row too many": ([*GOOD, GOOD[0]], "[13, 18]"),
    "too few features": ([row[1:] for row in GOOD], "[12, 17]"),
    "none": ([], "[0, 0]"),
    "empty rows": ([[]] * 12, "[12, 0]"),
    "ragged": ([*GOOD[1:], GOOD[0][1:]], "17에서 18"),
    "flat": (GOOD[0], "배열의 배열"),
    "a batch": ([GOOD], "[1, 12]"),
    "text": ([*GOOD[1:], ["1.0"] * 18], "숫자가 아닌"),
    "booleans": ([*GOOD[1:], [True] * 18], "숫자가 아닌"),
    "nulls": ([*GOOD[1:], [None] * 18], "숫자가 아닌"),
    "beyond float32": ([*GOOD[1:], [1e39] * 18], "float32"),
    "an object": ({"0": GOOD}, "배열의 배열"),
    "null": (None, "배열의 배열"),
    "a word": ("X", "배열의 배열"),
}


@pytest.mark.parametrize("case", BAD_WINDOWS)
def test_a_bad_window_is_told_what_was_expected_and_what_came(forecast, case) -> None:
    given, came = BAD_WINDOWS[case]
    answer = httpx.post(forecast.url + "/predict", json={"X": given})
    said = answer.json()["detail"]
    assert answer.status_code == 400, said
    assert said.startswith("예측 실패: X: [12, 18] 형식의 2차원") and came in said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"X": [[NaN]]}', "JSON"),
        (b'{"X": [[1e999]]}', "JSON"),
        (b'{"X": [], "X": []}', "JSON"),
        (b'{"X": [], "metadata": {"a": "\\ud800"}}', "JSON"),
        (b"[]", "본문은 객체여야"),
        (b"null", "본문은 객체여야"),
        (b"{}", "X: 필수"),
        (json.dumps({"X": GOOD, "callback": "http://a.example/"}).encode(), "callback: 알 수 없는"),
        (json.dumps({"X": GOOD, "callback_url": "ftp://a.example/"}).encode(), "callback_url: 유효한 HTTP/HTTPS URL"),
        (json.dumps({"X": GOOD, "callback_url": "a.example"}).encode(), "callback_url: 유효한"),
        (json.dumps({"X": GOOD, "callback_url": ""}).encode(), "callback_url: 유효한"),
        (json.dumps({"X": GOOD, "callback_url": "http://u:p@a.example/"}).encode(), "callback_url: 유효한"),
        (json.dumps({"X": GOOD, "callback_url": "http://127.1/"}).encode(), "callback_url: 유효한"),
        (json.dumps({"X": GOOD, "callback_url": 5}).encode(), "callback_url: 문자열"),
        (json.dumps({"X": GOOD, "callback_url": "http://a.example/" + "a" * 3000}).encode(), "callback_url"),
        (json.dumps({"X": GOOD, "metadata": "a"}).encode(), "metadata: 객체"),
        (
            json.dumps({"X": GOOD, "metadata": {"a": "b" * 20_000}, "callback_url": "http://a.example/"}).encode(),
            "metadata: 콜백이 있으면 16 KiB",
        ),
    ],
)
def test_a_bad_body_is_400_in_the_documents_words(forecast, body, said) -> None:
    for path in ("/predict", "/predict/batch") if b"callback" not in body and b"meta" not in body else ("/predict",):
        answer = httpx.post(forecast.url + path, content=body, headers={"Content-Type": "application/json"})
        detail = answer.json()["detail"]
        assert answer.status_code == 400, detail
        assert detail.startswith("예측 실패: ") and said in detail


def test_a_prediction_that_fails_is_400(forecast) -> None:
    answer = httpx.post(forecast.url + "/predict", json={"X": window(UNANSWERABLE)})
    assert answer.status_code == 400 and answer.json() == {"detail": "예측 실패: 모델이 예측하지 못했습니다"}


def test_other_content_types_and_large_bodies(forecast) -> None:
    with forecast.open() as client:
        text = client.post("/predict", content=json.dumps({"X": GOOD}), headers={"Content-Type": "text/plain"})
        large = client.post("/predict", json={"X": GOOD, "metadata": {"a": "x" * (9 * 2**20)}})
    assert text.status_code == 415 and text.json()["detail"].startswith("예측 실패: ")
    assert large.status_code == 413 and large.json()["detail"].startswith("예측 실패: ")


def test_many_windows_at_once(forecast) -> None:
    closes = [float(n) for n in range(1, 1001)]
    with forecast.open() as client:
        answer = client.post("/predict/batch", json={"X": [window(close) for close in closes]})
    body = answer.json()
    assert answer.status_code == 200
    assert [each["pred_btc_close_next"] for each in body["predictions"]] == [close + 1 for close in closes]
    assert (body["count"], body["failed"]) == (1000, 0)
    assert (body["model_alias"], body["model_version"]) == ("staging", "1")


def test_a_bad_window_among_many_fails_alone(forecast) -> None:
    windows = [window(10.0), GOOD[1:], window(UNANSWERABLE), [[None] * 18] * 12, window(20.0)]
    with forecast.open() as client:
        body = client.post("/predict/batch", json={"X": windows}).json()
        none_good = client.post("/predict/batch", json={"X": [GOOD[1:], "a"]})
    errors = [each.get("error") for each in body["predictions"]]
    assert [each.get("pred_btc_close_next") for each in body["predictions"]] == [11.0, None, None, None, 21.0]
    assert "[11, 18]" in errors[1] and "예측하지 못했습니다" in errors[2] and "숫자가 아닌" in errors[3]
    assert body["failed"] == 3 and errors[0] is errors[4] is None
    assert none_good.status_code == 400 and none_good.json()["detail"].startswith("예측 실패: X[0]: ")


@pytest.mark.parametrize("given", [[], {}, None, "a", 5, [window()] * 1025])
def test_what_is_no_list_of_windows(forecast, given) -> None:
    answer = httpx.post(forecast.url + "/predict/batch", json={"X": given}, timeout=30)
    assert answer.status_code == 400 and "1개에서 1024개" in answer.json()["detail"]


def test_nothing_of_a_request_is_logged_or_told_back(forecast) -> None:
    secret = 918_273.25
    with forecast.open() as client:
        answers = [
            client.post("/predict", json={"X": window(secret), "metadata": {"user_id": "canary-7f3"}}),
            client.post("/predict", json={"X": window(secret)[1:], "metadata": {"user_id": "canary-7f3"}}),
            client.post("/predict", json={"X": window(), "callback_url": "canary-7f3"}),
            client.post("/predict", json={"X": window(), "canary-7f3": "canary-8a1"}),
            client.post("/reload", json={"alias": ["canary-7f3"]}),
        ]
    assert [answer.status_code for answer in answers] == [200, 400, 400, 400, 400]
    log = forecast.log()
    assert "canary" not in log and "918273" not in log
    assert "canary-8a1" not in answers[3].text and "canary" not in answers[1].text + answers[2].text + answers[4].text


def test_methods_and_open_pages(forecast) -> None:
    wrong = httpx.get(forecast.url + "/predict")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST" and "detail" in wrong.json()
    missing = httpx.get(forecast.url + "/no/such/page")
    assert missing.status_code == 404 and "detail" in missing.json()
    for path in ("/docs", "/redoc", "/openapi.json", "/healthz", "/readyz", "/metrics"):
        assert httpx.get(forecast.url + path).status_code == 200
    described = httpx.get(forecast.url + "/openapi.json").json()["info"]
    assert (described["title"], described["version"]) == ("LSTM Inference with MLflow PyFunc", "2.0.0")


def test_before_there_is_a_model(shelf, tmp_path) -> None:
    """The registry is away at the start, and comes back."""
    shelf.say("down")
    with forecasting(tmp_path, configuration={"ready_every_s": 0.3}) as server:
        server.wait("/health")
        with server.open() as client:
            health = client.get("/health").json()
            answer = client.post("/predict", json={"X": GOOD})
            many = client.post("/predict/batch", json={"X": [GOOD]})
            live, ready = client.get("/healthz"), client.get("/readyz")
            shelf.say("")
            server.wait("/readyz")
            after = client.get("/health").json()
    assert health["status"] == "ok" and health["model_loaded"] is False
    assert health["model_alias"] is health["model_version"] is None
    assert answer.status_code == many.status_code == 503
    assert answer.json() == many.json() == {"detail": NOT_LOADED}
    assert int(answer.headers["retry-after"]) >= 1
    assert live.status_code == 200 and ready.status_code == 503
    assert after["model_loaded"] is True and after["reload_error"] is None


def test_the_start_gives_up_and_a_reload_makes_up_for_it(shelf, tmp_path) -> None:
    shelf.point(staging="missing")
    with forecasting(tmp_path, configuration={"ready_every_s": 0.05, "ready_for_s": 0.2}) as server:
        server.wait("/health")
        server.wait_until(lambda: "POST /reload tries again" in server.log(), 10)
        with server.open() as client:
            assert client.post("/predict", json={"X": GOOD}).status_code == 503
            assert client.post("/reload", json={"alias": "Production"}).json()["model_version"] == "2"
            assert client.post("/predict", json={"X": window(5.0)}).json()["pred_btc_close_next"] == 7.0
            time.sleep(0.3)
            assert client.get("/health").json()["model_alias"] == "Production"


def test_keys_guard_what_the_document_has_no_words_for(shelf, tmp_path) -> None:
    key = "a-plain-key-of-somebody-0123456789"
    with forecasting(tmp_path, api_keys=[key]) as server:
        server.wait()
        with server.open() as client:
            for path in ("/predict", "/predict/batch", "/reload", "/v2/models/forecast/infer"):
                without = client.post(path, json={"X": GOOD})
                wrong = client.post(path, json={"X": GOOD}, headers={"Authorization": "Bearer wrong-key"})
                assert without.status_code == wrong.status_code == 401
                assert without.headers["www-authenticate"] == "Bearer"
            headers = {"Authorization": f"Bearer {key}"}
            assert client.post("/predict", json={"X": GOOD}, headers=headers).status_code == 200
            assert client.post("/reload", headers=headers).status_code == 200
            assert client.get("/health").status_code == 200
