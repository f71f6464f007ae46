"""A generation server: `python -m tests.contracts.llm.serve PORT FOLDER SETTINGS`, the settings as JSON.

With `scripted`, models do what their prompts say; otherwise they are GGUF files, in real workers.
"""

from __future__ import annotations

import sys
from typing import Any

from tests.contracts.alone import alone
from tests.contracts.llm.scripted import ScriptedRuntime

from maru.engine.engine import Engine
from maru.engine.memory import Budget
from maru.runtimes.generation.catalogue import Catalogue
from maru.runtimes.generation.llama_cpp import LlamaCpp
from maru.runtimes.generation.transformers import Transformers
from maru.services.llm.assembly import Generating
from maru.services.llm.configuration import GROUP, Configuration


def engine_of(settings: dict[str, Any]) -> Engine:
    return Engine(budgets={GROUP: Budget(settings.get("max_models", 2), settings.get("max_model_bytes", 0))})


def main() -> int:
    with alone(engine_of) as process:
        settings = process.settings
        shared = {"slots": settings.get("slots", 2), "context": settings.get("context", 512), "threads": 1}
        python = settings.get("python", sys.executable)
        runtimes: dict[Any, Any] = {"gguf": LlamaCpp(**shared), "safetensors": Transformers(**shared, python=python)}
        if settings.get("scripted"):
            runtimes["gguf"] = ScriptedRuntime(shared["slots"])
        catalogue = Catalogue(process.folder / "models", runtimes)
        configuration = Configuration(**{"look_s": 0.05, "beat_s": 0.2} | settings.get("configuration", {}))
        generating = Generating(process.engine, catalogue, configuration)
        return process.serve(
            generating.service,
            generating.routes(generating.health(process.telemetry.metrics.render)),
            generating.opened,
            generating.start,
            process.authenticator("ai"),
            grace_s=2,
        )


if __name__ == "__main__":
    raise SystemExit(main())
