"""The OpenAPI document is true: schemathesis finds no request whose answer it did not foretell."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contracts.conformance import errors_documented, foretold, guarded

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.parametrize("seed", [1])
def test_schemathesis(embedding, seed, tmp_path) -> None:
    bearer = f"Authorization: Bearer {embedding.token()}"
    foretold(embedding, CONFIGURATION, tmp_path, "--header", bearer, seed=seed)


def test_every_route_is_documented_with_its_errors(embedding) -> None:
    named = {"/embed", "/batch-embed", "/tokenize", "/v1/embeddings", "/v2/models/{model}/infer"}
    assert named <= guarded(errors_documented(embedding))
