"""Any server that speaks OpenAI's API, measured over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from maru.runtimes.generation.types import Finished, FinishReason, Part, Piece, Prompt, Sampling
from maru.services.llm.benchmarks.load import SourceError

_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}
_AS_IS = (
    "max_tokens", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed",
)  # fmt: skip
_MOST_LINE = 1 << 20


class OpenAISource:
    """One model of the server at `url`. `async with` it.

    Asked through `/v1/chat/completions` for a prompt of messages, and `/v1/completions` for one of text. Fields that
    are not OpenAI's (`ignore_eos`, `cache_prompt`) are sent only where the prompt wants what they do. A server that
    doesn't count its tokens has its pieces counted, and `counted_by_pieces` is true then.
    """

    def __init__(self, url: str, model: str, *, key: str | None = None, timeout_s: float = 300.0) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._key = key
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self.model = model
        self.counted_by_pieces = False
        self._takes_cache_prompt = True

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # llama.cpp's server closes a connection after a stream without saying so.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            read_bufsize=_MOST_LINE,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def models(self) -> list[str]:
        """What the server has to offer."""
        assert self._session is not None
        try:
            async with self._session.get(f"{self._url}/v1/models") as answer:
                if answer.status != 200:
                    raise SourceError(f"http_{answer.status}")
                listed = orjson.loads(await answer.read())
            return [str(model["id"]) for model in listed["data"]]
        except (aiohttp.ClientError, OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise SourceError(_word(error)) from None

    @asynccontextmanager
    async def stream(self, prompt: Prompt) -> AsyncIterator[AsyncIterator[Part]]:
        assert self._session is not None
        path, body = _asked(self.model, prompt)
        if not self._takes_cache_prompt:
            body.pop(_CACHE_PROMPT, None)
        try:
            async with await self._post(path, body) as answer:
                if answer.status != 200:
                    raise SourceError(f"http_{answer.status}")
                yield self._parts(answer)
        except (aiohttp.ClientError, OSError) as error:
            raise SourceError(_word(error)) from None

    async def _post(self, path: str, body: dict[str, Any]) -> aiohttp.ClientResponse:
        """The answer. A server that knows no `cache_prompt` is asked without it, from then on."""
        assert self._session is not None
        answer = await self._session.post(f"{self._url}{path}", data=orjson.dumps(body), headers=_JSON)
        if answer.status not in _REFUSED or body.pop(_CACHE_PROMPT, None) is None:
            return answer
        answer.release()
        again = await self._session.post(f"{self._url}{path}", data=orjson.dumps(body), headers=_JSON)
        if again.status == 200:
            self._takes_cache_prompt = False
        return again

    async def _parts(self, answer: aiohttp.ClientResponse) -> AsyncIterator[Part]:
        reason: FinishReason | None = None
        usage: Mapping[str, Any] = {}
        timings: Mapping[str, Any] = {}
        pieces = 0
        async for event in _events(answer):
            usage = event.get("usage") or usage
            timings = event.get("timings") or timings
            for choice in event.get("choices") or ():
                reason = _REASONS.get(choice.get("finish_reason"), reason)
                delta = choice.get("delta") or choice
                text = delta.get("text") or delta.get("content") or delta.get("reasoning_content") or ""
                if text or delta.get("tool_calls"):
                    pieces += 1
                    yield Piece(text, tool_calls=delta.get("tool_calls"))
        if reason is not None:
            self.counted_by_pieces = self.counted_by_pieces or "completion_tokens" not in usage
            yield _finished(reason, usage, timings, pieces)


_CACHE_PROMPT = "cache_prompt"
_REFUSED = (400, 422)
_JSON = {"Content-Type": "application/json", "Accept": "text/event-stream"}


def _asked(model: str, prompt: Prompt) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    body |= _sampled(prompt.sampling)
    if not prompt.reuse:
        body[_CACHE_PROMPT] = False
    if prompt.messages is not None:
        return "/v1/chat/completions", {**body, "messages": list(prompt.messages)}
    return "/v1/completions", {**body, "prompt": prompt.text if prompt.tokens is None else list(prompt.tokens)}


def _sampled(sampling: Sampling) -> dict[str, Any]:
    body = {name: value for name in _AS_IS if (value := getattr(sampling, name)) is not None}
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.ignore_eos:
        body["ignore_eos"] = True
    return body


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Mapping[str, Any]]:
    """The JSON of each event. SourceError for one that is an error, or none."""
    async for line in answer.content:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise SourceError("not_json") from None
        if not isinstance(event, dict) or "error" in event:
            raise SourceError("error_event")
        yield event


def _finished(reason: FinishReason, usage: Mapping[str, Any], timings: Mapping[str, Any], pieces: int) -> Finished:
    details = usage.get("prompt_tokens_details") or {}
    return Finished(
        reason=reason,
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", pieces),
        cached_tokens=details.get("cached_tokens") or 0,
        prefill_s=timings.get("prompt_ms", 0.0) / 1000,
        decode_s=timings.get("predicted_ms", 0.0) / 1000,
    )


def _word(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "no_connection"
    return "broken_connection" if isinstance(error, aiohttp.ClientError | OSError) else "not_json"
