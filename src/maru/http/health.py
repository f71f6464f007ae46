"""Live, ready, and the figures: what every service tells those who run it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from maru.engine.engine import Engine
from maru.engine.errors import EngineError
from maru.http.call import Caller
from maru.http.endpoint import Reply, Route

Render = Callable[[str], tuple[bytes, str]]
"""Metrics for an Accept header: the text and its content type."""


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether requests would be served now: the server's state, and whether each model is in memory."""

    status: Literal["ready", "not_ready"]
    state: Literal["starting", "ready", "draining", "stopped"]
    models: dict[str, bool]


@dataclass(frozen=True, slots=True)
class Health:
    """The health of one service: `models` are those it can't serve without."""

    engine: Engine
    models: tuple[str, ...]
    render: Render

    def loaded(self, name: str) -> bool:
        try:
            return self.engine.manager.get(self.engine.repository.resolve(name).ref) is not None
        except EngineError:
            return False

    def readiness(self) -> Readiness:
        models = {name: self.loaded(name) for name in self.models}
        state = self.engine.lifecycle.state
        ready = state == "ready" and all(models.values())
        return Readiness(status="ready" if ready else "not_ready", state=state, models=models)

    async def healthz(self, call: Caller) -> Reply:
        """Live: the process answers. Depends on no model, database or other server."""
        return Reply(Alive())

    async def readyz(self, call: Caller) -> Reply:
        """Ready: a request would be served now."""
        readiness = self.readiness()
        if readiness.status == "ready":
            return Reply(readiness)
        return Reply(readiness, 503, {"retry-after": "1"})

    async def metrics(self, call: Caller) -> Reply:
        """Prometheus text, or OpenMetrics for who accepts it."""
        text, media_type = await asyncio.to_thread(self.render, call.header(b"accept") or "")
        return Reply(text, media_type=media_type)

    def routes(self) -> list[Route]:
        text = {"text/plain": {"schema": {"type": "string"}}}
        return [
            Route("GET", "/healthz", self.healthz, Alive, protected=False, tags=("operations",)),
            Route(
                "GET",
                "/readyz",
                self.readyz,
                Readiness,
                protected=False,
                tags=("operations",),
                also={503: Readiness},
            ),
            Route("GET", "/metrics", self.metrics, content=text, protected=False, tags=("operations",)),
        ]


@dataclass(frozen=True, slots=True)
class CommonHealth(Health):
    """Of several services: ready when all of them are."""

    parts: tuple[Health, ...] = ()

    def readiness(self) -> Readiness:
        told = [part.readiness() for part in self.parts]
        models = {name: loaded for one in told for name, loaded in one.models.items()}
        ready = all(one.status == "ready" for one in told)
        return Readiness(status="ready" if ready else "not_ready", state=self.engine.lifecycle.state, models=models)
