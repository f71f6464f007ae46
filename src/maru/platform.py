"""What all services of one process share: the engine, the caches, the keys, the tables, and what watches them."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Engine as Tables

from maru import __version__
from maru.auth.development import development_secret
from maru.auth.either import TokenOrKey
from maru.auth.keyring import Keyring
from maru.auth.keys import KeyAuthenticator
from maru.auth.limits import RateLimiter
from maru.auth.supabase import SupabaseAuthenticator
from maru.engine.engine import Engine
from maru.engine.memory import Budget
from maru.http.fetch import Fetcher
from maru.http.health import Health
from maru.http.service import Service, ServiceApp
from maru.runtimes.generation.machine import memory_bytes
from maru.services.llm.configuration import GROUP as LANGUAGE_MODELS
from maru.settings import ConfigurationError, Settings
from maru.storage import database
from maru.storage.api_keys import ApiKeys
from maru.storage.redis import Breaker, connect
from maru.storage.result_cache import RedisResults
from maru.telemetry.document_metrics import Documented
from maru.telemetry.log_writer import LogWriter
from maru.telemetry.telemetry import Telemetry

Start = Callable[[], Coroutine[Any, Any, None]]
Opened = Callable[[], AbstractAsyncContextManager[Any]]

PATIENCE_S = 10.0
"""How long the person who started the server waits to hear of it when a model does not come."""


@dataclass(frozen=True, slots=True)
class Room:
    """A service in this process: its application, how its models get there, and what runs beside its requests."""

    service: Service
    app: ServiceApp
    health: Health
    start: Start
    opened: Opened = nullcontext


@dataclass(frozen=True, slots=True)
class Plan:
    """How a service is built, whether access tokens open it (API keys open all), and whether nothing does but a key."""

    service: Service
    build: Callable[[Platform], Room]
    takes_tokens: bool = False
    needs_key: bool = False


class Platform:
    """What outlives a request. Made once, opened and closed by the lifespan of the application over it."""

    def __init__(self, settings: Settings, plans: Sequence[Plan], writer: LogWriter | None = None) -> None:
        self.settings = settings
        self._closing: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._when_loaded: list[Callable[[], None]] = []
        self._when_late: list[Callable[[str], None]] = []
        self.telemetry = Telemetry(
            __version__,
            [
                Documented(plan.service.name, plan.service.metric_prefix, plan.service.documented)
                for plan in plans
                if plan.service.metric_prefix
            ],
            writer=writer,
            otlp_endpoint=settings.otel_exporter_otlp_endpoint,
        )
        self.tables = open_tables(settings)
        self.keys = ApiKeys(self.tables)
        self.keyring = Keyring(self.keys)
        self._closing.append(self.keyring.aclose)
        self.breaker = self._redis()
        self.engine = Engine(
            cache_bytes=settings.result_cache_mb * 2**20,
            cache_ttl_s=settings.result_cache_ttl_s,
            result_store=RedisResults(self.breaker, self._cache_secret()) if self.breaker else None,
            budgets=budgets(settings),
        )
        self.engine.events.subscribe(self.telemetry.engine)
        self.rooms = {plan.service.name: plan.build(self) for plan in plans}
        database.create(self.tables)  # those that came to be known with the rooms

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

    def key_authenticator(self, scope: str) -> KeyAuthenticator | None:
        """API keys with that scope, once there are keys; None, for a service that is open to all until then."""
        if not (self.settings.api_keys or self.keys.all()):
            return None
        return KeyAuthenticator(self.keyring, needs=(scope,), plain=self.settings.api_keys)

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
            for room in self.rooms.values():
                await stack.enter_async_context(room.opened())
            stack.push_async_callback(_cancelled, asyncio.create_task(self._load()))
            gc.collect()
            gc.freeze()  # what is here stays: looking through it again would hold every request up for 0.1 s
            self.engine.lifecycle.advance("ready")
            yield

    async def _load(self) -> None:
        async with asyncio.TaskGroup() as group:
            starts = {group.create_task(room.start()): name for name, room in self.rooms.items()}
            _, late = await asyncio.wait(starts, timeout=PATIENCE_S)
            gc.freeze()
            for tell in self._when_loaded:
                tell()
            for start in late:
                start.add_done_callback(lambda done: self._late(starts[done]))

    def _late(self, name: str) -> None:
        if self.rooms[name].health.readiness().status == "ready":
            for tell in self._when_late:
                tell(name)

    def when_loaded(self, tell: Callable[[], None]) -> None:
        """Call this once every service has its models, or is taking its time over it."""
        self._when_loaded.append(tell)

    def when_late(self, tell: Callable[[str], None]) -> None:
        """Call this with the name of each service that gets its models after that."""
        self._when_late.append(tell)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def budgets(settings: Settings) -> dict[str, Budget]:
    """The memory that models of each group may take: language models come and go, the others have one name each."""
    most = settings.max_model_mb * 2**20
    return {
        "": Budget(settings.max_models, most),
        LANGUAGE_MODELS: Budget(settings.max_loaded_models, most or memory_bytes(), settings.llm_patience_s),
    }


def open_tables(settings: Settings) -> Tables:
    """The database, with its tables made where they are missing."""
    tables = connected("DATABASE_URL", settings.database_url or f"sqlite:///{settings.maru_home / 'maru.db'}")
    database.create(tables)
    return tables


def connected(name: str, url: str) -> Tables:
    """The database at that URL, which the setting `name` gives."""
    try:
        return database.connect(url)
    except ValueError as error:
        raise ConfigurationError(str(error) if name in str(error) else f"{name}: {error}") from None


def open_keys(settings: Settings) -> ApiKeys:
    """The stored API keys."""
    return ApiKeys(open_tables(settings))
