"""The OpenAPI document is true: schemathesis finds no request whose answer it did not foretell."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contracts.conformance import errors_documented, examples_answered, foretold

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.parametrize("seed", [1])
def test_schemathesis(forecast, seed, tmp_path) -> None:
    foretold(forecast, CONFIGURATION, tmp_path, seed=seed)


def test_the_documents_own_example_is_answered(forecast) -> None:
    with forecast.open() as client:
        examples_answered(client, {"/predict": "PredictPayload", "/predict/batch": "BatchPayload"})


def test_every_route_is_documented_with_its_errors(forecast) -> None:
    paths = errors_documented(forecast)["paths"]
    for path, operations in paths.items():
        assert not any("422" in operation["responses"] for operation in operations.values()), path
    assert {"/health", "/reload", "/predict", "/predict/batch", "/hooks/mlflow"} <= paths.keys()
    assert not paths["/reload"]["post"]["requestBody"].get("required")
