"""A prompt in the words of llama.cpp's server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from maru.engine.errors import InputError
from maru.runtimes.generation.types import Prompt, Sampling

COMPLETIONS, CHAT, TEMPLATE = "/v1/completions", "/v1/chat/completions", "/apply-template"

MAX_BYTES = 1 << 16
MAX_DEPTH = 32
"""How large and how deep a schema, a grammar or a list of tools may be: the worker reads them recursively, and
one that is too deep would end it."""

MAX_COUNT = 9999
"""The largest number of repetitions that a schema may ask for: each is written out, and a billion end the worker."""

_MANY = re.compile(r"\{[^}]*\d{5}")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")

_ALWAYS = {
    "stream": True,  # whoever leaves is noticed at the next token: without, not while others are served
    "return_progress": True,  # and at the next batch while the prompt is read
    "stream_options": {"include_usage": True},
}
_AS_IS = (
    "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "max_tokens",
)  # fmt: skip


def request(prompt: Prompt) -> tuple[str, dict[str, Any]]:
    """The path and the body. InputError for a prompt that is none."""
    if (prompt.text is not None) + (prompt.tokens is not None) + (prompt.messages is not None) != 1:
        raise InputError("exactly one of text, tokens and messages is to be given")
    if prompt.json_schema is not None and prompt.grammar is not None:
        raise InputError("either a JSON schema or a grammar may be given")
    body = {**_ALWAYS, "cache_prompt": prompt.reuse, **_sampling(prompt.sampling)}
    if prompt.grammar is not None:
        body["grammar"] = _grammar(prompt.grammar)
    if prompt.messages is None:
        return COMPLETIONS, body | _plain(prompt)
    return CHAT, body | _chat(prompt)


def rehearsal(prompt: Prompt) -> dict[str, Any] | None:
    """A body for `/apply-template` that is refused when the JSON schema can't be used. Without it, a plain prompt is
    answered as if there were no schema. None where that can't happen."""
    if prompt.json_schema is None or prompt.messages is not None:
        return None
    return {"messages": [{"role": "user", "content": "a"}], "response_format": _format(prompt)}


def _plain(prompt: Prompt) -> dict[str, Any]:
    given = prompt.text if prompt.tokens is None else list(prompt.tokens)
    if not given:
        raise InputError("the prompt is empty")
    body: dict[str, Any] = {"prompt": given}
    if prompt.json_schema is not None:
        body["json_schema"] = _format(prompt)["json_schema"]["schema"]
    if prompt.sampling.logprobs is not None:
        body["logprobs"] = max(1, prompt.sampling.logprobs)
    return body


def _chat(prompt: Prompt) -> dict[str, Any]:
    if not prompt.messages:
        raise InputError("there are no messages")
    body: dict[str, Any] = {"messages": [_textual(message) for message in prompt.messages], "reasoning_format": "none"}
    if prompt.json_schema is not None:
        body["response_format"] = _format(prompt)
    if prompt.tools:
        body["tools"] = _bounded("the list of tools", list(prompt.tools))
        if prompt.tool_choice is not None:
            body["tool_choice"] = prompt.tool_choice
    if prompt.sampling.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": max(1, prompt.sampling.logprobs)}
    return body


def _format(prompt: Prompt) -> dict[str, Any]:
    schema = _bounded("the JSON schema", dict(prompt.json_schema or {"type": "object"}))
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def _textual(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message as it is. Parts that are no text would have the worker fetch what they name."""
    if not isinstance(message.get("role"), str):
        raise InputError("a message has no role")
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        for part in content:
            if not isinstance(part, Mapping) or part.get("type") != "text":
                raise InputError("the parts of a message must be text")
    return message


def _sampling(sampling: Sampling) -> dict[str, Any]:
    body: dict[str, Any] = {name: value for name in _AS_IS if (value := getattr(sampling, name)) is not None}
    if sampling.seed is not None:
        body["seed"] = sampling.seed & 0x7FFFFFFF
    if sampling.logit_bias:
        body["logit_bias"] = [[token, bias] for token, bias in sampling.logit_bias.items()]
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.ignore_eos:
        body["ignore_eos"] = True
    return body


def _grammar(grammar: str) -> str:
    if len(grammar) > MAX_BYTES or max(map(grammar.count, "([{")) > MAX_BYTES // 64:
        raise InputError("the grammar is too large")
    return grammar


def _bounded(what: str, value: Any) -> Any:
    """JSON that the worker can read, without what would take it for ever."""
    todo = [(value, 0)]
    while todo:
        each, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise InputError(f"{what} is too deep")
        if isinstance(each, Mapping):
            counts = (count for key in _COUNTS if isinstance(count := each.get(key), int | float))
            pattern = each.get("pattern")
            if any(count > MAX_COUNT for count in counts) or (isinstance(pattern, str) and _MANY.search(pattern)):
                raise InputError(f"{what} asks for more than {MAX_COUNT} repetitions")
            todo += [(inner, depth + 1) for inner in each.values()]
        elif isinstance(each, list | tuple):
            todo += [(inner, depth + 1) for inner in each]
    try:
        size = len(orjson.dumps(value))
    except TypeError:
        raise InputError(f"{what} is not JSON, or holds a number that is too large") from None
    if size > MAX_BYTES:
        raise InputError(f"{what} is too large")
    return value
