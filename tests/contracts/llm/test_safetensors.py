"""The same doors to a folder of safetensors, run by transformers: MARU_REFERENCE_PYTHON names a Python that has it."""

from __future__ import annotations

import os

import httpx
import openai
import pytest
from tests.contracts.llm.conftest import WORDS, generating
from tests.fixtures_llm import reciting_folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    python = os.environ.get("MARU_REFERENCE_PYTHON")
    if python is None:
        pytest.fail("MARU_REFERENCE_PYTHON must name an interpreter that has torch, transformers and psutil")
    home = tmp_path_factory.mktemp("safetensors")
    reciting_folder(home / "models" / "reciter", WORDS)
    with generating(home, python=python) as server:
        server.wait(timeout_s=120)
        yield server


def test_the_document(server) -> None:
    asked = {"model_id": "reciter", "prompt": "?", "max_tokens": 50, "temperature": 0}
    data = httpx.post(server.url + "/api/v1/generate", json=asked, timeout=60).json()["data"]
    assert (data["text"], data["finish_reason"]) == (WORDS, "stop")
    streamed = httpx.post(server.url + "/api/v1/generate/stream", json=asked, timeout=60).text
    tokens = streamed.partition("event: done")[0].split("\n\n")[:-1]
    assert "".join(token.removeprefix("data: ") for token in tokens) == WORDS
    assert server.status("reciter")["type"] == "safetensors"


def test_openai(server) -> None:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60) as client:
        chat = client.chat.completions.create(model="reciter", messages=[{"role": "user", "content": "Count."}])
        assert chat.choices[0].message.content == WORDS
        short = client.completions.create(model="reciter", prompt=["?", "one"], max_tokens=2, temperature=0)
        assert [choice.finish_reason for choice in short.choices] == ["length", "length"]
        with pytest.raises(openai.APIStatusError) as told:
            client.completions.create(model="reciter", prompt="x" * 3000, max_tokens=5)
        assert told.value.status_code == 413
