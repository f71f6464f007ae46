"""The same model through the clients people already have."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import openai
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

TEXTS = ["the floor that joins every room", "마루", "a receipt"]


@pytest.fixture(scope="module")
def vectors(embedding):
    with embedding.client() as client:
        return np.array(client.post("/batch-embed", json={"texts": TEXTS}).json()["embeddings"])


@pytest.fixture
def official(embedding):
    with openai.OpenAI(base_url=embedding.url + "/v1", api_key=embedding.token(), max_retries=0) as client:
        yield client


def test_openai_client(official, vectors) -> None:
    # The official client asks for base64 by itself and decodes it.
    answer = official.embeddings.create(model="all-MiniLM-L6-v2", input=TEXTS)
    assert [one.index for one in answer.data] == [0, 1, 2]
    np.testing.assert_allclose([one.embedding for one in answer.data], vectors, atol=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 10
    plain = official.embeddings.create(model="all-MiniLM-L6-v2", input=TEXTS[0], encoding_format="float")
    np.testing.assert_allclose(plain.data[0].embedding, vectors[0], atol=1e-6)


def test_openai_token_arrays(embedding, official, vectors) -> None:
    with embedding.client() as client:
        tokens = client.post("/tokenize", json={"texts": TEXTS}).json()["tokens"]
    answer = official.embeddings.create(model="all-MiniLM-L6-v2", input=tokens)
    np.testing.assert_allclose([one.embedding for one in answer.data], vectors, atol=1e-5)
    one = official.embeddings.create(model="all-MiniLM-L6-v2", input=tokens[0])
    np.testing.assert_allclose(one.data[0].embedding, vectors[0], atol=1e-5)


def test_openai_base64_on_the_wire(embedding, vectors) -> None:
    with embedding.client() as client:
        asked = {"model": "embedding", "input": TEXTS[:1], "encoding_format": "base64"}
        body = client.post("/v1/embeddings", json=asked).json()
    vector = np.frombuffer(base64.b64decode(body["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(vector, vectors[0], atol=1e-6)
    assert body["object"] == "list" and body["model"] == "embedding"


def test_openai_errors(embedding, official) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        official.embeddings.create(model="no-such-model", input="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.UnprocessableEntityError):
        official.embeddings.create(model="all-MiniLM-L6-v2", input="a", dimensions=77)
    with pytest.raises(openai.UnprocessableEntityError):
        official.embeddings.create(model="all-MiniLM-L6-v2", input=[[999_999_999]])
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=embedding.url + "/v1", api_key="nope", max_retries=0).embeddings.create(
            model="all-MiniLM-L6-v2", input="a"
        )


def test_openai_models(official) -> None:
    (card,) = official.models.list().data
    assert card.id == "all-MiniLM-L6-v2" and official.models.retrieve(card.id).id == card.id
    with pytest.raises(openai.NotFoundError):
        official.models.retrieve("other")


@pytest.fixture
def open_inference(embedding):
    with triton.InferenceServerClient(f"127.0.0.1:{embedding.port}") as client:
        yield client


def asked(texts: list[str], binary: bool) -> triton.InferInput:
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_), binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_triton_client(embedding, open_inference, vectors, binary_in, binary_out) -> None:
    assert open_inference.is_server_live() and open_inference.is_server_ready()
    assert open_inference.is_model_ready("embedding")
    output = triton.InferRequestedOutput("embedding", binary_data=binary_out)
    result = open_inference.infer(
        "embedding", [asked(TEXTS, binary_in)], outputs=[output], request_id="r-1", headers=embedding.headers()
    )
    np.testing.assert_allclose(result.as_numpy("embedding"), vectors, atol=1e-6)
    assert result.get_response()["id"] == "r-1"


def test_triton_metadata_and_versions(embedding, open_inference, vectors) -> None:
    metadata = open_inference.get_model_metadata("all-MiniLM-L6-v2")
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert metadata["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]
    (version,) = metadata["versions"]
    result = open_inference.infer("embedding", [asked(TEXTS, True)], model_version=version, headers=embedding.headers())
    np.testing.assert_allclose(result.as_numpy("embedding"), vectors, atol=1e-6)
    with pytest.raises(InferenceServerException):
        open_inference.infer("embedding", [asked(TEXTS, True)], model_version="999", headers=embedding.headers())
    assert open_inference.get_server_metadata()["name"] == "maru"


@pytest.mark.parametrize(
    "request_body",
    [
        {"inputs": []},
        {"inputs": [{"name": "other", "shape": [1], "datatype": "BYTES", "data": ["a"]}]},
        {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a"]}]},
        {"inputs": [{"name": "text", "shape": [1], "datatype": "FP32", "data": [1.0]}]},
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [""]}]},
        {"inputs": [{"name": "text", "shape": [-1], "datatype": "BYTES", "data": ["a"]}]},
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}], "outputs": [{"name": "no"}]},
    ],
)
def test_tensors_that_do_not_fit(embedding, request_body) -> None:
    with embedding.client() as client:
        answer = client.post("/v2/models/embedding/infer", json=request_body)
    assert answer.status_code in (400, 422) and isinstance(answer.json()["error"], str)


@pytest.mark.parametrize("length", ["-1", "abc", "99999999", "3"])
def test_a_wrong_binary_header(embedding, length) -> None:
    with embedding.client() as client:
        answer = client.post(
            "/v2/models/embedding/infer", content=b'{"inputs": []}' + b"\x05\0\0\0hello",
            headers={"Inference-Header-Content-Length": length, "Content-Type": "application/octet-stream"},
        )  # fmt: skip
    assert answer.status_code == 400 and "error" in answer.json()


def test_other_models_are_not_found(embedding) -> None:
    assert httpx.get(embedding.url + "/v2/models/nope").status_code == 404
    assert httpx.get(embedding.url + "/v2/models/nope/ready").status_code == 404
