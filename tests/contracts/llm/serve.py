"""A generation server: `python -m tests.contracts.llm.serve PORT FOLDER SETTINGS`, the settings as JSON.

With `scripted`, models do what their prompts say; otherwise they are GGUF files, in real workers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

from tests.contracts.llm.scripted import ScriptedRuntime

from maru.auth.keys import KeyAuthenticator
from maru.engine.engine import Engine
from maru.engine.memory import Budget
from maru.http.server import serve
from maru.http.service import ServiceApp
from maru.runtimes.generation.catalogue import Catalogue
from maru.runtimes.generation.llama_cpp import LlamaCpp
from maru.runtimes.generation.transformers import Transformers
from maru.services.llm.assembly import Generating
from maru.services.llm.configuration import GROUP, Configuration
from maru.telemetry.logs import configure
from maru.telemetry.telemetry import Telemetry


def main(port: int, folder: Path, settings: dict[str, Any]) -> int:
    with closing(configure("INFO", "json")) as writer:
        telemetry = Telemetry("0", writer=writer)
        budget = Budget(settings.get("max_models", 2), settings.get("max_model_bytes", 0))
        engine = Engine(budgets={GROUP: budget})
        engine.events.subscribe(telemetry.engine)
        shared = {"slots": settings.get("slots", 2), "context": settings.get("context", 512), "threads": 1}
        python = settings.get("python", sys.executable)
        runtimes: dict[Any, Any] = {"gguf": LlamaCpp(**shared), "safetensors": Transformers(**shared, python=python)}
        if settings.get("scripted"):
            runtimes["gguf"] = ScriptedRuntime(shared["slots"])
        catalogue = Catalogue(folder / "models", runtimes)
        configuration = Configuration(**{"look_s": 0.05, "beat_s": 0.2} | settings.get("configuration", {}))
        generating = Generating(engine, catalogue, configuration)

        @asynccontextmanager
        async def lifespan(app: object) -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                stack.callback(telemetry.close)
                stack.push_async_callback(engine.close)
                await stack.enter_async_context(generating.opened())
                starting = asyncio.create_task(generating.start())
                stack.callback(starting.cancel)
                engine.lifecycle.advance("ready")
                yield

        keys = settings.get("api_keys")
        app = ServiceApp(
            generating.service,
            generating.routes(generating.health(telemetry.metrics.render)),
            engine=engine,
            report=telemetry.http,
            authenticator=KeyAuthenticator(needs=("ai",), plain=keys, plain_scopes=settings.get("scopes", "*"))
            if keys
            else None,
            lifespan=lifespan,
        )
        return serve(app, port=port, lifecycle_of=lambda: engine.lifecycle, grace_s=2, drain_delay_s=0)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
