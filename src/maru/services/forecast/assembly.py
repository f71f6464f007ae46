"""The parts of the forecast service, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from maru.engine.engine import Engine
from maru.http.endpoint import Route
from maru.http.fetch import Fetcher
from maru.http.health import Health
from maru.http.oip import OpenInference
from maru.runtimes.registry.types import Registry
from maru.services.forecast.callbacks import FIRST_TRIES, FIRST_TRY_S, LATER_TRIES, LATER_TRY_S, Callbacks, Pace, Result
from maru.services.forecast.configuration import Configuration
from maru.services.forecast.routes import Routes
from maru.services.forecast.service import Forecasts
from maru.services.forecast.tensors import ForecastTensors
from maru.storage.callbacks import Outbox


class Forecasting:
    """One forecast service: its routes, and what runs beside them.

    `callback_key` signs callbacks, `hook_key` proves that an event is MLflow's; None for neither. `seed` puts a
    starter into an empty registry, see `Forecasts`. `report` is told what becomes of each try of a callback.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        configuration: Configuration,
        outbox: Outbox,
        *,
        allowed_hosts: Iterable[str] = (),
        callback_key: bytes | None = None,
        hook_key: bytes | None = None,
        seed: Callable[[], Awaitable[None]] | None = None,
        pace: Pace | None = None,
        report: Callable[[Result], None] = lambda result: None,
    ) -> None:
        hosts = frozenset(allowed_hosts)
        self._first = Fetcher(
            hosts, connect_timeout_s=FIRST_TRY_S, total_timeout_s=FIRST_TRY_S, max_concurrent=FIRST_TRIES
        )
        self._later = Fetcher(hosts, total_timeout_s=LATER_TRY_S, max_concurrent=LATER_TRIES)
        self._engine = engine
        self.forecasts = Forecasts(engine, registry, configuration, seed)
        self.callbacks = Callbacks(outbox, self._first, self._later, callback_key, pace=pace, report=report)
        self._routes = Routes(self.forecasts, self.callbacks, hook_key)

    def routes(self, health: Health) -> list[Route]:
        """Every endpoint, of the document and of the platform."""
        tensors = OpenInference(self._engine, health, ForecastTensors(self.forecasts))
        return [*self._routes.routes(), *health.routes(), *tensors.routes()]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Callbacks are delivered and the alias is followed, until no request is answered any more."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._first)
            await stack.enter_async_context(self._later)
            await stack.enter_async_context(self.callbacks.delivering())
            await stack.enter_async_context(self.forecasts.following())
            yield
