"""Document 000, line by line, against a real server."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contracts.style.conftest import KEY, OTHER_KEY, eventually, styling

CLIENTS = Path(__file__).parent / "clients"
TEXT = "모던한 거실에 어울리는 의자"
READS = ("score", "confidence", "style", "matches")


def told_to(name: str, server: Any) -> str:
    """One of the document's clients, told where its server is and which key to use, and nothing else."""
    text = (CLIENTS / name).read_text()
    return text.replace("http://localhost:8002", server.url).replace("your-api-key", KEY)


def in_unit(*values: float) -> bool:
    return all(isinstance(value, float) and 0 <= value <= 1 for value in values)


def test_its_python_client_runs_unchanged(style, cdn) -> None:
    code = compile(told_to("client.py.txt", style), "client.py", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {}

    async def use() -> dict[str, Any]:
        await eval(code, names)
        return await names["client"].infer_image(cdn.url("/room_images/room_123.jpg"))

    seen = asyncio.run(use())
    assert in_unit(names["result"]["score"], names["result"]["confidence"])
    assert isinstance(seen["style"], str) and len(seen["colors"]) == 3


def test_its_javascript_client_runs_unchanged(style, tmp_path) -> None:
    script = tmp_path / "client.mjs"
    script.write_text(
        told_to("client.js", style)
        + f"console.log(JSON.stringify(result));\nawait client.streamInfer({json.dumps(TEXT, ensure_ascii=False)});\n"
    )
    run = subprocess.run(["node", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    result, *events = run.stdout.split("Stream data:")
    assert in_unit(json.loads(result)["score"], json.loads(result)["confidence"])
    assert len(events) == 4 and "final_result" in events[-1] and "partial_result" in events[0]


def test_infer(style) -> None:
    with style.open() as client:
        answer = client.post("/infer", json={"text": TEXT})
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"score", "confidence", "processing_time", "model_version", "style", "matches"}
    assert in_unit(body["score"], body["confidence"]) and isinstance(body["processing_time"], float)
    assert body["model_version"].startswith("v")
    best, *others = body["matches"]
    assert best == {name: body[name] for name in ("style", "score", "confidence")} and len(others) == 2
    assert all(best["score"] >= other["score"] for other in others)


def test_infer_image(style, cdn) -> None:
    asked = {
        "image_url": cdn.url("/room_images/room_123.jpg"),
        "task": "style_analysis",
        "options": {"extract_features": True, "return_embeddings": False},
    }
    with style.open() as client:
        answer = client.post("/infer/image", json=asked)
    body = answer.json()
    assert answer.status_code == 200
    assert {"style", "colors", "features", "confidence", "processing_time"} <= set(body) and "embedding" not in body
    assert all(re.fullmatch("#[0-9A-F]{6}", color) for color in body["colors"]) and len(body["colors"]) == 3
    assert set(body["features"]) == {"brightness", "contrast", "saturation"} and in_unit(*body["features"].values())
    assert in_unit(body["confidence"], body["score"])


def test_infer_batch(style) -> None:
    asked = {
        "items": [{"id": "item_1", "text": "클래식한 책상"}, {"id": "item_2", "text": "미니멀한 소파"}],
        "batch_size": 10,
    }
    with style.open() as client:
        body = client.post("/infer/batch", json=asked).json()
        ones = [client.post("/infer", json={"text": item["text"]}).json() for item in asked["items"]]
    assert [result["id"] for result in body["results"]] == ["item_1", "item_2"]
    assert body["total_processed"] == 2 and isinstance(body["processing_time"], float)
    for result, one in zip(body["results"], ones, strict=True):
        assert {name: result[name] for name in READS} == {name: one[name] for name in READS}


def test_the_model_state(style) -> None:
    answer = httpx.get(style.url + "/readyz")
    body = answer.json()
    documented = {"model_ready": True, "gpu_available": False, "concurrent_requests": 0, "queue_size": 0}
    assert answer.status_code == 200
    assert {name: body[name] for name in documented} | {"gpu_available": False} == documented
    assert isinstance(body["gpu_available"], bool) and body["model_version"].startswith("v")
    status = body["queue_status"]
    assert set(status) == {"active_requests", "queued_requests", "max_concurrent", "estimated_wait_time"}
    assert status["max_concurrent"] == 2
    assert httpx.get(style.url + "/healthz").status_code == 200


def test_the_starter_says_that_it_is_one(style) -> None:
    body = httpx.get(style.url + "/readyz").json()
    assert isinstance(body["stand_in"], bool) and body["quality"] and len(body["styles"]) >= 12


def test_what_speaks_of_style_is_told_from_what_does_not(style) -> None:
    with style.open() as client:
        of_style = client.post("/infer", json={"text": TEXT}).json()
        neutral = client.post("/infer", json={"text": "회의는 오후 세 시에 시작합니다"}).json()
    assert of_style["score"] > 0.5 > neutral["score"]
    assert of_style["confidence"] > 0.5 > neutral["confidence"]


def test_before_the_model_is_loaded(tmp_path) -> None:
    with styling(tmp_path, toy={}, open_s=3.0) as server, server.open() as client:
        server.wait("/healthz")
        answer, ready = client.post("/infer", json={"text": TEXT}), client.get("/readyz")
        image = client.post("/infer/image", json={"image_url": "http://nobody.invalid/a.jpg"})
        server.wait()
        assert client.post("/infer", json={"text": TEXT}).status_code == 200
    body = answer.json()
    assert answer.status_code == image.status_code == ready.status_code == 503
    assert (body["error"], body["message"]) == ("MODEL_NOT_READY", "모델이 아직 로딩 중입니다.")
    soon = datetime.strptime(body["details"]["estimated_ready_time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((soon - datetime.now(UTC)).total_seconds()) < 60
    assert int(answer.headers["retry-after"]) >= 1
    assert ready.json()["model_ready"] is False and ready.json()["queue_status"]["max_concurrent"] == 2


def test_the_log_record(style) -> None:
    with style.open() as client:
        client.post("/infer", json={"text": TEXT}, headers={"X-Request-ID": "req_123"})
        client.post("/stream/infer", json={"text": TEXT, "stream_interval": 0}, headers={"X-Request-ID": "req_124"})
    for request_id in ("req_123", "req_124"):
        eventually(lambda id=request_id: id in style.log())  # which is written a moment later
        records = [line for line in style.lines() if line.get("message") == "Inference completed"]
        (record,) = [line for line in records if line["details"]["request_id"] == request_id]
        assert record["level"] == "INFO"
        datetime.strptime(record["timestamp"], "%Y-%m-%dT%H:%M:%SZ")
        details = record["details"]
        assert set(details) == {"request_id", "processing_time", "model_version", "gpu_memory_used"}
        assert isinstance(details["processing_time"], float) and details["model_version"].startswith("v")


BAD_TEXTS = {
    b'{"text": ""}': "text: 비어 있습니다",
    b'{"text": "  \\n "}': "text: 비어 있습니다",
    b'{"text": 5}': "text: 문자열이어야 합니다",
    b'{"text": null}': "text: 문자열이어야 합니다",
    b"{}": "text: 필수 항목입니다",
    b'{"text": "a", "model": "b"}': "model: 알 수 없는 항목입니다",
    b"[]": "객체여야 합니다",
    b'"text"': "객체여야 합니다",
    json.dumps({"text": "가" * 2001}).encode(): "text: 너무 깁니다",
    b'{"text": "\\ud800"}': "JSON",
    b'{"text": NaN}': "JSON",
    b'{"text": "a", "text": "b"}': "JSON",
    b'{"text": "a"': "JSON",
    b"\xff\xfe": "JSON",
    b"": "JSON",
    b"[" * 100_000: "JSON",
}


@pytest.mark.parametrize("path", ["/infer", "/stream/infer"])
@pytest.mark.parametrize("body", BAD_TEXTS)
def test_a_bad_request_is_400_in_the_documents_shape(toy, path, body) -> None:
    with toy.open() as client:
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    told = answer.json()
    assert answer.status_code == 400 and set(told) == {"error", "message", "details"}
    assert told["error"] == "BAD_REQUEST" and told["message"].startswith("잘못된 요청 형식입니다: ")
    assert BAD_TEXTS[body] in told["message"] and told["details"]["request_id"]


def test_other_errors_have_the_documents_codes(toy) -> None:
    with toy.open() as client:
        answers = [
            client.post("/infer", json={"text": "고장"}),
            client.post("/infer", json={"text": "기억"}),
            client.post("/infer", content=b'{"text": "a"}', headers={"Content-Type": "text/plain"}),
            client.post("/infer", json={"text": "a" * 300_000}),
            client.post("/infer/image", json={"image_base64": "a" * (16 * 2**20)}),
            client.get("/infer"),
            client.get("/nowhere"),
        ]
    told = [(answer.status_code, answer.json()["error"]) for answer in answers]
    assert told == [
        (500, "INTERNAL_SERVER_ERROR"),
        (507, "INSUFFICIENT_STORAGE"),
        (415, "UNSUPPORTED_MEDIA_TYPE"),
        (413, "PAYLOAD_TOO_LARGE"),
        (413, "PAYLOAD_TOO_LARGE"),
        (405, "METHOD_NOT_ALLOWED"),
        (404, "NOT_FOUND"),
    ]
    assert all(set(answer.json()) == {"error", "message", "details"} for answer in answers)
    assert "고장" not in answers[0].text


@pytest.mark.parametrize(("path", "most"), [("/infer", 2**18), ("/infer/batch", 2**20), ("/stream/infer", 2**18)])
def test_a_text_too_large_is_refused_before_it_is_sent(toy, path, most) -> None:
    def announced(size: int) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
        with socket.create_connection(("127.0.0.1", toy.port), 5) as client:
            client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n".encode())
            client.settimeout(0.5 if size <= most else 5)
            try:
                return client.recv(65536)
            except TimeoutError:
                return b"waits for the body"

    assert announced(most) == b"waits for the body"
    answer = announced(most + 1)
    assert answer.startswith(b"HTTP/1.1 413 ") and b'"error":"PAYLOAD_TOO_LARGE"' in answer


def test_batches(toy) -> None:
    items = [{"id": f"item_{n}", "text": ["모던", "클래식", "미니멀"][n % 3] * (n % 4)} for n in range(100)]
    with toy.open() as client:
        body = client.post("/infer/batch", json={"items": items, "batch_size": 10}).json()
        empty = [item["id"] for item in items if not item["text"]]
        assert [result["id"] for result in body["results"]] == [item["id"] for item in items]
        assert [result["id"] for result in body["results"] if "error" in result] == empty
        assert (body["total_processed"], body["failed"]) == (100 - len(empty), len(empty))
        styles = [result.get("style") for result in body["results"]]
        assert styles == [["모던", "클래식", "미니멀"][n % 3] if n % 4 else None for n in range(100)]


def test_a_bad_item_fails_alone(toy) -> None:
    given = ["모던", "", None, 5, "가" * 2001, "클래식"]
    items = [{"id": str(n), "text": text} for n, text in enumerate(given)] + [{"id": "none"}]
    with toy.open() as client:
        answer = client.post("/infer/batch", json={"items": items})
        none_good = client.post("/infer/batch", json={"items": [{"id": "a", "text": ""}]})
        broken = {"items": [{"id": "a", "text": "고장"}, {"id": "b", "text": "모던"}], "batch_size": 1}
        half = client.post("/infer/batch", json=broken)
        both = client.post("/infer/batch", json=broken | {"batch_size": 2})
    results = answer.json()["results"]
    assert [bool(result.get("error")) for result in results] == [False, True, True, True, True, False, True]
    assert results[1]["error"] == "text: 비어 있습니다" and results[3]["error"] == "text: 문자열이어야 합니다"
    assert none_good.status_code == 200 and none_good.json()["total_processed"] == 0
    assert half.status_code == 200 and [r.get("style") for r in half.json()["results"]] == [None, "모던"]
    assert both.status_code == 200 and both.json()["results"] == half.json()["results"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"items": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}, "서로 달라야"),
        ({"items": []}, "items"),
        ({"items": [{"id": str(n), "text": "x"} for n in range(101)]}, "items"),
        ({"items": [{"text": "x"}]}, "id: 필수"),
        ({"items": [{"id": "", "text": "x"}]}, "id: 비어"),
        ({"items": [{"id": 1, "text": "x"}]}, "id: 문자열"),
        ({"items": [{"id": "a", "text": "x", "image_url": "y"}]}, "알 수 없는"),
        ({"items": [{"id": "a", "text": "x"}], "batch_size": 0}, "batch_size"),
        ({"items": [{"id": "a", "text": "x"}], "batch_size": True}, "batch_size: 정수"),
        ({"items": {"a": "x"}}, "items: 배열"),
        ({"items": [{"id": str(n), "text": "x"} for n in range(13)], "batch_size": 1}, "12개까지"),
    ],
)
def test_a_bad_batch_is_400(toy, asked, said) -> None:
    with toy.open() as client:
        answer = client.post("/infer/batch", json=asked)
    assert answer.status_code == 400 and said in answer.json()["message"], answer.text


def test_results_are_kept_for_whoever_asks_the_same_again(toy, cdn) -> None:
    cdn.files["/twice.jpg"] = cdn.files["/room_images/room_123.jpg"]
    bodies = {
        "/infer": {"text": "모던 모던 캐시"},
        "/infer/batch": {"items": [{"id": "a", "text": "모던 캐시"}]},
        "/infer/image": {"image_url": cdn.url("/twice.jpg")},
    }
    with toy.open() as client, toy.open(OTHER_KEY) as other:
        for path, body in bodies.items():
            first, again, others = (
                client.post(path, json=body),
                client.post(path, json=body),
                other.post(path, json=body),
            )
            assert [each.headers["x-cache"] for each in (first, again, others)] == ["miss", "hit", "miss"], path
            assert first.headers["x-model-version"] == "style@v1.2.0"
            told = [{k: v for k, v in each.json().items() if k != "processing_time"} for each in (first, again)]
            assert told[0] == told[1]


def test_results_are_forgotten_after_their_time(tmp_path) -> None:
    with styling(tmp_path, toy={}, cache_ttl_s=0.3) as server, server.open() as client:
        server.wait()
        client.post("/infer", json={"text": TEXT})
        server.wait_until(lambda: client.post("/infer", json={"text": TEXT}).headers["x-cache"] == "miss", 5)


def test_nothing_of_a_request_is_logged_or_told_back(toy, cdn) -> None:
    cdn.files["/canary-7f3.jpg"] = b"canary-7f3"
    with toy.open() as client:
        answers = [
            client.post("/infer", json={"text": ["canary-7f3"]}),
            client.post("/infer", json={"canary-8a1": "a", "text": "b"}),
            client.post("/infer/image", json={"image_url": cdn.url("/canary-7f3.jpg?canary-7f3")}),
            client.post("/infer/image", json={"image_url": "http://canary-7f3.invalid/?token=canary-9c2"}),
            client.post("/infer/image", json={"image_url": cdn.url("/"), "task": "canary-7f3"}),
            client.post("/infer/batch", json={"items": [{"id": "a", "text": 5}, {"id": "a", "text": "canary-7f3"}]}),
            client.post("/infer", json={"text": "고장 canary-7f3"}),
        ]
        assert client.post("/infer", json={"text": "canary-7f3"}).status_code == 200
        client.get("/stream", params={"interval": "canary-7f3"})
        client.get("/infer?text=canary-7f3")
    assert [answer.status_code for answer in answers] == [400, 400, 422, 502, 400, 400, 500]
    assert not any("canary-7f3" in answer.text for answer in answers)
    log = toy.log().replace("canary-7f3.invalid", "HOST")  # of a URL, the host is told
    assert "canary" not in log


def test_open_pages(toy) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/healthz", "/readyz", "/metrics"):
        assert httpx.get(toy.url + path).status_code == 200
    described = httpx.get(toy.url + "/openapi.json").json()["info"]
    assert (described["title"], described["version"]) == ("DL API", "v1.0.0")
