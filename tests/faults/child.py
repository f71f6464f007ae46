"""The workshop as a server process."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WORKSHOP = Path(__file__).parent.parent / "http" / "live.py"


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """A listening socket that the test holds, as a supervisor would."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield listener


@contextlib.contextmanager
def process(
    listener: socket.socket,
    *,
    drain_delay_s: float = 0,
    grace_s: float = 5,
    files: int | None = None,
    loop: str = "",
) -> Iterator[subprocess.Popen[bytes]]:
    """The workshop in a process of its own, which accepts at `listener` and may open so many files."""

    def limit() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    child = subprocess.Popen(
        [sys.executable, WORKSHOP, str(listener.fileno()), str(drain_delay_s), str(grace_s), loop],
        pass_fds=[listener.fileno()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=limit,
    )
    assert child.stderr is not None
    try:
        assert child.stderr.readline() == b"ready\n"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stderr.close()
