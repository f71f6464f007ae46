"""The Open Inference Protocol's generate extension: text in, text out, whole or as it is made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr
from starlette.responses import Response

from maru.engine.engine import Engine
from maru.http import oip
from maru.http.call import Call, Caller
from maru.http.endpoint import Reply, Route
from maru.http.sse import EventStream, ServerEvent
from maru.runtimes.generation.types import Finished, Piece
from maru.services.llm import events
from maru.services.llm.generation import Generation
from maru.services.llm.schemas import Strict, Text
from maru.services.llm.service import Generations
from maru.services.llm.tensors import asked

REFUSALS = (404, 413, 429, 503, 504, 507)


class TextRequest(Strict):
    """`parameters` are those of `/api/v1/generate`."""

    id: Annotated[StrictStr, Field(max_length=256)] | None = None
    text_input: Text
    parameters: dict[str, Any] | None = None


class Details(BaseModel):
    finish_reason: Literal["stop", "length", "tool_calls"]


class TextResponse(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    id: str | None = None
    model_name: str
    model_version: str
    text_output: str
    details: Details


@dataclass(frozen=True, slots=True)
class TextGeneration:
    """Handlers over one `Generations`."""

    engine: Engine
    generations: Generations

    async def generate(self, call: Caller, model: str, body: TextRequest) -> Reply:
        """Text, once all of it is made."""
        answer = await self.generations.collect(call, asked(body.text_input, model, body.parameters), model)
        return Reply(_part(body, answer.generation, answer.text, answer.finished))

    async def generate_stream(self, call: Caller, model: str, body: TextRequest) -> Response:
        """Text as it is made: each event is a response, and the last has the reason for which it ended."""
        self.generations.models.spec(model)
        return EventStream(
            self._events(call, model, body),
            ending=self.engine.lifecycle.ending,
            describe=partial(events.failed, call, envelope=oip.envelope),
            headers={"x-cache": "miss"},
        )

    @asynccontextmanager
    async def _events(self, call: Call, model: str, body: TextRequest) -> AsyncIterator[AsyncIterator[ServerEvent]]:
        async with self.generations.stream(asked(body.text_input, model, body.parameters), model, call=call) as made:
            yield _written(body, made)

    def routes(self) -> list[Route]:
        def door(path: str, handler: Any, answer: Any, content: Mapping[str, Any] | None = None) -> Route:
            return Route(
                "POST", f"/v2/models/{{model}}/{path}", handler, answer, REFUSALS, content=content,
                envelope=oip.envelope, problem_schema=oip.TensorProblem, tags=("open inference protocol",),
            )  # fmt: skip

        return [
            door("generate", self.generate, TextResponse),
            door("generate_stream", self.generate_stream, None, events.CONTENT),
        ]


async def _written(body: TextRequest, generation: Generation) -> AsyncIterator[ServerEvent]:
    async for part in generation.parts:
        if isinstance(part, Piece) and part.text:
            yield ServerEvent.of(_part(body, generation, part.text))
        elif isinstance(part, Finished):
            yield ServerEvent.of(_part(body, generation, "", part))


def _part(body: TextRequest, generation: Generation, text: str, finished: Finished | None = None) -> dict[str, Any]:
    part: dict[str, Any] = {
        "model_name": generation.ref.name,
        "model_version": generation.ref.version,
        "text_output": text,
    }
    if body.id is not None:
        part["id"] = body.id
    if finished is not None:
        part["details"] = {"finish_reason": finished.reason}
    return part
