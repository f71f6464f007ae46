"""The parts of the style service, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from maru.engine.engine import Engine
from maru.http.endpoint import Route
from maru.http.fetch import Fetcher
from maru.http.health import Health
from maru.http.oip import OpenInference
from maru.services.style.bundle import StyleBundle
from maru.services.style.images import Images
from maru.services.style.machine import Machine
from maru.services.style.model import Bundle
from maru.services.style.routes import Routes
from maru.services.style.service import Configuration, Styles
from maru.services.style.tensors import StyleTensors
from maru.telemetry.host import HostSample

FETCH_S = 10.0


class Styling:
    """One style service: its routes, and what runs beside them. `sample` tells how busy the machine is; it is called
    in threads. `open_bundle` opens the bundle in a folder."""

    def __init__(
        self,
        engine: Engine,
        configuration: Configuration,
        sample: Callable[[], HostSample],
        *,
        allowed_hosts: Iterable[str] = (),
        open_bundle: Callable[[Path], Bundle] = StyleBundle.open,
    ) -> None:
        self._engine = engine
        self._fetcher = Fetcher(allowed_hosts, total_timeout_s=min(FETCH_S, configuration.timeout_s))
        self._machine = Machine(sample)
        self.styles = Styles(engine, configuration, open_bundle, Images(engine, self._fetcher), self._machine)
        self._routes = Routes(self.styles, engine)

    def routes(self, health: Health) -> list[Route]:
        """Every endpoint, of the document and of the platform. Readiness is told in the document's words."""
        own = self._routes.routes()
        taken = {(route.method, route.path) for route in own}
        platforms = [route for route in health.routes() if (route.method, route.path) not in taken]
        tensors = OpenInference(self._engine, health, StyleTensors(self.styles, self._engine))
        return [*own, *platforms, *tensors.routes()]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Images can be fetched and the machine is looked at, until no request is answered any more."""
        async with self._fetcher, self._machine.opened():
            yield
