"""The OpenAPI document is true: schemathesis finds no request whose answer it did not foretell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.parametrize("seed", [1])
def test_schemathesis(forecast, seed, tmp_path) -> None:
    before = len(forecast.log())
    run = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIGURATION,
            "run", forecast.url + "/openapi.json", "--url", forecast.url,
            "--seed", str(seed), "--max-examples", "30", "--workers", "1",  # gh-106905: more fail at random
            "--suppress-health-check", "all", "--no-color",
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
    said = forecast.log()[before:]
    assert "request_failed" not in said and "INTERNAL_ERROR" not in said


def test_the_documents_own_example_is_answered(forecast) -> None:
    schemas = httpx.get(forecast.url + "/openapi.json").json()["components"]["schemas"]
    for path, name in (("/predict", "PredictPayload"), ("/predict/batch", "BatchPayload")):
        (example,) = schemas[name]["examples"]
        assert httpx.post(forecast.url + path, json=example).status_code == 200


def test_every_route_is_documented_with_its_errors(forecast) -> None:
    document = httpx.get(forecast.url + "/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert {"200", "400", "500"} <= set(operation["responses"]), (method, path)
            assert "422" not in operation["responses"], (method, path)
    assert {"/health", "/reload", "/predict", "/predict/batch", "/hooks/mlflow"} <= document["paths"].keys()
    assert not document["paths"]["/reload"]["post"]["requestBody"].get("required")
