"""The OpenAPI document is true: schemathesis finds no request whose answer it did not foretell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.contracts.recommend.conftest import RecommendServer

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.parametrize("seed", [1])
def test_schemathesis(recommend: RecommendServer, seed: int, tmp_path: Path) -> None:
    before = len(recommend.log())
    run = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIGURATION,
            "run", recommend.url + "/openapi.json", "--url", recommend.url,
            "--seed", str(seed), "--max-examples", "30", "--workers", "1",
            "--suppress-health-check", "all", "--no-color",
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
    said = recommend.log()[before:]
    assert "request_failed" not in said and "INTERNAL_ERROR" not in said


def test_its_examples_are_answered(recommend: RecommendServer) -> None:
    schemas = httpx.get(recommend.url + "/openapi.json").json()["components"]["schemas"]
    for path, name in (
        ("/recommend", "RecommendRequest"),
        ("/batch_recommend", "BatchRequest"),
        ("/events", "FeedbackRequest"),
    ):
        (example,) = schemas[name]["examples"]
        assert httpx.post(recommend.url + path, json=example).status_code == 200


def test_every_route_is_documented_with_its_errors(recommend: RecommendServer) -> None:
    document = httpx.get(recommend.url + "/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert {"200", "400", "500"} <= set(operation["responses"]), (method, path)
            assert "422" not in operation["responses"], (method, path)
    documented = {"/health", "/recommend", "/batch_recommend", "/items/{aid}/embedding", "/stats"}
    assert documented | {"/sessions/{session_id}/embedding", "/events"} <= document["paths"].keys()
    for path in ("/items/{aid}/embedding", "/sessions/{session_id}/embedding"):
        assert "404" in document["paths"][path]["get"]["responses"]
