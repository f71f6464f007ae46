"""A generation server with its benchmarks: `python -m tests.contracts.llm.benchmarks.serve PORT FOLDER SETTINGS`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.contracts.alone import alone
from tests.contracts.llm.benchmarks.paced import PacedRuntime

from maru.runtimes.generation.catalogue import Catalogue
from maru.runtimes.generation.llama_cpp import LlamaCpp
from maru.services.llm.assembly import Generating
from maru.services.llm.benchmarks.assembly import Benchmarking, Store
from maru.services.llm.configuration import Configuration
from maru.storage import database
from maru.storage.redis import Breaker, connect


def main() -> int:
    with alone() as process:
        settings, folder, engine, telemetry = process.settings, process.folder, process.engine, process.telemetry
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
        async def opened() -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                if breaker is not None:
                    stack.push_async_callback(breaker.aclose)
                await stack.enter_async_context(generating.opened())
                await stack.enter_async_context(benchmarking.opened())
                yield

        authenticator = process.authenticator("ai")
        return process.serve(
            generating.service,
            [*generating.routes(generating.health(telemetry.metrics.render)), *benchmarking.routes()],
            opened,
            generating.start,
            authenticator,
            sockets=[benchmarking.websocket(authenticator)],
            grace_s=2,
        )


if __name__ == "__main__":
    raise SystemExit(main())
