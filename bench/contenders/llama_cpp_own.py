"""llama.cpp's own server, from the package that Maru runs it from, with nothing before it.

python llama_cpp_own.py PORT MODEL SLOTS CONTEXT THREADS
"""

from __future__ import annotations

import sys
import threading

import xllamacpp


def main(port: int, model: str, slots: int, context: int, threads: int) -> None:
    asked = xllamacpp.CommonParams()
    asked.model.path = model
    asked.hostnames = ["127.0.0.1"]
    asked.port = port
    asked.n_parallel = slots
    asked.n_ctx = slots * context
    asked.kv_unified = False
    asked.n_batch = asked.n_ubatch = 256
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = threads
    asked.n_threads_http = slots + 4
    asked.cache_ram_mib = 0
    asked.cache_idle_slots = False
    asked.warmup = False
    asked.verbosity = -1
    server = xllamacpp.Server(asked)
    threading.Event().wait()
    del server


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]))
