"""Safetensors models, run by transformers' continuous batching in any Python that has it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from maru.runtimes.generation.catalogue import Description
from maru.runtimes.generation.machine import cores
from maru.runtimes.generation.model import GenerationModel
from maru.runtimes.generation.model_folder import ModelFolder
from maru.runtimes.generation.transformers_worker import __main__ as program
from maru.runtimes.generation.worker import Worker

PROCESS_BYTES = 450 << 20
"""What a worker takes beside its model: torch, above all."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True, slots=True)
class Transformers:
    """How models are run, as `LlamaCpp` says it. `python` is an interpreter that has the packages of
    `maru[transformers]`, and starlette and uvicorn."""

    slots: int = 8
    context: int = 4096
    batch: int = 256
    threads: int = 0
    python: str = sys.executable
    load_s: float = 600.0

    def describe(self, path: Path) -> Description:
        """What the files say, once they are vetted: BadModelFile, UnsupportedModel."""
        return self._description(ModelFolder.read(path))

    def open(self, path: Path) -> TransformersModel:
        """Load a folder, in a process of its own. BadModelFile for one that is damaged, before anything is started."""
        folder = ModelFolder.read(path)
        options = {
            "path": str(path.absolute()),
            "slots": self.slots,
            "context": min(self.context, folder.context_length),
            "batch": self.batch,
            "threads": self.threads or cores(),
        }
        command = [self.python, "-I", program.__file__]
        worker = Worker(lambda socket: [*command, socket, json.dumps(options)], OFFLINE)
        worker.ready(self.load_s)
        return TransformersModel(worker, self._description(folder).facts)

    def _description(self, folder: ModelFolder) -> Description:
        context = min(self.context, folder.context_length)
        memory_bytes = PROCESS_BYTES + folder.weight_bytes + (self.slots + 1) * context * folder.token_bytes
        return Description({**folder.facts(), "max_context_length": context, "runtime": "transformers"}, memory_bytes)


class TransformersModel(GenerationModel):
    """A folder of safetensors in a process of transformers'."""
