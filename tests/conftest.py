"""Real servers for tests, on free ports, in temporary folders."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

ROOT = Path(__file__).parents[1]
MARU = ("-c", "from maru.cli import main; main()")
S = TypeVar("S", bound="Server")

SECRET = "tests-sign-their-tokens-with-this-0123456789"
"""The SUPABASE_JWT_SECRET of every server that a test starts."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


COMPILED = Path(tempfile.gettempdir()) / "maru-tests-compiled"
"""Machine code of the numeric loops, kept from run to run: it takes half a minute to make."""


def keep_compiled(home: Path) -> None:
    """Let a home have the machine code that other tests made."""
    (home / "cache").mkdir(parents=True, exist_ok=True)
    COMPILED.mkdir(exist_ok=True)
    if not (home / "cache" / "numba").exists():
        (home / "cache" / "numba").symlink_to(COMPILED)


class Server:
    """A `maru` process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, home: Path, output: Path) -> None:
        self.process = process
        self.port = port
        self.home = home
        self.output = output
        self.url = f"http://127.0.0.1:{port}"

    def token(self, sub: str = "tester", life_s: float = 600.0) -> str:
        from maru.auth.token import issue

        return issue(SECRET, sub, life_s)

    def headers(self, sub: str = "tester") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(sub)}"}

    def client(self, sub: str = "tester", **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers(sub), timeout=30, **options)  # type: ignore[arg-type]

    def log(self) -> str:
        return self.output.read_text()

    def wait(self, path: str = "/readyz", timeout_s: float = 60.0) -> None:
        """Until that path answers 200."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended:\n{self.log()}")
            try:
                if httpx.get(self.url + path, timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"{path} never was 200:\n{self.log()}")

    @staticmethod
    def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < until, "it did not come true in time"
            time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 40.0) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


@contextmanager
def started(kind: type[S], home: Path, port: int, *arguments: str, **settings: str) -> Iterator[S]:
    """A Python process that serves at `port`. Of this environment it has what says where things are; its state and its
    output are in `home`, and it is gone in the end."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    output = home / "output.log"
    with output.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, *arguments], env={**inherited, **settings},
            stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, cwd=home,
        )  # fmt: skip
    try:
        yield kind(process, port, home, output)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextmanager
def running(folder: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    """A `maru` with these arguments and settings; its state and its output are in `folder`."""
    port = free_port()
    own = {
        "MARU_HOME": str(folder),
        "SUPABASE_JWT_SECRET": SECRET,
        "RATE_LIMIT_PER_MIN": "0",
        "DRAIN_DELAY_S": "0",
        "RECOMMEND_STARTER_EVENTS": "5000",
    }
    keep_compiled(folder)
    with started(Server, folder, port, *MARU, *arguments, "--port", str(port), **{**own, **settings}) as server:
        yield server


@contextmanager
def serving(kind: type[S], module: str, home: Path, settings: Mapping[str, Any], **more: str) -> Iterator[S]:
    """`python -m module PORT HOME SETTINGS`: one of the tests' own servers. `more` is for its environment."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    more["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with started(kind, home, port, "-m", module, str(port), str(home), json.dumps(settings), **more) as server:
        yield server


def maru(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """One `maru` command, to its end."""
    environment = {"PATH": os.environ["PATH"], "MARU_HOME": str(home), "COLUMNS": "200", **settings}
    command = [sys.executable, *MARU, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=home, timeout=120)


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose model graphs are built once, for servers that need not show that they build them."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def embedding(graphs: Path) -> Iterator[Server]:
    """`maru serve embedding` with the default model and no rate limit."""
    with running(graphs, "serve", "embedding") as server:
        server.wait()
        yield server
