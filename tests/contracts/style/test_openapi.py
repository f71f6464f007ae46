"""The OpenAPI document is true: schemathesis finds no request whose answer it did not foretell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.contracts.style.conftest import KEY

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.parametrize("seed", [1])
def test_schemathesis(toy, seed, tmp_path) -> None:
    before = len(toy.log())
    run = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIGURATION,
            "run", toy.url + "/openapi.json", "--url", toy.url,
            "--exclude-path", "/stream",  # which does not end
            "--seed", str(seed), "--max-examples", "30", "--workers", "1",
            "--header", f"Authorization: Bearer {KEY}",
            "--suppress-health-check", "all", "--no-color",
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
    said = toy.log()[before:]
    assert "request_failed" not in said and "INTERNAL_ERROR" not in said


def test_the_documents_own_examples_are_answered(toy) -> None:
    schemas = httpx.get(toy.url + "/openapi.json").json()["components"]["schemas"]
    with toy.open() as client:
        for path, name in (
            ("/infer", "InferRequest"), ("/infer/batch", "BatchRequest"), ("/stream/infer", "StreamInferRequest"),
        ):  # fmt: skip
            (example,) = schemas[name]["examples"]
            assert client.post(path, json=example).status_code == 200


def test_every_route_is_documented_with_its_errors(toy) -> None:
    document = httpx.get(toy.url + "/openapi.json").json()
    guarded = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert {"200", "400", "500"} <= set(operation["responses"]), (method, path)
            if "security" in operation:
                guarded.add(path)
                assert {"401", "403", "429", "503"} <= set(operation["responses"]), (method, path)
    named = {"/infer", "/infer/image", "/infer/batch", "/stream", "/stream/infer"}
    assert named | {"/healthz", "/readyz"} <= document["paths"].keys()
    assert guarded == named | {"/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"}
    assert {"422", "502"} <= document["paths"]["/infer/image"]["post"]["responses"].keys()


def test_an_image_may_be_a_form(toy) -> None:
    document = httpx.get(toy.url + "/openapi.json").json()
    content = document["paths"]["/infer/image"]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json", "multipart/form-data"}
    assert content["multipart/form-data"]["schema"]["required"] == ["file"]
