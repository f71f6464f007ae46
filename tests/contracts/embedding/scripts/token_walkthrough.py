"""Document 003's test_with_token.py: the whole service through one token, as a client would use it."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request

BASE = os.environ.get("BASE", "http://localhost:8000")
TOKEN = os.environ["JWT_TOKEN"]


def call(path: str, body: object = None, token: str | None = TOKEN) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(BASE + path, json.dumps(body).encode() if body is not None else None)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


status, health = call("/health", token=None)
assert status == 200 and health["model_loaded"], health
status, one = call("/embed", {"text": "안녕하세요, 반갑습니다!"})
assert status == 200 and len(one["embedding"]) == one["dimension"], one  # type: ignore[arg-type]
status, many = call("/batch-embed", {"texts": ["첫 번째", "두 번째", "세 번째"]})
assert status == 200 and many["count"] == len(many["embeddings"]) == 3, many  # type: ignore[arg-type]
assert call("/embed", {"text": "x"}, token=None)[0] == 401
assert call("/embed", {"text": ""})[0] == 422
assert call("/embed", {})[0] == 422
print("all passed")
