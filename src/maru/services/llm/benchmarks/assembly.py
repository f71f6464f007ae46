"""The parts of benchmarking, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine as Tables
from starlette.routing import WebSocketRoute

from maru.auth.principal import Authenticator
from maru.engine.engine import Engine
from maru.engine.errors import EngineError
from maru.engine.events import Event, LifecycleChanged, Subscriber
from maru.engine.types import ModelRef
from maru.http.endpoint import Route
from maru.http.problem import Envelope, Problem
from maru.services.llm.benchmarks.courtesy import InEngine
from maru.services.llm.benchmarks.executor import Executor, Pace
from maru.services.llm.benchmarks.job import Bench, EngineJob
from maru.services.llm.benchmarks.live import Live
from maru.services.llm.benchmarks.monitor import Monitor
from maru.services.llm.benchmarks.routes import LIVE, BenchmarkRoutes
from maru.services.llm.benchmarks.service import Benchmarks
from maru.services.llm.benchmarks.source import EngineSource
from maru.services.llm.generation import Served
from maru.services.llm.models import LONG
from maru.services.llm.service import Generations
from maru.storage.benchmark_board import Board
from maru.storage.benchmarks import BenchmarkRuns
from maru.storage.measurements import InferenceRow, Measurements
from maru.storage.metrics_writer import MetricsWriter
from maru.storage.migrate import migrate
from maru.storage.redis import Breaker
from maru.storage.timescale import prepare
from maru.telemetry.host import HostSampler


@dataclass(frozen=True, slots=True)
class Store:
    """The tables of benchmarks, at this version's shape, and the writer of what is measured."""

    runs: BenchmarkRuns
    measurements: Measurements
    writer: MetricsWriter

    @classmethod
    def over(cls, tables: Tables, lease_s: float = 4.0) -> Store:
        """Migrate, and open. Blocks."""
        migrate(tables)
        measurements = Measurements(tables, prepare(tables))
        return cls(BenchmarkRuns(tables, lease_s=lease_s), measurements, MetricsWriter(measurements))

    def served(self, served: Served) -> None:
        """An answer was made: `Generations` is given this as its `report`, and the log of inferences has it."""
        self.writer.add(
            InferenceRow(
                time=datetime.now(UTC),
                model_id=served.ref.name[:100],
                prompt_length=served.prompt_tokens,
                generated_tokens=served.generated_tokens,
                tokens_per_second=served.tokens_per_second,
                time_to_first_token=served.time_to_first_token,
                total_time=served.total_time,
            )
        )


class Benchmarking:
    """The benchmark side of one generation service: its routes, and what runs beside them.

    `sampler` is the platform's one. `every_s` is between two samples during a run; `breaker` is the way to Redis,
    if there is one. `sha256` reads a model's files for their checksum, once for each version that is measured.
    """

    def __init__(
        self,
        engine: Engine,
        generations: Generations,
        store: Store,
        sampler: HostSampler,
        envelope: Envelope,
        *,
        every_s: float = 0.1,
        breaker: Breaker | None = None,
        sha256: Callable[[str], str] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._store = store
        self._generations = generations
        self._sha256 = sha256
        self._hashes: dict[ModelRef, str] = {}
        monitor = Monitor(sampler, every_s)
        board = Board(breaker) if breaker is not None else None
        bench = Bench(
            self._source, self._described, InEngine(engine.events), monitor, store.writer, self._hashed, board
        )
        executor = Executor(store.runs, lambda run: EngineJob(run, bench), pace)
        engine.events.subscribe(_when_draining(executor.stop))
        self.benchmarks = Benchmarks(store.runs, store.measurements, executor, engine.clock, board)
        self._executor = executor
        self._live = Live(self.benchmarks, LIVE)
        ending = engine.lifecycle.ending
        self._routes = BenchmarkRoutes(self.benchmarks, generations.models, monitor, self._live, ending, envelope)

    def routes(self) -> list[Route]:
        return self._routes.routes()

    def websocket(self, authenticator: Authenticator | None) -> WebSocketRoute:
        """The one route that is not HTTP: `app.api.router.routes.append(it)`."""
        return self._live.websocket(authenticator)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Runs are done, and what is measured is stored, until no request is answered any more."""
        async with AsyncExitStack() as stack:
            self._store.writer.__enter__()
            stack.push_async_callback(asyncio.to_thread, self._store.writer.close)
            await stack.enter_async_context(self._executor.executing())
            yield

    def _source(self, model_id: str) -> EngineSource:
        return EngineSource(self._generations, model_id, self._generations.timeout_s)

    def _described(self, model_id: str) -> Mapping[str, Any]:
        """What identifies the model that was measured."""
        found = self._generations.models.status(model_id)
        ref = self._generations.models.spec(model_id).ref
        return {
            "id": model_id,
            "version": ref.version,
            "digest": ref.digest,
            "type": found.type,
            "size_bytes": found.size_bytes,
            "context_length": found.context_length,
            **{name: value for name, value in found.details.items() if name not in LONG},
        }

    def _hashed(self, model_id: str) -> str | None:
        """In a thread. None where it can't be told, or is not asked for."""
        if self._sha256 is None:
            return None
        try:
            ref = self._generations.models.spec(model_id).ref
            if ref not in self._hashes:
                self._hashes[ref] = self._sha256(model_id)
            return self._hashes[ref]
        except (EngineError, Problem, OSError):  # it has gone meanwhile
            return None


def _when_draining(stop: Callable[[], None]) -> Subscriber:
    def heard(event: Event) -> None:
        if isinstance(event, LifecycleChanged) and event.state != "ready":
            stop()

    return heard
