"""The parts of the recommendation service, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from maru.engine.engine import Engine
from maru.http.endpoint import Route
from maru.http.health import Health
from maru.http.oip import OpenInference
from maru.services.recommend.recording import Recorder
from maru.services.recommend.routes import Routes
from maru.services.recommend.service import Configuration, Recommendations
from maru.services.recommend.starter import Starter
from maru.services.recommend.tensors import RecommendTensors
from maru.services.recommend.variants import VariantMetrics
from maru.storage.feedback import FeedbackStore


class Recommending:
    """One recommendation service: its routes, and what runs beside them.

    `feedback` is where events are kept, `registry` where the figures of the two variants are counted. `starter`
    trains the first bundle where there is none.
    """

    def __init__(
        self,
        engine: Engine,
        configuration: Configuration,
        feedback: FeedbackStore,
        registry: CollectorRegistry,
        *,
        starter: Starter | None = None,
    ) -> None:
        self._engine = engine
        self.recommendations = Recommendations(engine, configuration, starter)
        metrics = VariantMetrics(self.recommendations.model, registry)
        engine.events.subscribe(metrics.engine)
        self._routes = Routes(self.recommendations, Recorder(feedback, engine.lifecycle), metrics)

    def routes(self, health: Health) -> list[Route]:
        """Every endpoint, of the document and of the platform."""
        tensors = OpenInference(self._engine, health, RecommendTensors(self.recommendations))
        return [*self._routes.routes(), *health.routes(), *tensors.routes()]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """What is promoted is followed, until no request is answered any more."""
        async with self.recommendations.following():
            yield
