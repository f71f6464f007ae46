"""A program that knows nothing of the process that started it, made to end with it. It imports nothing of Maru.

    python -I native_worker.py SOCKET PROGRAM ARGUMENT…

SOCKET is in a folder of its own, which goes with the program.
"""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

PR_SET_PDEATHSIG = 1
MISSING = 71


def end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def leave(process: subprocess.Popen[bytes]) -> None:
    """End the program when the pipe from the process that started this one ends."""
    sys.stdin.buffer.read()
    process.kill()


def main(socket: str, command: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what a crash would leave holds what people wrote
    preparing = end_with_parent if sys.platform == "linux" else None
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=preparing)  # noqa: S603
    except OSError:
        os._exit(MISSING)
    threading.Thread(target=leave, args=(process,), daemon=True).start()
    code = process.wait()
    shutil.rmtree(Path(socket).parent, ignore_errors=True)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
