from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from maru.telemetry.log_writer import LogWriter
from maru.telemetry.logs import configure

NAMES = ("maru", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class Pipe:
    """A pipe whose reader keeps all that was written."""

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        self.data = b""
        self._reader = threading.Thread(target=self._run, daemon=True)
        self._reader.start()

    def _run(self) -> None:
        while chunk := os.read(self._read, 1 << 16):
            self.data += chunk
        os.close(self._read)

    def close(self) -> None:
        os.close(self.write)
        self._reader.join()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Puts the process's logging back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    kept = [(logging.getLogger(n), logging.getLogger(n).level, logging.getLogger(n).propagate) for n in NAMES]
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger, its_level, propagate in kept:
        logger.setLevel(its_level)
        logger.propagate = propagate


class Logged:
    """The lines that came out, so far."""

    def __init__(self, **options: Any) -> None:
        self._pipe = Pipe()
        self.writer: LogWriter = configure(fd=self._pipe.write, **options)

    def text(self) -> str:
        self.writer.close()
        self._pipe.close()
        return self._pipe.data.decode()

    def lines(self) -> list[dict[str, Any]]:
        text = self.text()
        assert text.endswith("\n") or not text
        return [orjson.loads(line) for line in text.split("\n")[:-1]]


@pytest.fixture
def logged(quiet: None) -> Callable[..., Logged]:
    """Configures logging, and reads what comes of it."""
    return Logged
