"""The events of one answer."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from .choice import Choice
from .generation import Generation
from .text import Text, alone

Event = dict[str, Any]


class Answer:
    """What is generated for a prompt, as llama.cpp's server tells it. TypeError or ValueError for what is asked in
    values of the wrong type."""

    def __init__(self, generation: Generation, prompt: list[int], asked: dict[str, Any]) -> None:
        self._generation, self._prompt = generation, prompt
        room, most = generation.context - len(prompt), asked.get("max_tokens")
        self._limit = room if most is None else max(1, min(room, int(most)))
        self._ends = [] if asked.get("ignore_eos") else generation.ends
        self._choice = Choice(asked, generation.defaults, prompt)
        self._text = Text(generation.tokenizer, asked.get("stop") or [])

    async def events(self) -> AsyncGenerator[Event, None]:
        began = first = time.perf_counter()
        count, ended = 0, False
        yield self._progress(0)
        generating = self._generation.tokens(self._prompt, self._choice, self._limit, self._ends)
        async with aclosing(generating) as tokens:
            async for token in tokens:
                count += 1
                if count == 1:
                    first = time.perf_counter()
                    yield self._progress(len(self._prompt))
                if ended := token in self._ends:
                    break
                said = self._text.take(token)
                told = None if self._choice.top is None else self._told(token, *self._choice.told[count - 1])
                if said or told:
                    yield {"choices": [{"text": said, "logprobs": told, "finish_reason": None}]}
                if ended := self._text.stopped:
                    break
        if rest := self._text.rest():
            yield {"choices": [{"text": rest, "finish_reason": None}]}
        now = time.perf_counter()
        yield {
            "choices": [{"text": "", "finish_reason": "stop" if ended else "length"}],
            "usage": {"prompt_tokens": len(self._prompt), "completion_tokens": count},
            "timings": {"prompt_ms": (first - began) * 1e3, "predicted_ms": (now - first) * 1e3},
        }

    def _progress(self, processed: int) -> Event:
        return {"choices": [], "prompt_progress": {"total": len(self._prompt), "cache": 0, "processed": processed}}

    def _told(self, token: int, logprob: float, best: list[tuple[int, float]]) -> dict[str, Any]:
        def shown(token: int, logprob: float) -> dict[str, Any]:
            text, content = alone(self._generation.tokenizer, token)
            return {"id": token, "token": text, "bytes": list(content), "logprob": logprob}

        return {"content": [{**shown(token, logprob), "top_logprobs": [shown(*each) for each in best]}]}
