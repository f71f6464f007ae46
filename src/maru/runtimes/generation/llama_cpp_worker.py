"""One GGUF model in llama.cpp's own server, as the package xllamacpp has it. It imports nothing of Maru.

    python -I llama_cpp_worker.py SOCKET OPTIONS

OPTIONS is JSON, see `llama_cpp.arguments`. The key that requests must bear is in LLAMA_API_KEY.
"""

import json
import os
import resource
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

MISSING, UNREADABLE = 71, 72


def leave(socket: str) -> None:
    """End when the pipe from the process that started this one does, leaving nothing behind."""
    sys.stdin.buffer.read()
    shutil.rmtree(Path(socket).parent, ignore_errors=True)
    os._exit(0)


def parameters(xllamacpp: Any, socket: str, options: dict[str, Any]) -> Any:
    asked = xllamacpp.CommonParams()
    asked.model.path = options["path"]
    asked.hostnames = [socket]
    asked.api_keys = [os.environ.pop("LLAMA_API_KEY")]
    asked.n_parallel = options["slots"]
    asked.n_ctx = options["slots"] * options["context"]  # is divided among the slots
    asked.kv_unified = False
    asked.n_batch = asked.n_ubatch = options["batch"]
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = options["threads"]
    asked.n_gpu_layers = options["gpu_layers"]
    asked.n_threads_http = options["slots"] + 4  # one for each open stream
    asked.cache_ram_mib = options["cache_mib"]
    asked.cache_idle_slots = False
    asked.ui = asked.endpoint_slots = False
    asked.warmup = False
    asked.verbosity = -1
    return asked


def main(socket: str, options: dict[str, Any]) -> None:
    threading.Thread(target=leave, args=(socket,), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what a crash would leave holds what people wrote
    try:
        import xllamacpp  # type: ignore[import-untyped]
    except ImportError:
        os._exit(MISSING)
    try:
        server = xllamacpp.Server(parameters(xllamacpp, socket, options))
    except BaseException:
        os._exit(UNREADABLE)
    threading.Event().wait()
    del server  # is never reached: its destructor can wait for ever


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
