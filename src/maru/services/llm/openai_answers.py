"""Answers as OpenAI's API has them, whole and in chunks."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from maru.http.sse import ServerEvent
from maru.runtimes.generation.types import Finished, Piece, TokenLogprob
from maru.services.llm.generation import Collected
from maru.services.llm.several import Parts

DONE = ServerEvent("[DONE]")

Json = dict[str, Any]


@dataclass(slots=True)
class Usage:
    """The tokens of a request: each prompt counts once, however many answers it has."""

    choices: int
    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def add(self, index: int, finished: Finished) -> None:
        if index % self.choices == 0:
            self.prompt += finished.prompt_tokens
            self.cached += finished.cached_tokens
        self.completion += finished.completion_tokens

    def json(self) -> Json:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(slots=True)
class Shape(ABC):
    """What completions and chat completions have in common. `usage` asks for it at the end of a stream; `choices`
    is how many answers each prompt has."""

    id: str
    model: str
    choices: int
    usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    kind = ""
    chunk = ""

    def whole(self, answers: Sequence[Collected]) -> Json:
        """The response with all answers."""
        usage = Usage(self.choices)
        for index, answer in enumerate(answers):
            usage.add(index, answer.finished)
        choices = [
            {"index": index, **self.choice(index, answer), "finish_reason": answer.finished.reason}
            for index, answer in enumerate(answers)
        ]
        return {**self._head(self.kind), "choices": choices, "usage": usage.json()}

    async def chunks(self, parts: Parts) -> AsyncIterator[ServerEvent]:
        """The events of a stream, the last of which is `[DONE]`."""
        usage = Usage(self.choices)
        begun: set[int] = set()
        offsets: dict[int, int] = {}
        async for index, _, part in parts:
            if index not in begun and isinstance(part, Piece | Finished):
                begun.add(index)
                for first in self.opening(index):
                    yield self._chunk(index, first)
            if isinstance(part, Piece):
                offset = offsets.get(index, 0)
                offsets[index] = offset + len(part.text)
                yield self._chunk(index, self.delta(part, offset))
            elif isinstance(part, Finished):
                usage.add(index, part)
                yield self._chunk(index, {**self.nothing(), "finish_reason": part.reason})
        if self.usage:
            yield ServerEvent.of({**self._head(self.chunk), "choices": [], "usage": usage.json()})
        yield DONE

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, index: int, choice: Json) -> ServerEvent:
        chunk = {**self._head(self.chunk), "choices": [{"index": index, "finish_reason": None, **choice}]}
        return ServerEvent.of(chunk | {"usage": None} if self.usage else chunk)

    @abstractmethod
    def opening(self, index: int) -> Iterable[Json]:
        """What an answer's first chunks say."""

    @abstractmethod
    def choice(self, index: int, answer: Collected) -> Json:
        """One whole answer."""

    @abstractmethod
    def delta(self, piece: Piece, offset: int) -> Json:
        """One piece; `offset` characters of its answer came before."""

    @abstractmethod
    def nothing(self) -> Json:
        """The delta of an answer's last chunk."""


@dataclass(slots=True)
class Completion(Shape):
    """`echo` are the prompts that are to stand before their answers."""

    echo: Sequence[str] = ()

    kind = chunk = "text_completion"

    def opening(self, index: int) -> Iterable[Json]:
        if self.echo:
            yield {"text": self._echoed(index), "logprobs": None}

    def choice(self, index: int, answer: Collected) -> Json:
        text = self._echoed(index) + answer.text
        return {"text": text, "logprobs": _completion_logprobs(answer.logprobs, 0)}

    def delta(self, piece: Piece, offset: int) -> Json:
        return {"text": piece.text, "logprobs": _completion_logprobs(piece.logprobs, offset)}

    def nothing(self) -> Json:
        return {"text": "", "logprobs": None}

    def _echoed(self, index: int) -> str:
        return self.echo[index // self.choices] if self.echo else ""


@dataclass(slots=True)
class Chat(Shape):
    kind = "chat.completion"
    chunk = "chat.completion.chunk"

    def opening(self, index: int) -> Iterable[Json]:
        yield {"delta": {"role": "assistant", "content": "", "refusal": None}, "logprobs": None}

    def choice(self, index: int, answer: Collected) -> Json:
        message: Json = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.tool_calls:
            message |= {"content": answer.text or None, "tool_calls": answer.tool_calls}
        return {"message": message, "logprobs": _chat_logprobs(answer.logprobs)}

    def delta(self, piece: Piece, offset: int) -> Json:
        delta: Json = {"content": piece.text} if piece.text else {}
        if piece.tool_calls:
            delta["tool_calls"] = list(piece.tool_calls)
        return {"delta": delta, "logprobs": _chat_logprobs(piece.logprobs)}

    def nothing(self) -> Json:
        return {"delta": {}, "logprobs": None}


def _chat_logprobs(tokens: Sequence[TokenLogprob]) -> Json | None:
    if not tokens:
        return None
    return {"content": [{**_token(token), "top_logprobs": [_token(top) for top in token.top]} for token in tokens]}


def _token(token: TokenLogprob) -> Json:
    return {"token": token.token, "logprob": token.logprob, "bytes": list(token.bytes)}


def _completion_logprobs(tokens: Sequence[TokenLogprob], offset: int) -> Json | None:
    if not tokens:
        return None
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{top.token: top.logprob for top in token.top} for token in tokens],
        "text_offset": offsets,
    }
