"""The same model through the Open Inference Protocol's own client."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tests.contracts.style.conftest import KEY
from tests.contracts.style.toy import STYLES
from tritonclient.utils import InferenceServerException

TEXTS = ["모던 모던", "클래식", "아무것도", *(f"미니멀 {n}" for n in range(20))]
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def client(toy):
    with triton.InferenceServerClient(f"127.0.0.1:{toy.port}") as client:
        yield client


def asked(texts: list[str], binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_), binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary", [True, False])
def test_texts(toy, client, binary) -> None:
    names = ("score", "confidence", "style")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    result = client.infer("style", [asked(TEXTS, binary)], outputs=outputs, headers=dict(HEADERS), request_id="r-1")
    with toy.open() as plain:
        ones = [plain.post("/infer", json={"text": text}).json() for text in TEXTS]
    np.testing.assert_allclose(result.as_numpy("score"), [one["score"] for one in ones], atol=1e-4)
    np.testing.assert_allclose(result.as_numpy("confidence"), [one["confidence"] for one in ones], atol=1e-4)
    assert [STYLES[place] for place in result.as_numpy("style")] == [one["style"] for one in ones]
    assert result.get_response()["id"] == "r-1" and result.get_response()["model_version"] == "v1.2.0"


def test_metadata_and_versions(client) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("style")
    metadata = client.get_model_metadata("style")
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [(output["name"], output["datatype"]) for output in metadata["outputs"]] == [
        ("score", "FP32"),
        ("confidence", "FP32"),
        ("style", "INT32"),
    ]
    assert metadata["versions"] == ["v1.2.0"] and metadata["parameters"]["styles"] == list(STYLES)
    client.infer("style", [asked(TEXTS)], model_version="v1.2.0", headers=dict(HEADERS))
    with pytest.raises(InferenceServerException):
        client.infer("style", [asked(TEXTS)], model_version="v9", headers=dict(HEADERS))


@pytest.mark.parametrize("texts", [[""], ["모던", " "], ["가" * 2001], ["모던"] * 101])
def test_texts_that_are_not_taken(client, texts) -> None:
    with pytest.raises(InferenceServerException) as told:
        client.infer("style", [asked(texts)], headers=dict(HEADERS))
    assert told.value.status() == "400"


def test_a_model_that_fails(client) -> None:
    for texts, status in ((["고장"], "500"), (["모던", "고장"], "500"), (["기억"], "507")):
        with pytest.raises(InferenceServerException) as told:
            client.infer("style", [asked(texts)], headers=dict(HEADERS))
        assert told.value.status() == status


def test_it_has_its_own_error_shape(toy) -> None:
    assert set(httpx.get(toy.url + "/v2/models/nope").json()) == {"error"}
    assert httpx.get(toy.url + "/v2/models/nope/ready").status_code == 404
