"""Document 004's AI API, line by line, against a real server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.contracts.llm.conftest import generating, shelve
from tests.contracts.llm.scripted import CANARY

GENERATE, STREAM = "/api/v1/generate", "/api/v1/generate/stream"
MODELS = "등록된 모델 목록: GET /api/v1/models"


def ask(server, path: str = GENERATE, **body) -> httpx.Response:
    return httpx.post(server.url + path, json={"model_id": "echo", **body}, timeout=30)


def refused(answer: httpx.Response, status: int, code: str) -> dict:
    body = answer.json()
    assert (answer.status_code, body["success"], body["error"]["code"]) == (status, False, code), body
    assert body["error"]["message"] and body["error"]["suggestion"]
    assert body["error"]["details"]["request_id"] == answer.headers["x-request-id"]
    return body["error"]


def test_generate(scripted) -> None:
    asked = {
        "prompt": "Explain quantum computing in simple terms:",
        "max_tokens": 512,
        "temperature": 0.7,
        "top_p": 0.9,
    }
    answer = ask(scripted, **asked)
    assert answer.status_code == 200
    body = answer.json()
    data = body["data"]
    assert body.keys() == {"success", "data"} and body["success"] is True
    assert data["text"] == asked["prompt"] and data["tokens_generated"] == 6
    assert 0 < data["time_to_first_token"] <= data["time_elapsed"] < 30
    assert data["tokens_per_second"] == pytest.approx(6 / data["time_elapsed"], rel=0.01)
    assert (data["prompt_tokens"], data["cached_tokens"], data["finish_reason"]) == (6, 1, "stop")
    assert data["model_id"] == "echo"


def test_the_documents_defaults(scripted) -> None:
    said = ask(scripted, prompt="sampling").json()["data"]["text"]
    assert "max_tokens=512" in said and "temperature=0.7" in said and "top_p=0.9" in said and "stop=()" in said


def test_what_is_asked_reaches_the_model(scripted) -> None:
    asked = {"top_k": 3, "min_p": 0.1, "repeat_penalty": 1.1, "seed": -1, "stop": ["a", "\n"], "max_tokens": 7}
    said = ask(scripted, prompt="sampling", temperature=0, **asked).json()["data"]["text"]
    for part in (
        "top_k=3",
        "min_p=0.1",
        "repeat_penalty=1.1",
        f"seed={2**32 - 2}",
        "stop=('a', '\\n')",
        "max_tokens=7",
    ):
        assert part in said
    assert "temperature=0.0" in said or "temperature=0," in said


def test_the_receipt(scripted) -> None:
    answer = ask(scripted, prompt="a b c")
    assert answer.headers["x-model-version"].startswith("echo@")
    assert "queue;dur=" in answer.headers["server-timing"]


def test_an_unknown_model(scripted) -> None:
    for answer in (
        ask(scripted, prompt="a", model_id="nope"),
        ask(scripted, STREAM, prompt="a", model_id="nope"),
        httpx.get(scripted.url + "/api/v1/models/nope"),
        httpx.post(scripted.url + "/api/v1/models/nope/load"),
        httpx.post(scripted.url + "/api/v1/models/nope/unload"),
    ):
        error = refused(answer, 404, "MODEL_NOT_FOUND")
        assert error["message"] == "Model 'nope' not found in registry" and error["suggestion"] == MODELS


PATHS = [
    "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e%5cwindows", "echo.gguf", "echo/", "ECHO", "echo\x00", ".",
    "..", "~", "con", "echo@latest", "echo@", "a" * 200, "\u202eecho", "/models/echo.gguf", "echo%00", "\r\nx: y",
]  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_no_name_becomes_a_path(scripted, name) -> None:
    assert refused(ask(scripted, prompt="a", model_id=name), 404, "MODEL_NOT_FOUND")
    found = scripted.open().get("/api/v1/models/" + name.replace("\x00", "%00").replace("\r\n", "%0d%0a"))
    assert found.status_code in (200, 404, 400)
    if found.status_code == 200:  # `.` and the like are no names but the list itself
        assert isinstance(found.json()["data"], list)


def test_out_of_memory_is_507_in_the_documents_words(scripted) -> None:
    error = refused(ask(scripted, prompt="broken memory"), 507, "GPU_OUT_OF_MEMORY")
    assert error["message"] == "GPU VRAM 부족. 다른 모델을 언로드 후 재시도하세요."
    assert error["suggestion"] == "현재 로드된 모델을 확인하세요: GET /api/v1/models"


def test_other_failures_of_models(scripted) -> None:
    refused(ask(scripted, prompt="broken long"), 413, "INPUT_TOO_LONG")
    died = ask(scripted, prompt="broken died")
    refused(died, 503, "MODEL_NOT_READY")
    assert died.headers["retry-after"] == "1"
    for prompt in ("broken panic", "unfinished"):
        error = refused(ask(scripted, prompt=prompt), 500, "MODEL_FAILED")
        assert CANARY not in json.dumps(error)
    for model in ("spoilt", "unloadable"):
        for path in (GENERATE, STREAM):
            refused(ask(scripted, path, prompt="a", model_id=model), 500, "MODEL_LOAD_FAILED")
    assert CANARY not in scripted.log()


def test_what_fails_before_a_stream_begins_has_its_status(scripted) -> None:
    refused(ask(scripted, STREAM, prompt="x" * 400_001), 422, "INVALID_INPUT")
    refused(ask(scripted, STREAM, prompt="a", model_id="spoilt"), 500, "MODEL_LOAD_FAILED")


def test_a_deadline_is_504_in_the_documents_words(tmp_path) -> None:
    shelve(tmp_path, "echo")
    with generating(tmp_path, scripted=True, configuration={"timeout_s": 0.5}) as server:
        server.wait()
        error = refused(ask(server, prompt="forever"), 504, "INFERENCE_TIMEOUT")
        assert error["message"] == "추론이 0.5초 내에 완료되지 않았습니다."
        assert error["suggestion"] == "max_tokens를 줄이거나 prompt 길이를 조정하세요."
        cut = ask(server, STREAM, prompt="forever").text
        assert cut.endswith("\n\n") and "event: error\n" in cut and "INFERENCE_TIMEOUT" in cut
        assert "event: done" not in cut
        server.wait_until(lambda: server.held() == 0, 5)


def test_a_full_queue_is_429(tmp_path) -> None:
    shelve(tmp_path, "echo")
    asked = {"model_id": "echo", "prompt": "forever"}
    with generating(tmp_path, scripted=True, slots=1, configuration={"waiting": 1}) as server, server.open() as client:
        server.wait()
        with client.stream("POST", STREAM, json=asked) as first, ThreadPoolExecutor(1) as threads:
            lines = first.iter_lines()
            next(lines)
            waiting = threads.submit(ask, server, prompt="a b c")
            server.wait_until(lambda: server.held() == 2, 5)
            for path in (GENERATE, STREAM):
                answer = ask(server, path, prompt="a")
                assert "다시 시도" in refused(answer, 429, "TOO_MANY_REQUESTS")["suggestion"]
                assert int(answer.headers["retry-after"]) >= 1
            first.close()
            assert waiting.result(10).json()["data"]["text"] == "a b c"


BAD = [
    (b"", 400), (b"{", 400), (b"[]", 422), (b"null", 422), (b"{}", 422), (b"\xff\xfe", 400),
    (b'{"prompt": "a", "model_id": "echo", "prompt": "b"}', 400),
    (b'{"prompt": "\\ud800", "model_id": "echo"}', 400),
    (b'{"prompt": "a", "model_id": "echo", "temperature": NaN}', 400),
    (b'{"prompt": "a", "model_id": "echo", "temperature": 1e999}', 400),
]  # fmt: skip
WRONG = {
    "prompt": ["", " \n", 5, None, ["a"], {"a": 1}],
    "model_id": ["", 5, None],
    "max_tokens": [0, -1, 10**9, "5", True, 1.5, None],
    "temperature": [-0.1, 2.1, "1", True, None],
    "top_p": [-1, 1.01, "a"],
    "stop": ["a", [""], ["a"] * 17, [5], ["a" * 300]],
    "seed": ["1", 1.5],
    "unknown": [1],
}


@pytest.mark.parametrize(("body", "status"), BAD)
def test_a_bad_body(scripted, body, status) -> None:
    for path in (GENERATE, STREAM, "/api/v1/inference/stream"):
        answer = httpx.post(scripted.url + path, content=body, headers={"Content-Type": "application/json"})
        refused(answer, status, "BAD_REQUEST" if status == 400 else "INVALID_INPUT")


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in WRONG for value in WRONG[field]])
def test_a_wrong_field_is_named_and_its_value_is_not_said(scripted, field, value) -> None:
    error = refused(ask(scripted, **{"prompt": "a", field: value}), 422, "INVALID_INPUT")
    assert field in error["message"] and field in error["details"]["fields"][0]["loc"]


def test_other_content_types_and_large_bodies(scripted) -> None:
    text = httpx.post(scripted.url + GENERATE, content=b"{}", headers={"Content-Type": "text/plain"})
    refused(text, 415, "UNSUPPORTED_MEDIA_TYPE")
    refused(ask(scripted, prompt="x" * (5 * 2**20)), 413, "PAYLOAD_TOO_LARGE")
    refused(httpx.get(scripted.url + "/api/v1/other"), 404, "NOT_FOUND")
    refused(httpx.get(scripted.url + GENERATE), 405, "METHOD_NOT_ALLOWED")


def test_nothing_that_is_asked_or_answered_is_logged(scripted) -> None:
    for prompt in (f"{CANARY} said", f"broken panic {CANARY}", f"mixed panic {CANARY}"):
        for path in (GENERATE, STREAM):
            ask(scripted, path, prompt=prompt)
    ask(scripted, prompt=5, stop=[CANARY])
    ask(scripted, prompt="a", model_id=CANARY)
    assert "/api/v1/generate" in scripted.log() and CANARY not in scripted.log()


def test_text_that_no_json_can_hold(scripted) -> None:
    assert ask(scripted, prompt="surrogates").json()["data"]["text"] == "a?b"


def test_the_models(scripted) -> None:
    body = httpx.get(scripted.url + "/api/v1/models").json()
    assert body["success"] is True
    models = {model["model_id"]: model for model in body["data"]}
    assert models.keys() == {"echo", "other", "spoilt", "unloadable"}
    documented = {"model_id": "echo", "type": "gguf", "context_length": 512, "loaded": True}
    assert documented.items() <= models["echo"].items() or not models["echo"]["loaded"]
    spoilt = models["spoilt"]
    assert (spoilt["loaded"], spoilt["state"], spoilt["error"]) == (False, "invalid", "it is a bad file")
    assert models["other"]["expected_memory_bytes"] == 1000 and models["other"]["error"] is None


def test_a_model_is_loaded_and_unloaded_by_hand(scripted) -> None:
    with scripted.open() as client:
        loaded = client.post("/api/v1/models/other/load")
        assert loaded.status_code == 200 and loaded.json()["data"]["state"] == "loaded"
        assert loaded.json()["data"]["memory_bytes"] == 1234
        assert client.post("/api/v1/models/other/load").status_code == 200
        for _ in range(2):
            unloaded = client.post("/api/v1/models/other/unload")
            assert unloaded.status_code == 200 and unloaded.json()["data"]["loaded"] is False
            assert unloaded.json()["data"]["memory_bytes"] is None
        refused(client.post("/api/v1/models/unloadable/load"), 500, "MODEL_LOAD_FAILED")
        refused(client.post("/api/v1/models/spoilt/load"), 500, "MODEL_LOAD_FAILED")


def test_a_model_in_use_is_not_unloaded(scripted) -> None:
    asked = {"model_id": "other", "prompt": "forever"}
    with scripted.open() as client, client.stream("POST", STREAM, json=asked) as stream:
        lines = stream.iter_lines()
        next(lines)
        answer = httpx.post(scripted.url + "/api/v1/models/other/unload")
        refused(answer, 503, "MODEL_IN_USE")
        assert answer.headers["retry-after"] == "1"
        assert next(lines) is not None and scripted.status("other")["running"] == 1
    scripted.wait_until(lambda: scripted.held("other") == 0, 5)


def test_another_sites_page_operates_nothing(scripted) -> None:
    for action in ("load", "unload"):
        path = f"{scripted.url}/api/v1/models/other/{action}"
        for site in ("cross-site", "same-site"):
            refused(httpx.post(path, headers={"Sec-Fetch-Site": site}), 403, "FORBIDDEN")
        assert httpx.post(path, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_credentials(tmp_path) -> None:
    shelve(tmp_path, "echo")
    key = "0123456789-key-for-tests"
    allowed = {"Authorization": f"Bearer {key}"}
    asked = {"model_id": "echo", "prompt": "a"}
    with generating(tmp_path, scripted=True, api_keys=[key], scopes=["ai"]) as server, server.open() as client:
        server.wait()
        for path in (GENERATE, STREAM, "/api/v1/models/echo/load", "/api/v1/models/echo/unload"):
            answer = client.post(path, json=asked)
            refused(answer, 401, "UNAUTHORIZED")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.post(GENERATE, json=asked, headers=allowed).status_code == 200
        for action in ("load", "unload"):
            refused(client.post(f"/api/v1/models/echo/{action}", headers=allowed), 403, "FORBIDDEN")
    with generating(tmp_path, scripted=True, api_keys=[key], scopes=["ai", "ai:operate"]) as server:
        server.wait()
        assert httpx.post(server.url + "/api/v1/models/echo/load", headers=allowed).status_code == 200
