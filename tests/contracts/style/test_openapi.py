"""The OpenAPI document is true: schemathesis finds no request whose answer it did not foretell."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contracts.conformance import errors_documented, examples_answered, foretold, guarded
from tests.contracts.style.conftest import KEY

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
ENDLESS = ("--exclude-path", "/stream")


@pytest.mark.parametrize("seed", [1])
def test_schemathesis(toy, seed, tmp_path) -> None:
    foretold(toy, CONFIGURATION, tmp_path, *ENDLESS, "--header", f"Authorization: Bearer {KEY}", seed=seed)


def test_the_documents_own_examples_are_answered(toy) -> None:
    sent = {"/infer": "InferRequest", "/infer/batch": "BatchRequest", "/stream/infer": "StreamInferRequest"}
    with toy.open() as client:
        examples_answered(client, sent)


def test_every_route_is_documented_with_its_errors(toy) -> None:
    document = errors_documented(toy)
    named = {"/infer", "/infer/image", "/infer/batch", "/stream", "/stream/infer"}
    assert named | {"/healthz", "/readyz"} <= document["paths"].keys()
    assert guarded(document) == named | {"/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"}
    assert {"422", "502"} <= document["paths"]["/infer/image"]["post"]["responses"].keys()


def test_an_image_may_be_a_form(toy) -> None:
    document = errors_documented(toy)
    content = document["paths"]["/infer/image"]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json", "multipart/form-data"}
    assert content["multipart/form-data"]["schema"]["required"] == ["file"]
