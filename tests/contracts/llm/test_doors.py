"""The same models through the clients people already have."""

from __future__ import annotations

import json

import httpx
import numpy as np
import openai
import pytest
import tritonclient.http as triton
from tests.contracts.llm.conftest import WORDS
from tests.contracts.llm.scripted import CANARY
from tritonclient.utils import InferenceServerException

TOKENS = len(WORDS.split())
CHAT = [{"role": "user", "content": "Count."}]


def official(server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture
def client(real):
    with official(real) as client:
        yield client


@pytest.fixture
def wild(scripted):
    with official(scripted) as client:
        yield client


# Real models, in llama.cpp's workers


def test_completions(client) -> None:
    answer = client.completions.create(model="reciter", prompt="?", max_tokens=50, temperature=0)
    (choice,) = answer.choices
    assert choice.text == WORDS and choice.finish_reason == "stop"
    assert answer.object == "text_completion" and answer.model == "reciter" and answer.id.startswith("cmpl-")
    assert answer.usage.completion_tokens >= TOKENS
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_completions_streamed(client) -> None:
    chunks = list(
        client.completions.create(
            model="reciter", prompt="?", max_tokens=50, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == WORDS
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[0].usage is None
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens >= TOKENS
    assert len({chunk.id for chunk in chunks}) == 1
    plain = list(client.completions.create(model="reciter", prompt="?", max_tokens=50, stream=True))
    assert all(chunk.choices for chunk in plain)


def test_max_tokens_and_the_default(client) -> None:
    short = client.completions.create(model="sayer", prompt="?", max_tokens=3)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)
    assert client.completions.create(model="sayer", prompt="?").usage.completion_tokens == 16


def test_stop(client) -> None:
    for stop in (" four", [" four", "never"]):
        answer = client.completions.create(model="reciter", prompt="?", max_tokens=50, stop=stop)
        assert answer.choices[0].text == "one two three" and answer.choices[0].finish_reason == "stop"


def test_echo(client) -> None:
    asked = {"model": "reciter", "prompt": "one two", "max_tokens": 50, "echo": True}
    assert client.completions.create(**asked).choices[0].text == WORDS
    chunks = client.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == WORDS


def test_several_prompts_and_answers(client) -> None:
    answer = client.completions.create(model="reciter", prompt=["?", "one two three"], n=2, max_tokens=50)
    rest = WORDS.removeprefix("one two three")
    assert [choice.text for choice in answer.choices] == [WORDS, WORDS, rest, rest]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    one = client.completions.create(model="reciter", prompt="?", max_tokens=50).usage
    two = client.completions.create(model="reciter", prompt="?", n=2, max_tokens=50).usage
    assert two.prompt_tokens == one.prompt_tokens and two.completion_tokens == 2 * one.completion_tokens


def test_several_answers_streamed(client) -> None:
    texts = {0: "", 1: "", 2: ""}
    ended = []
    for chunk in client.completions.create(model="reciter", prompt="?", n=3, max_tokens=50, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.text
        if choice.finish_reason:
            ended.append(choice.index)
    assert texts == dict.fromkeys(range(3), WORDS) and sorted(ended) == [0, 1, 2]


def test_seed(client) -> None:
    def said(seed: int) -> str:
        answer = client.completions.create(model="slow", prompt="a", max_tokens=12, temperature=1.5, seed=seed)
        return answer.choices[0].text

    assert said(7) == said(7)
    assert len({said(seed) for seed in range(4)}) > 1


def test_logprobs(client) -> None:
    answer = client.completions.create(model="reciter", prompt="?", max_tokens=4, logprobs=2)
    found = answer.choices[0].logprobs
    assert "".join(found.tokens) == answer.choices[0].text and len(found.tokens) == 4
    assert all(value <= 0 for value in found.token_logprobs)
    assert [answer.choices[0].text.index(token) for token in found.tokens] == found.text_offset
    assert all(token in top and len(top) == 2 for token, top in zip(found.tokens, found.top_logprobs, strict=True))
    chat = client.chat.completions.create(
        model="reciter", messages=CHAT, max_tokens=4, logprobs=True, top_logprobs=3
    ).choices[0]
    assert "".join(token.token for token in chat.logprobs.content) == chat.message.content
    for token in chat.logprobs.content:
        assert len(token.top_logprobs) == 3 and token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob
        assert bytes(token.bytes).decode() == token.token


def test_token_ids(client) -> None:
    text = client.completions.create(model="reciter", prompt=[1, 2, 3], max_tokens=50).choices[0].text
    assert text == WORDS
    with pytest.raises(openai.UnprocessableEntityError):
        client.completions.create(model="reciter", prompt=[2**30], max_tokens=5)


def test_chat(client) -> None:
    answer = client.chat.completions.create(model="reciter", messages=CHAT)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", WORDS, "stop")
    assert answer.object == "chat.completion" and answer.usage.completion_tokens >= TOKENS
    again = client.chat.completions.create(model="reciter", messages=[*CHAT, choice.message, *CHAT])
    assert again.choices[0].message.content == WORDS


def test_chat_streamed(client) -> None:
    chunks = list(client.chat.completions.create(model="reciter", messages=CHAT, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices[0].finish_reason == "stop"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == WORDS
    with client.chat.completions.stream(model="reciter", messages=CHAT) as stream:
        assert stream.get_final_completion().choices[0].message.content == WORDS


def test_json_schema(client) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="slow", messages=CHAT, max_tokens=200, seed=1,
        response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}},
    )  # fmt: skip
    found = json.loads(answer.choices[0].message.content)
    assert isinstance(found["a"], bool) and found["b"] in ("x", "y") and found.keys() == {"a", "b"}


def test_a_prompt_that_is_too_long(client) -> None:
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as told:
            client.completions.create(model="reciter", prompt="x" * 3000, max_tokens=5, stream=stream)
        assert told.value.status_code == 413 and told.value.code == "input_too_long"


def test_a_damaged_file(client) -> None:
    with pytest.raises(openai.InternalServerError) as told:
        client.completions.create(model="spoilt", prompt="a")
    assert told.value.code == "model_load_failed" and "spoilt" not in [card.id for card in client.models.list()]


def test_the_documents_door_to_a_real_model(real) -> None:
    asked = {"model_id": "reciter", "prompt": "?", "max_tokens": 50, "stop": [" seven"]}
    data = httpx.post(real.url + "/api/v1/generate", json=asked, timeout=60).json()["data"]
    assert data["text"] == WORDS.removesuffix(" seven") and data["tokens_generated"] >= TOKENS - 1
    lines = httpx.post(real.url + "/api/v1/generate/stream", json=asked, timeout=60).text
    tokens = lines.partition("event: done")[0].split("\n\n")[:-1]
    assert "".join(token.removeprefix("data: ") for token in tokens) == data["text"]


def test_three_models_in_room_for_two(real, client) -> None:
    for name in ("reciter", "sayer", "slow", "reciter", "sayer"):
        assert client.completions.create(model=name, prompt="?", max_tokens=2).usage.completion_tokens > 0
        held = [model for model in httpx.get(real.url + "/api/v1/models").json()["data"] if model["loaded"]]
        assert name in [model["model_id"] for model in held] and len(held) <= 2
        assert all(model["memory_bytes"] > 2**20 for model in held)


# Scripted models: what real ones seldom say


def test_models(wild) -> None:
    cards = wild.models.list().data
    assert {card.id for card in cards} == {"echo", "other", "unloadable"}
    assert wild.models.retrieve("echo").created > 10**9
    with pytest.raises(openai.NotFoundError):
        wild.models.retrieve("nope")


def test_errors(wild) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        wild.completions.create(model="nope", prompt="a")
    assert missing.value.code == "model_not_found" and missing.value.type == "not_found_error"
    with pytest.raises(openai.InternalServerError) as full:
        wild.chat.completions.create(model="echo", messages=[{"role": "user", "content": "broken memory"}])
    assert full.value.status_code == 507
    with pytest.raises(openai.InternalServerError) as failed:
        wild.completions.create(model="echo", prompt="broken panic", n=3)
    assert failed.value.status_code == 500 and CANARY not in str(failed.value)


def test_an_error_in_a_stream_is_raised(wild) -> None:
    stream = wild.completions.create(model="echo", prompt="mixed memory", stream=True)
    assert next(stream).choices[0].text == "begun"
    with pytest.raises(openai.APIError, match="memory"):
        list(stream)
    with pytest.raises(openai.APIError, match="context holds 8"):
        list(wild.completions.create(model="echo", prompt="broken long", stream=True, n=2))


def test_tool_calls(wild) -> None:
    tools = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
        for name in ("look", "leap")
    ]
    asked = {"model": "echo", "messages": [{"role": "user", "content": "call"}], "tools": tools}
    message = wild.chat.completions.create(**asked).choices[0].message
    (call,) = message.tool_calls
    assert (call.id, call.function.name, json.loads(call.function.arguments)) == ("call-1", "look", {"at": "sky"})
    assert message.content is None
    with wild.chat.completions.stream(**asked) as stream:
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls
    assert json.loads(streamed.function.arguments) == {"at": "sky"}
    named = {"type": "function", "function": {"name": "leap"}}
    asked["messages"] = [{"role": "user", "content": "asked"}]
    said = wild.chat.completions.create(**asked, tool_choice=named).choices[0].message.content
    assert "'leap'" in said and "'look'" not in said and "'required'" in said


def test_what_chat_asks_reaches_the_model(wild) -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
        {"role": "user", "content": "asked"},
    ]
    said = wild.chat.completions.create(
        model="echo", messages=messages, response_format={"type": "json_object"}, metadata={"a": "b"}, user="me",
    ).choices[0].message.content  # fmt: skip
    assert "{'role': 'system', 'content': 'be brief'}" in said and said.endswith("{})")
    sampling = wild.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "sampling"}], logit_bias={"5": -100}, seed=3,
        max_completion_tokens=9, frequency_penalty=0.5, presence_penalty=-0.5, extra_body={"top_k": 5},
    ).choices[0].message.content  # fmt: skip
    for part in ("max_tokens=9", "logit_bias={5: -100", "seed=3", "top_k=5", "temperature=1.0", "=0.5", "=-0.5"):
        assert part in sampling


def test_text_and_figures_that_no_json_can_hold(wild) -> None:
    answer = wild.chat.completions.create(model="echo", messages=[{"role": "user", "content": "surrogates"}])
    tokens = answer.choices[0].logprobs.content
    assert answer.choices[0].message.content == "a?b"
    assert [(token.token, token.logprob) for token in tokens] == [("?", -9999.0), ("b", -9999.0)]


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]}]


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "king", "content": "a"}]},
        {"messages": IMAGE},
        {"messages": CHAT, "n": 0},
        {"messages": CHAT, "n": 17},
        {"messages": CHAT, "temperature": 3},
        {"messages": CHAT, "top_logprobs": 2},
        {"messages": CHAT, "stop": [""]},
        {"messages": CHAT, "logit_bias": {"a": 1}},
        {"messages": CHAT, "tool_choice": "required"},
        {"messages": CHAT, "tool_choice": {"type": "function", "function": {"name": "nope"}}},
        {"messages": CHAT, "response_format": {"type": "xml"}},
        {"messages": CHAT, "modalities": ["audio"]},
        {"messages": CHAT, "unheard_of": 1},
        {"messages": [{"role": "user", "content": "x" * 200_001}] * 2},
    ],
)
def test_what_chat_refuses(scripted, wrong) -> None:
    answer = httpx.post(scripted.url + "/v1/chat/completions", json={"model": "echo", **wrong}, timeout=30)
    error = answer.json()["error"]
    assert answer.status_code == 422 and error["code"] == "invalid_input" and error["type"] == "invalid_request_error"
    assert "127.0.0.1" not in error["message"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": []},
        {"prompt": ""},
        {"prompt": ["a"] * 17},
        {"prompt": ["a"] * 5, "n": 4},
        {"prompt": [-1]},
        {"prompt": [[]]},
        {"prompt": "a", "best_of": 2},
        {"prompt": "a", "suffix": "b"},
        {"prompt": "a", "echo": True, "logprobs": 1},
        {"prompt": [1], "echo": True},
        {"prompt": "a", "logprobs": 21},
        {"prompt": "a", "stream_options": {"a": 1}},
    ],
)
def test_what_completions_refuse(scripted, wrong) -> None:
    answer = httpx.post(scripted.url + "/v1/completions", json={"model": "echo", **wrong}, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_input")


# The Open Inference Protocol


@pytest.fixture
def open_inference(real):
    with triton.InferenceServerClient(f"127.0.0.1:{real.port}") as client:
        yield client


def asked(texts: list[str], binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_), binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary", [True, False])
def test_tensors(open_inference, binary) -> None:
    output = triton.InferRequestedOutput("text", binary_data=binary)
    result = open_inference.infer(
        "reciter", [asked(["?", "one two"], binary)], outputs=[output], request_id="r-1", parameters={"max_tokens": 50}
    )
    texts = [text.decode() if isinstance(text, bytes) else text for text in result.as_numpy("text")]
    assert texts == [WORDS, WORDS.removeprefix("one two")] and result.get_response()["id"] == "r-1"


def test_tensor_metadata_and_versions(real, open_inference) -> None:
    metadata = open_inference.get_model_metadata("sayer")
    assert metadata["inputs"] == metadata["outputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    (version,) = metadata["versions"]
    assert open_inference.is_server_ready() and open_inference.is_model_ready("sayer", version)
    open_inference.infer("sayer", [asked(["a"])], model_version=version, parameters={"max_tokens": 2})
    with pytest.raises(InferenceServerException):
        open_inference.infer("sayer", [asked(["a"])], model_version="9")
    for path in ("nope", "nope/ready", "sayer/versions/9"):
        assert httpx.get(f"{real.url}/v2/models/{path}").status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": [{"name": "text", "shape": [1], "datatype": "FP32", "data": [1.0]}]},
        {"inputs": [{"name": "other", "shape": [1], "datatype": "BYTES", "data": ["a"]}]},
        {"inputs": [{"name": "text", "shape": [0], "datatype": "BYTES", "data": []}]},
        {"inputs": [{"name": "text", "shape": [17], "datatype": "BYTES", "data": ["a"] * 17}]},
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [""]}]},
        {
            "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}],
            "parameters": {"max_tokens": 0},
        },
        {
            "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}],
            "outputs": [{"name": "logits"}],
        },
    ],
)
def test_bad_tensors(scripted, wrong) -> None:
    answer = httpx.post(scripted.url + "/v2/models/echo/infer", json=wrong)
    assert answer.status_code in (400, 422) and answer.json()["error"]


def test_the_generate_extension(real) -> None:
    body = {"id": "g-1", "text_input": "?", "parameters": {"max_tokens": 50, "stop": [" seven"], "stream": False}}
    answer = httpx.post(real.url + "/v2/models/reciter/generate", json=body, timeout=60).json()
    assert answer["text_output"] == WORDS.removesuffix(" seven") and answer["id"] == "g-1"
    assert answer["model_name"] == "reciter" and answer["details"] == {"finish_reason": "stop"}
    streamed = httpx.post(real.url + "/v2/models/reciter/generate_stream", json=body, timeout=60)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    parts = [json.loads(event.removeprefix("data: ")) for event in streamed.text.split("\n\n")[:-1]]
    assert "".join(part["text_output"] for part in parts) == answer["text_output"] and len(parts) > 3
    assert parts[-1]["details"] == {"finish_reason": "stop"} and "details" not in parts[0]


@pytest.mark.parametrize(
    ("model", "body", "status"),
    [
        ("nope", {"text_input": "a"}, 404),
        ("echo", {"text_input": ""}, 422),
        ("echo", {"text_input": "a", "parameters": {"max_tokens": 0}}, 422),
        ("echo", {"text_input": "a", "inputs": []}, 422),
        ("echo", {"text_input": "broken memory"}, 507),
        ("spoilt", {"text_input": "a"}, 500),
    ],
)
def test_what_the_generate_extension_refuses(scripted, model, body, status) -> None:
    answer = httpx.post(f"{scripted.url}/v2/models/{model}/generate", json=body)
    assert (answer.status_code, answer.json().keys()) == (status, {"error"})
