"""Language models and their benchmarks, built from the settings."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from maru.engine.engine import Engine
from maru.http.service import ServiceApp
from maru.platform import Platform, Room, budgets, connected
from maru.runtimes.generation.catalogue import Catalogue
from maru.runtimes.generation.llama_cpp import LlamaCpp
from maru.runtimes.generation.transformers import Transformers
from maru.services.llm.assembly import Generating
from maru.services.llm.benchmarks.assembly import Benchmarking, Store
from maru.services.llm.configuration import Configuration
from maru.services.llm.declaration import service
from maru.services.llm.generation import Served
from maru.services.llm.service import Generations
from maru.services.llm.starter import plant
from maru.settings import Settings


def build(platform: Platform) -> Room:
    """The service with its models and what runs beside its requests."""
    settings = platform.settings
    store = Store.over(
        connected("TIMESCALE_URL", settings.timescale_url) if settings.timescale_url else platform.tables
    )
    generating = _generating(settings, platform.engine, store.served)
    benchmarking = Benchmarking(
        platform.engine,
        generating.generations,
        store,
        platform.telemetry.host,
        generating.service.envelope,
        every_s=settings.gpu_monitoring_interval_ms / 1e3,
        breaker=platform.breaker,
        sha256=generating.models.sha256,
    )
    platform.telemetry.metrics.registry.register(store.writer)
    health = generating.health(platform.telemetry.metrics.render)
    authenticator = platform.key_authenticator(service.name)
    app = ServiceApp(
        generating.service,
        [*generating.routes(health), *benchmarking.routes()],
        engine=platform.engine,
        report=platform.telemetry.http,
        authenticator=authenticator,
        lifespan=platform.opened,
    )
    app.api.router.routes.append(benchmarking.websocket(authenticator))

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        async with generating.opened(), benchmarking.opened():
            yield

    return Room(generating.service, app, health, generating.start, opened)


@asynccontextmanager
async def open_generations(settings: Settings) -> AsyncIterator[Generations]:
    """The models of this installation in an engine of their own, for who has no server."""
    engine = Engine(budgets=budgets(settings))
    try:
        generating = _generating(settings, engine)
        await generating.start()
        async with generating.opened():
            engine.lifecycle.advance("ready")
            yield generating.generations
    finally:
        await engine.close()


def folder_of(settings: Settings) -> Path:
    """Where the models are."""
    return settings.models_dir or settings.maru_home / "llm"


def catalogue_of(settings: Settings) -> Catalogue:
    """What is in that folder, and how each kind of model is run."""
    shared = (settings.llm_slots, settings.llm_context, settings.llm_batch, settings.llm_threads)
    native = Path(settings.llama_server) if settings.llama_server else None
    llama_cpp = LlamaCpp(*shared, settings.llm_gpu_layers, settings.llm_cache_mb, native)
    transformers = Transformers(*shared, settings.llm_python or sys.executable)
    return Catalogue(folder_of(settings), {"gguf": llama_cpp, "safetensors": transformers})


def _generating(settings: Settings, engine: Engine, report: Callable[[Served], None] | None = None) -> Generating:
    configuration = Configuration(
        timeout_s=settings.llm_timeout_s,
        pinned=tuple(sorted(settings.llm_pinned)),
        waiting=settings.llm_queue,
    )
    starter = partial(plant, folder_of(settings))
    return Generating(engine, catalogue_of(settings), configuration, seed=starter, report=report)
