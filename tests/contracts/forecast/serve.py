"""A forecast server over a folder registry: `python serve.py PORT FOLDER SETTINGS`, the settings as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

from tests.contracts.forecast.folder_registry import FolderRegistry, Shelf

from maru.auth.keys import KeyAuthenticator
from maru.engine.engine import Engine
from maru.http.health import Health
from maru.http.server import serve
from maru.http.service import ServiceApp
from maru.http.standard_webhooks import key_of
from maru.runtimes.registry.open import open_registry
from maru.runtimes.registry.types import Registry
from maru.services.forecast.assembly import Forecasting
from maru.services.forecast.callbacks import Pace
from maru.services.forecast.declaration import service
from maru.services.forecast.service import Configuration
from maru.storage import database
from maru.storage.callbacks import Outbox
from maru.telemetry.logs import configure
from maru.telemetry.telemetry import Telemetry


def registry_of(settings: dict[str, Any], folder: Path) -> Registry:
    if "tracking_uri" in settings:  # None for the embedded one
        return open_registry(settings["tracking_uri"], folder)
    return FolderRegistry(Shelf(folder / "registry"))


def main(port: int, folder: Path, settings: dict[str, Any]) -> int:
    with closing(configure("INFO", "json")) as writer:
        telemetry = Telemetry("0", writer=writer)
        engine = Engine()
        engine.events.subscribe(telemetry.engine)
        tables = database.connect(f"sqlite:///{folder / 'maru.db'}")
        database.create(tables)
        forecasting = Forecasting(
            engine,
            registry_of(settings, folder),
            Configuration(**settings.get("configuration", {})),
            Outbox(tables, most=settings.get("most", 10_000)),
            allowed_hosts=settings.get("allowed_hosts", ()),
            callback_key=key_of(settings["callback_secret"]) if "callback_secret" in settings else None,
            hook_key=settings["hook_secret"].encode() if "hook_secret" in settings else None,
            pace=Pace(**settings.get("pace", {})),
        )

        @asynccontextmanager
        async def lifespan(app: object) -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                stack.callback(telemetry.close)
                stack.push_async_callback(engine.close)
                await stack.enter_async_context(forecasting.opened())
                starting = asyncio.create_task(forecasting.forecasts.start())
                stack.callback(starting.cancel)
                engine.lifecycle.advance("ready")
                yield

        keys = settings.get("api_keys")
        health = Health(engine, (forecasting.forecasts.model,), telemetry.metrics.render)
        app = ServiceApp(
            service,
            forecasting.routes(health),
            engine=engine,
            report=telemetry.http,
            authenticator=KeyAuthenticator(needs=("forecast",), plain=keys) if keys else None,
            lifespan=lifespan,
        )
        return serve(app, port=port, lifecycle_of=lambda: engine.lifecycle, grace_s=5, drain_delay_s=0)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
