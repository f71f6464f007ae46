"""The OpenAPI document is true: schemathesis finds no request whose answer it did not foretell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.contracts.llm.conftest import generating, shelve

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A server of models that can all be loaded."""
    home = tmp_path_factory.mktemp("sound")
    shelve(home, "echo", "other")
    with generating(home, scripted=True) as server:
        server.wait()
        yield server


@pytest.mark.parametrize("seed", [1])
def test_schemathesis(sound, seed, tmp_path) -> None:
    before = len(sound.log())
    run = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIGURATION,
            "run", sound.url + "/openapi.json", "--url", sound.url,
            "--seed", str(seed), "--max-examples", "15", "--workers", "1",  # gh-106905: more fail at random
            "--suppress-health-check", "all", "--no-color",
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
    said = sound.log()[before:]
    assert "request_failed" not in said and "INTERNAL_ERROR" not in said


def test_every_route_is_documented_with_its_errors(scripted) -> None:
    document = httpx.get(scripted.url + "/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert {"200", "400", "500"} <= set(operation["responses"]), (method, path)
    documented = {
        "/api/v1/generate", "/api/v1/generate/stream", "/api/v1/inference/stream", "/api/v1/models",
        "/api/v1/models/{model_id}", "/v1/completions", "/v1/chat/completions", "/v1/models",
    }  # fmt: skip
    assert documented <= document["paths"].keys()
    refusals = {"404", "413", "422", "429", "503", "504", "507"}
    for path in ("/api/v1/generate", "/api/v1/generate/stream", "/v1/chat/completions"):
        assert refusals <= set(document["paths"][path]["post"]["responses"])
    assert document["info"]["title"] == "AI API"
