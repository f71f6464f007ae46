"""A process with one model in it, which speaks llama.cpp's server protocol on a socket that is ours alone.

Native code that reads a file from somewhere does so there: its crash is a model that has to be loaded again, and
ending it gives back every byte. It ends with the process that started it, however that ends.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from maru.engine.errors import ModelLoadFailed, OutOfMemory
from maru.runtimes.errors import UnsupportedModel
from maru.runtimes.generation.machine import gpu_bytes_of

INHERITED = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
)  # fmt: skip
"""What a worker is told of our environment. Everything else may be a secret."""

PATIENT = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
"""Threads that wait must sleep: spinning, they take the cores from all others (measured: 20 to 50 times slower)."""

MISSING, UNREADABLE, TOO_LARGE = 71, 72, 73
"""What our own workers exit with: a package is missing, the model can't be loaded, memory is exhausted."""

LONGEST_NAME = 107
"""The longest name that a socket may have, in bytes."""

POLL_S = 0.005


class Worker:
    """Started by its constructor, ready after `ready`. `kill` may come from any thread, more than once."""

    def __init__(self, command: Callable[[str], Sequence[str]], environment: Mapping[str, str] | None = None) -> None:
        """`command` is given the name of the socket. UnsupportedModel when the program can't be started."""
        self.key = secrets.token_urlsafe(24)
        """What every request must bear."""
        self._folder = tempfile.TemporaryDirectory(prefix="maru-", ignore_cleanup_errors=True)
        self.socket = str(Path(self._folder.name) / "llm.sock")
        if len(os.fsencode(self.socket)) > LONGEST_NAME:
            raise UnsupportedModel("TMPDIR is too long a name for a socket in it")
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        try:
            self._process = subprocess.Popen(  # noqa: S603
                command(self.socket),
                stdin=subprocess.PIPE,  # whose end tells it that we have ended
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # where a server may print what a person wrote
                env={**inherited, **PATIENT, **(environment or {}), "LLAMA_API_KEY": self.key},
                cwd=self._folder.name,
                start_new_session=True,
            )
        except OSError as error:
            self._folder.cleanup()
            raise UnsupportedModel("the program that is to run the model can't be started") from error

    def ready(self, within_s: float) -> None:
        """Wait until the model is loaded. ModelLoadFailed or OutOfMemory, with the process ended, if it isn't."""
        until = time.monotonic() + within_s
        try:
            while not self._healthy():
                if not self.alive():
                    raise self._reason()
                if time.monotonic() > until:
                    raise ModelLoadFailed(f"the model was not loaded within {within_s:g} s")
                time.sleep(POLL_S)
        except BaseException:
            self.kill()
            raise

    def alive(self) -> bool:
        return self._process.poll() is None

    def memory_bytes(self) -> int:
        """What the process and its children hold, mapped weights included, in the machine's memory and on its GPUs;
        0 where that can't be told."""
        family = _family(self._process.pid)
        return sum(map(_resident, family)) + gpu_bytes_of(family)

    def kill(self) -> None:
        """End it, and whatever it has started."""
        with suppress(ProcessLookupError):
            if self.alive():
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._folder.cleanup()

    def _healthy(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(self.socket)
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")
                return connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def _reason(self) -> Exception:
        match self._process.wait():
            case code if code == MISSING:
                return UnsupportedModel("the Python that is to run the model lacks a package that it needs")
            case code if code in (TOO_LARGE, -signal.SIGKILL):
                return OutOfMemory("the model does not fit into the memory there is")
            case _:
                return ModelLoadFailed("the model's process could not load it")


def _family(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (OSError, ValueError):
        return [pid]
    return [pid, *(member for child in children for member in _family(child))]


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
