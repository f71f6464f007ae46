"""The program.

    python -I transformers_worker/__main__.py SOCKET OPTIONS

OPTIONS is JSON, see `transformers.Transformers.open`. The key that requests must bear is in LLAMA_API_KEY.
"""

import json
import logging
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

if not __package__:  # run as a file: its folder is the package
    __package__ = "transformers_worker"
    sys.modules[__package__] = ModuleType(__package__)
    sys.modules[__package__].__path__ = [str(Path(__file__).parent)]

MISSING, UNREADABLE, TOO_LARGE = 71, 72, 73
STALLED_S = 120.0
"""How long nothing may come of requests that are under way before the process ends itself."""


def leave(socket: str) -> None:
    """End when the pipe from the process that started this one does, leaving nothing behind."""
    sys.stdin.buffer.read()
    shutil.rmtree(Path(socket).parent, ignore_errors=True)
    os._exit(0)


def watch(manager: Any, busy: Callable[[], bool], stalled_s: float = STALLED_S) -> None:
    """End when transformers' manager has ended or stalled: it goes on saying that it runs."""
    seen, since = -1, time.monotonic()
    while True:
        time.sleep(0.25)
        thread, steps = manager._generation_thread, manager.current_batch
        if thread is None or not thread.is_alive() or manager.background_thread_status.fatal_error is not None:
            os._exit(1)
        if not busy() or steps != seen:
            seen, since = steps, time.monotonic()
        elif time.monotonic() - since > stalled_s:
            os._exit(1)


def main(socket: str, options: dict[str, Any]) -> None:
    threading.Thread(target=leave, args=(socket,), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what a crash would leave holds what people wrote
    logging.disable()  # and so may what a library says of an error
    try:
        import psutil  # type: ignore[import-untyped]  # noqa: F401  # transformers asks for it too late
        import uvicorn

        from .generation import Generation
        from .server import Server
    except ImportError:
        os._exit(MISSING)
    try:
        generation = Generation(options)
    except Exception as error:
        large = isinstance(error, MemoryError) or "OutOfMemory" in repr(error) or "allocate memory" in repr(error)
        os._exit(TOO_LARGE if large else UNREADABLE)
    threading.Thread(target=watch, args=(generation.manager, generation.busy), daemon=True).start()
    try:
        server = Server(generation, os.environ.pop("LLAMA_API_KEY"))
        uvicorn.run(server, uds=socket, ws="none", lifespan="off", log_config=None, access_log=False)
    finally:
        os._exit(1)  # the manager's thread would go on


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
