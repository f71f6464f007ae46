"""The OpenAPI document is true: schemathesis finds no request whose answer it did not foretell."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contracts.conformance import errors_documented, examples_answered, foretold
from tests.contracts.recommend.conftest import RecommendServer

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.parametrize("seed", [1])
def test_schemathesis(recommend: RecommendServer, seed: int, tmp_path: Path) -> None:
    foretold(recommend, CONFIGURATION, tmp_path, seed=seed)


def test_its_examples_are_answered(recommend: RecommendServer) -> None:
    sent = {"/recommend": "RecommendRequest", "/batch_recommend": "BatchRequest", "/events": "FeedbackRequest"}
    with recommend.open() as client:
        examples_answered(client, sent)


def test_every_route_is_documented_with_its_errors(recommend: RecommendServer) -> None:
    paths = errors_documented(recommend)["paths"]
    for path, operations in paths.items():
        assert not any("422" in operation["responses"] for operation in operations.values()), path
    documented = {"/health", "/recommend", "/batch_recommend", "/items/{aid}/embedding", "/stats"}
    assert documented | {"/sessions/{session_id}/embedding", "/events"} <= paths.keys()
    for path in ("/items/{aid}/embedding", "/sessions/{session_id}/embedding"):
        assert "404" in paths[path]["get"]["responses"]
