"""Builds everything and mounts it. The one file that knows everyone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp

from maru import __version__
from maru.auth.development import development_secret
from maru.auth.either import TokenOrKey
from maru.auth.keyring import Keyring
from maru.auth.keys import KeyAuthenticator
from maru.auth.limits import RateLimiter
from maru.auth.supabase import SupabaseAuthenticator
from maru.engine.engine import Engine
from maru.http.fetch import Fetcher
from maru.http.gateway import Gateway
from maru.http.health import Health
from maru.http.home import Home
from maru.http.oip import OpenInference
from maru.http.service import Service, ServiceApp
from maru.services.embedding.declaration import service as embedding
from maru.services.embedding.routes import Routes as EmbeddingRoutes
from maru.services.embedding.service import Configuration as EmbeddingConfiguration
from maru.services.embedding.service import Embeddings
from maru.services.embedding.tensors import EmbeddingTensors
from maru.settings import ConfigurationError, Settings
from maru.storage import database
from maru.storage.api_keys import ApiKeys
from maru.storage.redis import Breaker, connect
from maru.storage.result_cache import RedisResults
from maru.telemetry.document_metrics import Documented
from maru.telemetry.log_writer import LogWriter
from maru.telemetry.telemetry import Telemetry

Start = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Room:
    """A service in this process: its application, the models it can't serve without, and how they get there."""

    service: Service
    app: ServiceApp
    health: Health
    start: Start


class Platform:
    """What outlives a request. Made once, opened and closed by the lifespan of the application over it."""

    def __init__(self, settings: Settings, names: Sequence[str], writer: LogWriter | None = None) -> None:
        self.settings = settings
        self._closing: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._when_loaded: list[Callable[[], None]] = []
        services = [SERVICES[name] for name in names]
        self.telemetry = Telemetry(
            __version__,
            [Documented(s.service.name, s.service.metric_prefix, s.service.documented) for s in services],
            writer=writer,
            otlp_endpoint=settings.otel_exporter_otlp_endpoint,
        )
        self.keys = open_keys(settings)
        self.keyring = Keyring(self.keys)
        self._closing.append(self.keyring.aclose)
        self.breaker = self._redis()
        self.engine = Engine(
            cache_bytes=settings.result_cache_mb * 2**20,
            cache_ttl_s=settings.result_cache_ttl_s,
            result_store=RedisResults(self.breaker, self._cache_secret()) if self.breaker else None,
            max_models=settings.max_models,
            max_model_bytes=settings.max_model_mb * 2**20,
        )
        self.engine.events.subscribe(self.telemetry.engine)
        self.rooms = {name: plan.build(self) for name, plan in zip(names, services, strict=True)}

    def _redis(self) -> Breaker | None:
        if self.settings.redis_url is None:
            return None
        try:
            breaker = Breaker(connect(self.settings.redis_url))
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self._closing.append(breaker.aclose)
        return breaker

    def _cache_secret(self) -> bytes:
        """The same in every process with the same settings, so that they can share results."""
        known = self.settings.supabase_jwt_secret or development_secret(self.settings.maru_home)
        return hashlib.sha256(known.encode()).digest()

    def authenticator(self, scope: str) -> TokenOrKey:
        """Access tokens of the Supabase project, and API keys with that scope."""
        settings = self.settings
        fetch = None
        if settings.supabase_url:
            parts = urlsplit(settings.supabase_url)
            port = parts.port or {"https": 443}.get(parts.scheme, 80)
            fetcher = Fetcher({f"{parts.hostname}:{port}"}, max_bytes=65_536, total_timeout_s=5.0)

            async def fetch(url: str) -> bytes:
                return (await fetcher.get(url, accept="application/json")).body

        secret = settings.supabase_jwt_secret
        if secret is None and fetch is None:
            secret = development_secret(settings.maru_home)
        tokens = SupabaseAuthenticator(secret, settings.supabase_url, fetch)
        self._closing.append(tokens.aclose)
        return TokenOrKey(tokens, KeyAuthenticator(self.keyring, needs=(scope,), plain=settings.api_keys))

    def limiter(self, per_minute: int) -> RateLimiter | None:
        return RateLimiter(per_minute, breaker=self.breaker) if per_minute else None

    def health(self, *models: str) -> Health:
        return Health(self.engine, models, self.telemetry.metrics.render)

    @asynccontextmanager
    async def opened(self, app: object = None) -> AsyncIterator[None]:
        """The lifespan: models load in the background, and at the end all that was opened is closed."""
        async with AsyncExitStack() as stack:
            stack.callback(self.telemetry.close)
            for close in self._closing:
                stack.push_async_callback(close)
            stack.push_async_callback(self.engine.close)
            stack.push_async_callback(_cancelled, asyncio.create_task(self._load()))
            self.engine.lifecycle.advance("ready")
            yield

    async def _load(self) -> None:
        await asyncio.gather(*(room.start() for room in self.rooms.values()))
        for tell in self._when_loaded:
            tell()

    def when_loaded(self, tell: Callable[[], None]) -> None:
        """Call this once every service has its models."""
        self._when_loaded.append(tell)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def open_keys(settings: Settings) -> ApiKeys:
    """The stored API keys."""
    try:
        engine = database.connect(settings.database_url or f"sqlite:///{settings.maru_home / 'maru.db'}")
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    database.create(engine)
    return ApiKeys(engine)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a service is built."""

    service: Service
    build: Callable[[Platform], Room]


def _embedding(platform: Platform) -> Room:
    settings = platform.settings
    configuration = EmbeddingConfiguration(
        home=settings.maru_home,
        model_name=settings.model_name,
        precision=settings.model_quantization,
        max_seq_length=settings.max_seq_length,
        max_batch_size=settings.max_batch_size,
        max_batch_tokens=settings.max_batch_tokens,
        timeout_s=settings.request_timeout_s,
        hf_token=settings.hf_token,
        hf_endpoint=settings.hf_endpoint,
    )
    embeddings = Embeddings(platform.engine, configuration)
    health = platform.health(embeddings.model)
    oip = OpenInference(platform.engine, health, EmbeddingTensors(embeddings))
    app = ServiceApp(
        embedding,
        [*EmbeddingRoutes(embeddings).routes(), *health.routes(), *oip.routes()],
        engine=platform.engine,
        report=platform.telemetry.http,
        authenticator=platform.authenticator("embedding"),
        limiter=platform.limiter(settings.rate_limit_per_min),
        lifespan=platform.opened,
    )
    return Room(embedding, app, health, embeddings.start)


SERVICES = {plan.service.name: plan for plan in (Plan(embedding, _embedding),)}
"""Every service of the platform."""


def alone(platform: Platform) -> ASGIApp:
    """The platform's one service at the root path, as its document has it."""
    (room,) = platform.rooms.values()
    return room.app


def together(platform: Platform) -> ASGIApp:
    """All services of the platform on one port, each under its name, and a home page that names them."""
    rooms = platform.rooms.values()
    health = platform.health(*(model for room in rooms for model in room.health.models))
    home = Home([room.service for room in rooms], health)
    app = ServiceApp(
        home.service, home.routes(), engine=platform.engine, report=platform.telemetry.http, lifespan=platform.opened
    )
    return Gateway({name: room.app for name, room in platform.rooms.items()}, app)
