"""The OpenAPI document is true: schemathesis finds no request whose answer it did not foretell."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contracts.conformance import errors_documented, foretold
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
    foretold(sound, CONFIGURATION, tmp_path, seed=seed, examples=15)


def test_every_route_is_documented_with_its_errors(scripted) -> None:
    document = errors_documented(scripted)
    documented = {
        "/api/v1/generate", "/api/v1/generate/stream", "/api/v1/inference/stream", "/api/v1/models",
        "/api/v1/models/{model_id}", "/v1/completions", "/v1/chat/completions", "/v1/models",
    }  # fmt: skip
    assert documented <= document["paths"].keys()
    refusals = {"404", "413", "422", "429", "503", "504", "507"}
    for path in ("/api/v1/generate", "/api/v1/generate/stream", "/v1/chat/completions"):
        assert refusals <= set(document["paths"][path]["post"]["responses"])
    assert document["info"]["title"] == "AI API"
