"""Document 003, line by line, against a real `maru serve embedding`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

SCRIPTS = Path(__file__).parent / "scripts"
GREETING = "안녕하세요, 반갑습니다!"


@pytest.fixture(scope="module")
def environment(embedding):
    """What the document's scripts are run with: a token from the first of them."""
    maru = Path(sys.executable).with_name("maru")
    settings = {
        "PATH": os.environ["PATH"], "MARU": str(maru), "BASE": embedding.url, "MARU_HOME": str(embedding.home),
        "SUPABASE_JWT_SECRET": "tests-sign-their-tokens-with-this-0123456789",
    }  # fmt: skip
    token = subprocess.run([SCRIPTS / "get_token.sh"], env=settings, capture_output=True, text=True, check=True)
    return settings | {"JWT_TOKEN": token.stdout.strip()}


def test_its_curl_lines_run_unchanged(environment) -> None:
    run = subprocess.run([SCRIPTS / "test_api.sh"], env=environment, capture_output=True, text=True, check=True)
    health, one, many, *metrics = run.stdout.splitlines()
    assert json.loads(health)["status"] == "healthy"
    assert len(json.loads(one)["embedding"]) == json.loads(one)["dimension"] == 384
    assert [len(vector) for vector in json.loads(many)["embeddings"]] == [384] * 3
    assert any(line.startswith("embed_requests_total") for line in metrics)


def test_its_integration_script_passes(environment) -> None:
    script = [sys.executable, SCRIPTS / "token_walkthrough.py"]
    run = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == "all passed\n", run.stderr


def test_embed(embedding) -> None:
    with embedding.client() as client:
        answer = client.post("/embed", json={"text": GREETING})
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"embedding", "dimension", "model", "tokens"}
    assert body["model"] == "all-MiniLM-L6-v2" and body["dimension"] == len(body["embedding"]) == 384
    assert body["tokens"] > 2
    assert np.linalg.norm(body["embedding"]) == pytest.approx(1, abs=1e-5)


def test_batch_embed_keeps_the_order_and_agrees_with_embed(embedding) -> None:
    texts = ["첫 번째", "두 번째", "세 번째", "a much longer text about wooden floors in old Korean houses"]
    with embedding.client() as client:
        many = client.post("/batch-embed", json={"texts": texts}).json()
        ones = [client.post("/embed", json={"text": text}).json() for text in texts]
    assert set(many) == {"embeddings", "dimension", "count", "model", "tokens"}
    assert many["count"] == 4 and many["tokens"] == sum(one["tokens"] for one in ones)
    np.testing.assert_allclose(many["embeddings"], [one["embedding"] for one in ones], atol=1e-5)


def test_near_texts_have_near_vectors(embedding) -> None:
    texts = ["A man is eating food.", "A man eats something.", "The stock market fell sharply today."]
    with embedding.client() as client:
        a, b, c = np.array(client.post("/batch-embed", json={"texts": texts}).json()["embeddings"])
    assert a @ b > 0.7 > 0.3 > a @ c


def test_more_texts_than_the_batch_size(embedding) -> None:
    texts = [f"text number {n}" for n in range(2048)]
    with embedding.client() as client:
        body = client.post("/batch-embed", json={"texts": texts}).json()
        last = client.post("/embed", json={"text": texts[-1]}).json()
    assert body["count"] == 2048
    np.testing.assert_allclose(body["embeddings"][-1], last["embedding"], atol=1e-5)


def test_options(embedding) -> None:
    with embedding.client() as client:
        raw = client.post("/embed", json={"text": GREETING, "normalize": False}).json()["embedding"]
        unit = client.post("/embed", json={"text": GREETING}).json()["embedding"]
        long = {"text": "word " * 2000}
        cut = client.post("/embed", json=long)
        refused = client.post("/embed", json=long | {"truncate": False})
        short = client.post("/embed", json={"text": GREETING, "dimensions": 128})
        task = client.post("/embed", json={"text": GREETING, "task": "no such task"})
    np.testing.assert_allclose(np.array(raw) / np.linalg.norm(raw), unit, atol=1e-5)
    assert cut.status_code == 200 and cut.json()["tokens"] == 256
    assert refused.status_code == 413 and "detail" in refused.json()
    assert short.status_code == 422  # this model was not trained for shorter vectors
    assert task.status_code == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"text": ""}', 422),
        (b'{"text": "  \\n "}', 422),
        (b'{"text": 5}', 422),
        (b'{"text": null}', 422),
        (b"{}", 422),
        (b"[]", 422),
        (b'"text"', 422),
        (b'{"text": "a", "dimensions": 0}', 422),
        (b'{"text": "a", "dimensions": true}', 422),
        (b'{"text": "a", "normalize": "yes"}', 422),
        (b'{"text": "\\ud800"}', 400),
        (b'{"text": NaN}', 400),
        (b'{"text": "a", "text": "b"}', 400),
        (b'{"text": "a"', 400),
        (b"\xff\xfe", 400),
        (b"", 400),
        (b"[" * 100_000, 400),
    ],
)
def test_bad_input_is_told_in_the_documents_shape(embedding, body, status) -> None:
    with embedding.client() as client:
        answer = client.post("/embed", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str) and answer.json()["detail"]


def test_a_list_is_as_strict_as_a_text(embedding) -> None:
    with embedding.client() as client:
        for texts in ([], [""], ["a", ""], ["a", 1], "a", ["a"] * 2049):
            assert client.post("/batch-embed", json={"texts": texts}).status_code == 422, texts


def test_nothing_of_a_refused_text_is_told_or_logged(embedding) -> None:
    with embedding.client() as client:
        answer = client.post("/embed", json={"text": ["canary-5bd1"], "task": "canary-5bd1" * 20})
        fine = client.post("/embed", json={"text": "canary-5bd1"})
    assert answer.status_code == 422 and fine.status_code == 200
    assert "canary" not in answer.text and "canary" not in embedding.log()


def test_a_body_too_large(embedding) -> None:
    with embedding.client() as client:
        answer = client.post("/embed", json={"text": "x" * (9 * 2**20)})
    assert answer.status_code == 413 and "detail" in answer.json()


def test_another_content_type(embedding) -> None:
    with embedding.client() as client:
        answer = client.post("/embed", content=b'{"text": "a"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


GUARDED = ["/embed", "/batch-embed", "/v1/embeddings", "/tokenize", "/v2/models/embedding/infer"]


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("credential", [None, "Bearer", "Bearer abc", "Basic dXNlcjpwYXNz", "Bearer a.b.c"])
def test_a_token_is_required(embedding, path, credential) -> None:
    headers = {"Authorization": credential} if credential else {}
    answer = httpx.post(embedding.url + path, json={"text": "a"}, headers=headers)
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    assert challenge == ("Bearer" if credential is None else 'Bearer error="invalid_token"')


def test_the_documents_metrics(embedding) -> None:
    with embedding.client() as client:
        client.post("/embed", json={"text": "counted"})
        client.post("/embed", json={"text": ""})
        text = client.get("/metrics").text
    for name in ("embed_requests_total", "embed_request_duration_seconds_count", "embed_errors_total"):
        assert re.search(rf'^{name}{{.*endpoint="/embed".*}} [1-9]', text, re.M), name


def test_health_needs_no_token_and_names_the_model(embedding) -> None:
    body = httpx.get(embedding.url + "/health").json()
    assert body["status"] == "healthy" and body["model_loaded"] is True
    assert body["model"] == "all-MiniLM-L6-v2" and body["quantization"] == "int8" and body["dimension"] == 384


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/healthz", "/readyz", "/metrics"])
def test_open_pages(embedding, path) -> None:
    assert httpx.get(embedding.url + path).status_code == 200


def test_the_receipt(embedding) -> None:
    with embedding.client() as client:
        first = client.post("/embed", json={"text": "a receipt, please"}, headers={"X-Request-ID": "mine-1"})
        again = client.post("/embed", json={"text": "a receipt, please"})
        door = client.post("/v1/embeddings", json={"input": "a receipt, please", "model": "all-MiniLM-L6-v2"})
    assert first.headers["x-request-id"] == "mine-1"
    assert first.headers["x-cache"] == "miss" and again.headers["x-cache"] == door.headers["x-cache"] == "hit"
    assert first.headers["x-model-version"].startswith("all-MiniLM-L6-v2@")
    assert re.fullmatch(r"queue;dur=[\d.]+, batch;dur=[\d.]+, compute;dur=[\d.]+", first.headers["server-timing"])
    assert again.json() == first.json()
    line = next(json.loads(line) for line in embedding.log().splitlines() if '"mine-1"' in line)
    assert line["route"] == "/embed" and line["status"] == 200 and line["principal"] == "user:tester"
    assert line["compute_ms"] > 0


def test_results_are_not_shared_between_users(embedding) -> None:
    with embedding.client("alice") as alice, embedding.client("bob") as bob:
        alice.post("/embed", json={"text": "only for one"})
        assert alice.post("/embed", json={"text": "only for one"}).headers["x-cache"] == "hit"
        assert bob.post("/embed", json={"text": "only for one"}).headers["x-cache"] == "miss"


def test_tokenize(embedding) -> None:
    with embedding.client() as client:
        body = client.post("/tokenize", json={"texts": ["hello world", GREETING]}).json()
        tokens = client.post("/embed", json={"text": GREETING}).json()["tokens"]
    assert body["tokens"][0] == [101, 7592, 2088, 102]
    assert body["counts"][1] == tokens


def test_methods(embedding) -> None:
    wrong = httpx.get(embedding.url + "/embed")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST" and "detail" in wrong.json()
    head = httpx.head(embedding.url + "/health")
    assert head.status_code == 200 and head.content == b""
    missing = httpx.get(embedding.url + "/no/such/page")
    assert missing.status_code == 404 and "detail" in missing.json()
