"""GGUF models, run by llama.cpp: the one that the package xllamacpp brings, or a `llama-server` of one's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maru.runtimes.generation import llama_cpp_worker, native_worker
from maru.runtimes.generation.catalogue import Description
from maru.runtimes.generation.gguf_file import GgufFile
from maru.runtimes.generation.machine import cores
from maru.runtimes.generation.model import GenerationModel
from maru.runtimes.generation.worker import Worker

PROCESS_BYTES = 48 << 20
"""What a worker takes beside its model."""


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """How models are run.

    `slots` answers are computed at once, each with a context of `context` tokens at most. A prompt is read
    `batch` tokens at a time: between two batches others get their next token, and a reader who has left is
    noticed. `threads` 0 is as many as there are cores; `gpu_layers` -1 as many as fit on the GPU, if there is one.
    `cache_mib` is kept in memory of prompts whose slots were taken over. `server` is a `llama-server` program
    to be used instead of the package, for example one that was compiled for this machine.
    """

    slots: int = 8
    context: int = 4096
    batch: int = 256
    threads: int = 0
    gpu_layers: int = -1
    cache_mib: int = 0
    server: Path | None = None
    python: str = sys.executable
    load_s: float = 600.0

    def context_of(self, file: GgufFile) -> int:
        """Tokens that one answer and its prompt may have together. llama.cpp keeps room for a multiple of 256."""
        return min(-(-self.context // 256) * 256, file.context_length)

    def describe(self, path: Path) -> Description:
        """What the header says, once it is vetted: BadModelFile, UnsupportedModel.

        The memory is computed: the weights, and what is kept of every token in every slot.
        """
        file = GgufFile.read(path)
        context = self.context_of(file)
        memory_bytes = PROCESS_BYTES + file.weight_bytes + self.slots * context * file.token_bytes
        return Description({**file.facts(), "max_context_length": context, "runtime": "llama_cpp"}, memory_bytes)

    def open(self, path: Path) -> LlamaCppModel:
        """Load a file, in a process of its own. BadModelFile for one that is damaged, before anything is started."""
        file = GgufFile.read(path)
        options = {
            "path": str(path.absolute()),
            "slots": self.slots,
            "context": self.context_of(file),
            "batch": self.batch,
            "threads": self.threads or cores(),
            "gpu_layers": self.gpu_layers,
            "cache_mib": self.cache_mib,
        }
        worker = Worker(lambda socket: self._command(socket, options))
        worker.ready(self.load_s)
        return LlamaCppModel(worker, self.describe(path).facts)

    def _command(self, socket: str, options: Mapping[str, Any]) -> list[str]:
        if self.server is None:
            return [self.python, "-I", llama_cpp_worker.__file__, socket, json.dumps(options)]
        return [self.python, "-I", native_worker.__file__, socket, str(self.server), *native(socket, options)]


class LlamaCppModel(GenerationModel):
    """A GGUF model in a process of llama.cpp's server."""


def native(socket: str, options: Mapping[str, Any]) -> list[str]:
    """The same options in the words of `llama-server`'s command line."""
    layers = "auto" if options["gpu_layers"] < 0 else options["gpu_layers"]
    given = {
        "--model": options["path"],
        "--host": socket,
        "--parallel": options["slots"],
        "--ctx-size": options["slots"] * options["context"],
        "--batch-size": options["batch"],
        "--ubatch-size": options["batch"],
        "--threads": options["threads"],
        "--threads-batch": options["threads"],
        "--threads-http": options["slots"] + 4,
        "--n-gpu-layers": layers,
        "--cache-ram": options["cache_mib"],
    }
    flags = ["--no-kv-unified", "--no-cache-idle-slots", "--no-ui", "--no-slots", "--no-warmup", "--offline", "--jinja"]
    return [str(word) for pair in given.items() for word in pair] + flags
