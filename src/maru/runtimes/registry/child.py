"""The process in which MLflow's client works.

    python -P -m maru.runtimes.registry.child DESCRIPTOR IDLE_S

It reads questions from a connection and answers them, one at a time, until the other end is closed or nothing was
asked for so long: its 170 MiB are worth having back.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maru.engine.errors import EngineError
from maru.runtimes.registry.staging import Staging
from maru.runtimes.registry.types import Bounds, RegisteredVersion, RegistryUnavailable, VersionNotFound

if TYPE_CHECKING:
    from maru.runtimes.registry.mlflow_store import MlflowStore

NICE = 5
"""Whoever waits for a prediction comes before who asks what there is to predict with."""

ENDING_S = 10.0
"""How long a process that has hung up may take to be gone: Python, with all of MLflow in it, on a busy machine."""


class Child:
    """One such process, started at the first question and again when it has ended. Used by one thread at a time;
    `close` may come from any."""

    def __init__(self, store: str | Path, bounds: Bounds, idle_s: float = 60.0) -> None:
        self._given = (store, bounds)
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._closed = False

    def ask(self, method: str, *given: Any) -> Any:
        """What `Answering` has for it, or its error. RegistryUnavailable when the process ended over it."""
        try:
            answer, error = self._exchanged(method, given)
        except (EOFError, OSError) as gone:
            if not self._went_idle():
                raise RegistryUnavailable("the process that reads the registry ended") from gone
            answer, error = self._exchanged(method, given)
        if error is not None:
            raise error
        return answer

    def _exchanged(self, method: str, given: tuple[Any, ...]) -> tuple[Any, Exception | None]:
        connection = self._connected()
        connection.send((method, given))
        answer: tuple[Any, Exception | None] = connection.recv()
        return answer

    def _went_idle(self) -> bool:
        """Whether the process had ended by itself just when it was asked. Whatever it is at, it is gone after this."""
        process = self._process
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(ENDING_S)
        self._end()
        return process is not None and process.returncode == 0

    def close(self) -> None:
        """End the process, whatever it is at."""
        self._closed = True
        self._end()

    def _connected(self) -> Connection[Any, Any]:
        with self._lock:
            if self._closed:
                raise RegistryUnavailable("the registry was closed")
            if self._process is not None and self._process.poll() is not None:
                self._process = self._connection = None
            if self._connection is None:
                ours, theirs = multiprocessing.Pipe()
                with theirs:
                    self._process = subprocess.Popen(  # noqa: S603
                        [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), str(self._idle_s)],
                        pass_fds=[theirs.fileno()],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,  # where a database's driver may print its URL
                        start_new_session=True,
                    )
                self._connection = ours
                ours.send(self._given)
            return self._connection

    def _end(self) -> None:
        with self._lock:
            if self._process is not None:
                if self._process.poll() is None:
                    self._process.kill()
                self._process.wait()
            # Not closed here: a thread may be reading from it, and hears that the other end is gone.
            self._process = self._connection = None


class Answering:
    """In the process: the store, opened when there is one, and asked."""

    def __init__(self, store: str | Path, bounds: Bounds) -> None:
        self._at = store
        self._bounds = bounds
        self._store: MlflowStore | None = None

    def answer(self, method: str, given: tuple[Any, ...]) -> tuple[Any, Exception | None]:
        """What the store's method of that name returns, or the error to raise for it."""
        try:
            asked = self.fetch if method == "fetch" else getattr(self._opened(), method)
            return asked(*given), None
        except (EngineError, ValueError) as error:
            return None, error
        except Exception as error:
            return None, RegistryUnavailable(f"the registry can't be asked ({type(error).__name__})")

    def fetch(self, version: RegisteredVersion, folder: Path) -> None:
        """The version's files into `folder`, whole or not at all."""
        store = self._opened()
        with Staging(folder, self._bounds) as staging:
            store.fetch(version, staging)

    def _opened(self) -> MlflowStore:
        from maru.runtimes.registry.mlflow_store import MlflowStore, database

        if self._store is None:
            if isinstance(self._at, Path) and not database(self._at).exists():
                raise VersionNotFound("nothing was registered yet in the embedded registry")
            self._store = MlflowStore.of(self._at)
        return self._store


def main(descriptor: int, idle_s: float) -> None:
    with suppress(OSError):
        os.nice(NICE)
    connection: Connection[Any, Any] = Connection(descriptor)
    with suppress(EOFError, OSError):
        answering = Answering(*connection.recv())
        while connection.poll(idle_s):
            method, given = connection.recv()
            connection.send(answering.answer(method, given))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
