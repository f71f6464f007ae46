"""A service alone in its process, without the platform around it: `python -m MODULE PORT FOLDER SETTINGS`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maru.auth.keys import KeyAuthenticator
from maru.engine.engine import Engine
from maru.http.endpoint import Route
from maru.http.health import Health
from maru.http.server import serve
from maru.http.service import Service, ServiceApp
from maru.telemetry.document_metrics import Documented
from maru.telemetry.logs import configure
from maru.telemetry.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Alone:
    """What such a process has before its service is built."""

    port: int
    folder: Path
    settings: dict[str, Any]
    engine: Engine
    telemetry: Telemetry

    def health(self, *models: str) -> Health:
        return Health(self.engine, models, self.telemetry.metrics.render)

    def authenticator(self, scope: str) -> KeyAuthenticator | None:
        """The settings' `api_keys`; None for a service that is open to all."""
        keys, scopes = self.settings.get("api_keys"), self.settings.get("scopes", "*")
        return KeyAuthenticator(needs=(scope,), plain=keys, plain_scopes=scopes) if keys else None

    def serve(
        self,
        service: Service,
        routes: Iterable[Route],
        opened: Callable[[], AbstractAsyncContextManager[Any]],
        start: Callable[[], Coroutine[Any, Any, None]],
        authenticator: KeyAuthenticator | None,
        *,
        sockets: Sequence[Any] = (),
        grace_s: float = 5,
    ) -> int:
        """Until it is told to stop. `opened` is what runs beside the requests, `start` loads the models."""

        @asynccontextmanager
        async def lifespan(app: object) -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                stack.callback(self.telemetry.close)
                stack.push_async_callback(self.engine.close)
                await stack.enter_async_context(opened())
                starting = asyncio.create_task(start())
                stack.callback(starting.cancel)
                self.engine.lifecycle.advance("ready")
                yield

        app = ServiceApp(
            service,
            list(routes),
            engine=self.engine,
            report=self.telemetry.http,
            authenticator=authenticator,
            lifespan=lifespan,
        )
        app.api.router.routes.extend(sockets)
        lifecycle = self.engine.lifecycle
        return serve(app, port=self.port, lifecycle_of=lambda: lifecycle, grace_s=grace_s, drain_delay_s=0)


@contextmanager
def alone(
    engine_of: Callable[[dict[str, Any]], Engine] = lambda settings: Engine(), documented: Sequence[Documented] = ()
) -> Iterator[Alone]:
    """By the command line. `engine_of` is given the settings."""
    settings: dict[str, Any] = json.loads(sys.argv[3])
    with closing(configure("INFO", "json")) as writer:
        telemetry = Telemetry("0", documented, writer=writer)
        engine = engine_of(settings)
        engine.events.subscribe(telemetry.engine)
        yield Alone(int(sys.argv[1]), Path(sys.argv[2]), settings, engine, telemetry)
