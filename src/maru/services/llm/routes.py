"""The document's endpoints: text, whole or as it is made, and the models that make it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from starlette.responses import Response

from maru.auth.keys import covers
from maru.auth.principal import ANONYMOUS, Forbidden
from maru.engine.engine import Engine
from maru.engine.errors import ModelLoadFailed
from maru.http.call import Call, Caller
from maru.http.endpoint import Reply, Route
from maru.http.problem import Envelope, Problem
from maru.http.sse import EventStream, ServerEvent
from maru.services.llm import events, schemas
from maru.services.llm.service import Generations, not_loaded

OPERATE = "ai:operate"
"""The scope of those who run the server, where there are keys."""

REFUSALS = (404, 413, 429, 503, 504, 507)


@dataclass(frozen=True, slots=True)
class Routes:
    """Handlers over one `Generations`. `envelope` is the shape of an error that ends a stream."""

    engine: Engine
    generations: Generations
    envelope: Envelope

    async def generate(self, call: Caller, body: schemas.GenerateRequest) -> Reply:
        """Text, once all of it is made."""
        answer = await self.generations.collect(call, body.asked(), body.model_id)
        counts = answer.generation.counts().model_dump()
        return Reply({"success": True, "data": {"text": answer.text, **counts}})

    async def generate_stream(self, call: Caller, body: schemas.GenerateRequest) -> Response:
        """Text as it is made, as server-sent events: `data` for each token, `event: done` with the counts at the
        end, or `event: error`. `Accept: application/json` makes each token a JSON object.
        """
        spec = self.generations.models.spec(body.model_id)
        return EventStream(
            self._events(call, body),
            ending=self.engine.lifecycle.ending,
            describe=partial(self._failed, call),
            headers={"x-model-version": str(spec.ref), "x-cache": "miss"},
        )

    @asynccontextmanager
    async def _events(self, call: Call, body: schemas.GenerateRequest) -> AsyncIterator[AsyncIterator[ServerEvent]]:
        written = events.as_json if "application/json" in (call.header(b"accept") or "") else events.as_text
        async with self.generations.stream(body.asked(), body.model_id, call=call) as generation:
            yield written(generation)

    def _failed(self, call: Call, error: Exception) -> ServerEvent:
        return events.failed(call, error, self.envelope)

    async def models(self, call: Caller) -> Reply:
        """Every model of the server, whether it is in memory, and why one that can't be served can't be."""
        return Reply(schemas.Success[list[schemas.ModelInfo]](data=self.generations.models.all()))

    async def model(self, call: Caller, model_id: str) -> Reply:
        """One model."""
        return self._status(model_id)

    async def load(self, call: Caller, model_id: str) -> Reply:
        """Bring a model into memory before it is asked, if need be in the place of another that is not in use."""
        _check_operator(call)
        try:
            await self.generations.models.load(model_id)
        except ModelLoadFailed as error:
            raise not_loaded(error) from error
        return self._status(model_id)

    async def unload(self, call: Caller, model_id: str) -> Reply:
        """Free the memory of a model that is not in use. The next request for it loads it again."""
        _check_operator(call)
        if not await self.generations.models.unload(model_id):
            raise Problem(503, "MODEL_IN_USE", "the model is in use", headers={"retry-after": "1"})
        return self._status(model_id)

    def _status(self, model_id: str) -> Reply:
        return Reply(schemas.Success[schemas.ModelStatus](data=self.generations.models.status(model_id)))

    def routes(self) -> list[Route]:
        text, models = ("generation",), ("models",)
        one = schemas.Success[schemas.ModelStatus]
        whole = schemas.Success[schemas.Generated]
        return [
            Route("POST", "/api/v1/generate", self.generate, whole, REFUSALS, tags=text),
            *(
                Route("POST", path, self.generate_stream, errors=REFUSALS, content=events.CONTENT, tags=text)
                for path in ("/api/v1/generate/stream", "/api/v1/inference/stream")
            ),
            Route("GET", "/api/v1/models", self.models, schemas.Success[list[schemas.ModelInfo]], tags=models),
            Route("GET", "/api/v1/models/{model_id}", self.model, one, (404,), tags=models),
            Route("POST", "/api/v1/models/{model_id}/load", self.load, one, (403, 404, 503, 507), tags=models),
            Route("POST", "/api/v1/models/{model_id}/unload", self.unload, one, (403, 404, 503), tags=models),
        ]


def _check_operator(call: Call) -> None:
    """Forbidden for a key without that scope, and for a page of another site: it needs no leave to send a request
    without a body to a server on its reader's machine."""
    if call.principal is not ANONYMOUS and not covers(call.principal.scopes, frozenset({OPERATE})):
        raise Forbidden("this key does not have the scope that is needed here")
    if call.header(b"sec-fetch-site") not in (None, "same-origin", "none"):
        raise Forbidden("a page of another site may not do this")
