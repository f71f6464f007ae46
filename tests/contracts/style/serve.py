"""A style server: `python -m tests.contracts.style.serve PORT FOLDER SETTINGS`, the settings as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

from tests.contracts.style.toy import Toy

from maru.auth.keyring import Keyring
from maru.auth.keys import KeyAuthenticator
from maru.engine.engine import Engine
from maru.http.health import Health
from maru.http.server import serve
from maru.http.service import ServiceApp
from maru.services.style.assembly import Styling
from maru.services.style.bundle import StyleBundle
from maru.services.style.declaration import service
from maru.services.style.model import NAME, Bundle
from maru.services.style.service import Configuration
from maru.storage import database
from maru.storage.api_keys import ApiKeys
from maru.telemetry.logs import configure
from maru.telemetry.telemetry import Telemetry


def opening(settings: dict[str, Any]) -> Any:
    """How a bundle is opened: the starter, or a toy, after `open_s` seconds."""

    def open_bundle(folder: Path) -> Bundle:
        time.sleep(settings.get("open_s", 0.0))
        return Toy(**settings["toy"]) if "toy" in settings else StyleBundle.open(folder)

    return open_bundle


def main(port: int, folder: Path, settings: dict[str, Any]) -> int:
    with closing(configure("INFO", "json")) as writer:
        telemetry = Telemetry("0", writer=writer)
        engine = Engine(cache_ttl_s=settings.get("cache_ttl_s", 3600.0))
        engine.events.subscribe(telemetry.engine)
        tables = database.connect(f"sqlite:///{folder / 'maru.db'}")
        database.create(tables)
        keyring = Keyring(ApiKeys(tables), fresh_s=0.2)
        styling = Styling(
            engine,
            Configuration(
                folder, model=str(folder) if "toy" in settings else None, **settings.get("configuration", {})
            ),
            telemetry.host.sample,
            allowed_hosts=settings.get("allowed_hosts", ()),
            open_bundle=opening(settings),
        )

        @asynccontextmanager
        async def lifespan(app: object) -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                stack.callback(telemetry.close)
                stack.push_async_callback(keyring.aclose)
                stack.push_async_callback(engine.close)
                await stack.enter_async_context(styling.opened())
                starting = asyncio.create_task(styling.styles.start())
                stack.callback(starting.cancel)
                engine.lifecycle.advance("ready")
                yield

        health = Health(engine, (NAME,), telemetry.metrics.render)
        app = ServiceApp(
            service,
            styling.routes(health),
            engine=engine,
            report=telemetry.http,
            authenticator=KeyAuthenticator(keyring, needs=("style",), plain=settings["api_keys"]),
            lifespan=lifespan,
        )
        return serve(
            app, port=port, lifecycle_of=lambda: engine.lifecycle, grace_s=5, drain_delay_s=settings.get("delay_s", 0)
        )


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
