"""A recommendation server over a folder of bundles: `python serve.py PORT FOLDER SETTINGS`, the settings as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

from maru.auth.keys import KeyAuthenticator
from maru.engine.engine import Engine
from maru.http.health import Health
from maru.http.server import serve
from maru.http.service import ServiceApp
from maru.services.recommend.assembly import Recommending
from maru.services.recommend.declaration import service
from maru.services.recommend.service import Configuration
from maru.services.recommend.starter import Starter
from maru.storage import database
from maru.storage.feedback import FeedbackStore
from maru.telemetry.document_metrics import Documented
from maru.telemetry.logs import configure
from maru.telemetry.telemetry import Telemetry


def main(port: int, folder: Path, settings: dict[str, Any]) -> int:
    with closing(configure("INFO", "json")) as writer:
        telemetry = Telemetry("0", [Documented(service.name, service.metric_prefix, service.documented)], writer=writer)
        engine = Engine()
        engine.events.subscribe(telemetry.engine)
        tables = database.connect(f"sqlite:///{folder / 'maru.db'}")
        database.create(tables)
        bundles, compiled = folder / "recommend", Path(settings["compiled"])
        recommending = Recommending(
            engine,
            Configuration(bundles, compiled, **settings.get("configuration", {})),
            FeedbackStore(tables, settings.get("most", 100_000)),
            telemetry.metrics.registry,
            starter=Starter(bundles, compiled, settings["starter"]) if "starter" in settings else None,
        )

        @asynccontextmanager
        async def lifespan(app: object) -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                stack.callback(telemetry.close)
                stack.push_async_callback(engine.close)
                await stack.enter_async_context(recommending.opened())
                starting = asyncio.create_task(recommending.recommendations.start())
                stack.callback(starting.cancel)
                engine.lifecycle.advance("ready")
                yield

        keys = settings.get("api_keys")
        health = Health(engine, (recommending.recommendations.model,), telemetry.metrics.render)
        app = ServiceApp(
            service,
            recommending.routes(health),
            engine=engine,
            report=telemetry.http,
            authenticator=KeyAuthenticator(needs=("recommend",), plain=keys) if keys else None,
            lifespan=lifespan,
        )
        return serve(app, port=port, lifecycle_of=lambda: engine.lifecycle, grace_s=5, drain_delay_s=0)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
