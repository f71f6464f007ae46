"""The OpenAPI document is true: schemathesis finds no request whose answer it did not foretell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.parametrize("seed", [1])
def test_schemathesis(embedding, seed, tmp_path) -> None:
    run = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIGURATION,
            "run", embedding.url + "/openapi.json", "--url", embedding.url,
            "--seed", str(seed), "--max-examples", "30", "--workers", "2",
            "--header", f"Authorization: Bearer {embedding.token()}",
            "--suppress-health-check", "all", "--no-color",
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr


def test_every_route_is_documented_with_its_errors(embedding) -> None:
    document = httpx.get(embedding.url + "/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert {"200", "400", "500"} <= set(operation["responses"]), (method, path)
            if "security" in operation:
                assert {"401", "403", "429", "503"} <= set(operation["responses"]), (method, path)
    paths = document["paths"].items()
    guarded = {path for path, operations in paths if any("security" in each for each in operations.values())}
    assert {"/embed", "/batch-embed", "/tokenize", "/v1/embeddings", "/v2/models/{model}/infer"} <= guarded
