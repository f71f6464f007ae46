"""OpenAI's doors to the models: completions, chat completions, and the list of models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.responses import Response

from maru.engine.engine import Engine
from maru.http import openai
from maru.http.call import Call, Caller
from maru.http.endpoint import Reply, Route
from maru.http.problem import Problem
from maru.http.sse import EventStream, ServerEvent
from maru.runtimes.generation.types import Prompt
from maru.services.llm import events
from maru.services.llm.openai_answers import Chat, Completion, Shape
from maru.services.llm.openai_chat import ChatRequest
from maru.services.llm.openai_schemas import CompletionRequest
from maru.services.llm.service import Generations
from maru.services.llm.several import Opening, collect, merged

REFUSALS = (404, 413, 429, 503, 504, 507)
EITHER: Mapping[str, Any] = {"application/json": {"schema": {"type": "object"}}, **events.CONTENT}


@dataclass(frozen=True, slots=True)
class OpenAI:
    """Handlers over one `Generations`."""

    engine: Engine
    generations: Generations

    async def completions(self, call: Caller, body: CompletionRequest) -> Reply | Response:
        """Text that goes on from each prompt."""
        echo = [one for one in body.given if isinstance(one, str)] if body.echo else []
        shape = Completion(f"cmpl-{call.request_id}", body.model, body.choices, body.usage, echo=echo)
        return await self._answer(call, shape, body.prompts(), stream=bool(body.stream))

    async def chat(self, call: Caller, body: ChatRequest) -> Reply | Response:
        """The assistant's next message."""
        shape = Chat(f"chatcmpl-{call.request_id}", body.model, body.choices, body.usage)
        return await self._answer(call, shape, body.prompts(), stream=bool(body.stream))

    async def _answer(self, call: Call, shape: Shape, prompts: Sequence[Prompt], stream: bool) -> Reply | Response:
        spec = self.generations.models.spec(shape.model)
        openings = [self.generations.stream(prompt, shape.model, call=call) for prompt in prompts]
        if not stream:
            return Reply(shape.whole(await collect(openings)))
        return EventStream(
            _chunks(shape, openings),
            ending=self.engine.lifecycle.ending,
            describe=partial(_failed, call),
            last=STOPPING,
            headers={"x-model-version": str(spec.ref), "x-cache": "miss"},
        )

    def routes(self) -> list[Route]:
        def door(path: str, handler: Any) -> Route:
            return Route(
                "POST", path, handler, errors=REFUSALS, content=EITHER,
                envelope=openai.envelope, problem_schema=openai.OpenAIProblem, tags=("openai",),
            )  # fmt: skip

        return [
            door("/v1/completions", self.completions),
            door("/v1/chat/completions", self.chat),
            *openai.Models(self.generations.models.cards).routes(),
        ]


@asynccontextmanager
async def _chunks(shape: Shape, openings: Sequence[Opening]) -> AsyncIterator[AsyncIterator[ServerEvent]]:
    async with merged(openings) as parts:
        yield shape.chunks(parts)


STOPPING = ServerEvent.of(openai.envelope(Problem(503, "SERVER_SHUTDOWN", "the server is shutting down")))
"""In the shape of OpenAI's errors: its client takes any other event for a chunk without choices."""


def _failed(call: Call, error: Exception) -> ServerEvent:
    """What ended a stream, as OpenAI's clients raise it."""
    return ServerEvent.of(events.told(call, error, openai.envelope))
