"""An answer as server-sent events, in the document's form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from maru.engine.errors import EngineError
from maru.http.call import Call
from maru.http.errors import problem_of
from maru.http.problem import Envelope
from maru.http.sse import ServerEvent
from maru.runtimes.generation.types import Piece
from maru.services.llm.generation import Generation

CONTENT: Mapping[str, Any] = {
    "text/event-stream": {
        "schema": {"type": "object", "properties": {"event": {"type": "string"}, "data": {}}, "required": ["data"]}
    }
}
"""What OpenAPI says of a stream: its events."""


async def as_text(generation: Generation) -> AsyncIterator[ServerEvent]:
    """`data: <token>` for each piece of text, whose lines are lines of `data`, and then `event: done`."""
    async for part in generation.parts:
        if isinstance(part, Piece) and part.text:
            yield ServerEvent(part.text)
    yield _done(generation)


async def as_json(generation: Generation) -> AsyncIterator[ServerEvent]:
    """The same, each piece as `{"text": …}`."""
    async for part in generation.parts:
        if isinstance(part, Piece) and part.text:
            yield ServerEvent.of({"text": part.text})
    yield _done(generation)


def failed(call: Call, error: Exception, envelope: Envelope) -> ServerEvent:
    """What ended a stream that had begun, as the event `error`."""
    return ServerEvent.of(told(call, error, envelope), "error")


def told(call: Call, error: Exception, envelope: Envelope) -> Mapping[str, Any]:
    """The error in that shape, as a response would have told it, and the access log does."""
    problem = problem_of(error, 422)
    problem.details.setdefault("request_id", call.request_id)
    call.error = problem.code
    if problem.status == 500 and not isinstance(error, EngineError):
        call.exception = error
    return envelope(problem)


def _done(generation: Generation) -> ServerEvent:
    return ServerEvent.of(generation.counts().model_dump(), "done")
