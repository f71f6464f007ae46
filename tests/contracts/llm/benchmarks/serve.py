"""A generation server with its benchmarks: `python -m tests.contracts.llm.benchmarks.serve PORT FOLDER SETTINGS`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

from tests.contracts.llm.benchmarks.paced import PacedRuntime

from maru.auth.keys import KeyAuthenticator
from maru.engine.engine import Engine
from maru.http.server import serve
from maru.http.service import ServiceApp
from maru.runtimes.generation.catalogue import Catalogue
from maru.runtimes.generation.llama_cpp import LlamaCpp
from maru.services.llm.assembly import Generating
from maru.services.llm.benchmarks.assembly import Benchmarking, Store
from maru.services.llm.configuration import Configuration
from maru.storage import database
from maru.storage.redis import Breaker, connect
from maru.telemetry.logs import configure
from maru.telemetry.telemetry import Telemetry


def main(port: int, folder: Path, settings: dict[str, Any]) -> int:
    with closing(configure("INFO", "json")) as writer:
        telemetry = Telemetry("0", writer=writer)
        engine = Engine()
        engine.events.subscribe(telemetry.engine)
        store = Store.over(database.connect(settings.get("database", f"sqlite:///{folder / 'maru.db'}")))
        breaker = Breaker(connect(settings["redis"])) if "redis" in settings else None
        runtime = LlamaCpp(slots=2, context=512, threads=1) if settings.get("real") else PacedRuntime()
        catalogue = Catalogue(
            Path(settings.get("models", folder / "models")), {"gguf": runtime, "safetensors": runtime}
        )
        generating = Generating(engine, catalogue, Configuration(look_s=0.2, beat_s=3600.0), report=store.served)
        benchmarking = Benchmarking(
            engine, generating.generations, store, telemetry.host, generating.service.envelope, breaker=breaker
        )

        @asynccontextmanager
        async def lifespan(app: object) -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                stack.callback(telemetry.close)
                if breaker is not None:
                    stack.push_async_callback(breaker.aclose)
                stack.push_async_callback(engine.close)
                await stack.enter_async_context(generating.opened())
                await stack.enter_async_context(benchmarking.opened())
                starting = asyncio.create_task(generating.start())
                stack.callback(starting.cancel)
                engine.lifecycle.advance("ready")
                yield

        keys = settings.get("api_keys")
        authenticator = KeyAuthenticator(needs=("ai",), plain=keys) if keys else None
        app = ServiceApp(
            generating.service,
            [*generating.routes(generating.health(telemetry.metrics.render)), *benchmarking.routes()],
            engine=engine,
            report=telemetry.http,
            authenticator=authenticator,
            lifespan=lifespan,
        )
        app.api.router.routes.append(benchmarking.websocket(authenticator))
        return serve(app, port=port, lifecycle_of=lambda: engine.lifecycle, grace_s=2, drain_delay_s=0)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
