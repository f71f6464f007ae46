"""The processes that models are in: who may talk to them, what they know, and that none is left behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.runtimes.generation.asking import run, said

from maru.engine.errors import ModelLoadFailed, OutOfMemory
from maru.runtimes.errors import UnsupportedModel
from maru.runtimes.generation import native_worker
from maru.runtimes.generation.llama_cpp import LlamaCpp
from maru.runtimes.generation.model import GenerationModel
from maru.runtimes.generation.worker import Worker

Opened = Callable[..., GenerationModel]


def wait_for(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def script(tmp_path: Path, content: str) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(content))
    return [sys.executable, "-I", str(path)]


def test_a_worker_is_for_this_user_alone_and_for_those_who_have_its_key(opened: Opened, random_model: Path) -> None:
    model = opened(random_model)
    name = model._worker.socket
    assert stat.S_IMODE(Path(name).parent.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(name)
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        assert b"401" in connection.recv(100)


def test_a_worker_listens_on_no_port(opened: Opened, random_model: Path) -> None:
    pid = opened(random_model)._worker._process.pid
    sockets = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if "socket:" in str(link.readlink())}
    inodes = {name.removeprefix("socket:[").removesuffix("]") for name in sockets}
    listed = [
        line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()
    ]
    assert inodes and not [line for line in listed if len(line) > 9 and line[9] in inodes]


def test_a_worker_is_told_no_secret_and_its_threads_wait_in_patience(
    opened: Opened, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "API_KEYS", "DATABASE_URL", "SUPABASE_JWT_SECRET"):
        monkeypatch.setenv(name, "a-secret-that-is-not-for-workers")
    model = opened(random_model)
    pid = model._worker._process.pid
    assert b"a-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert b"OMP_WAIT_POLICY=passive" in Path(f"/proc/{pid}/environ").read_bytes()
    assert model._worker.key.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_closing_ends_the_process_and_leaves_nothing(opened: Opened, random_model: Path) -> None:
    model = opened(random_model)
    pid, folder = model._worker._process.pid, Path(model._worker.socket).parent
    assert model._worker.memory_bytes() > 1 << 20
    model.close()
    model.close()
    assert gone(pid) and not folder.exists() and not model.alive() and model._worker.memory_bytes() == 0


@pytest.mark.parametrize("native", [False, True])
def test_a_worker_ends_with_the_process_that_started_it_however_that_ends(
    tmp_path: Path, random_model: Path, native: bool
) -> None:
    server = tmp_path / "llama-server"
    server.write_text(f"#!/bin/sh\nexec {sys.executable} -I {_stand_in(tmp_path)} $4\n")  # --model M --host SOCKET
    server.chmod(0o700)
    chosen = f"Path({str(server)!r})" if native else "None"
    parent = script(
        tmp_path,
        f"""
        import sys, time
        from pathlib import Path
        from maru.runtimes.generation.llama_cpp import LlamaCpp
        model = LlamaCpp(slots=1, context=256, threads=1, server={chosen}).open(Path({str(random_model)!r}))
        print(model._worker._process.pid, model._worker.socket, flush=True)
        time.sleep(600)
        """,
    )
    process = subprocess.Popen(parent, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        pid, name = process.stdout.readline().split()
        family = [int(pid), *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        assert len(family) == 2 if native else len(family) == 1
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for member in family:
        wait_for(lambda member=member: gone(member))  # type: ignore[misc]
    wait_for(lambda: not Path(name).parent.exists())


def _stand_in(tmp_path: Path) -> Path:
    """What a native server looks like from outside, until somebody asks it for an answer."""
    path = tmp_path / "stand_in.py"
    path.write_text(
        textwrap.dedent(
            """
            import socket, sys
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(sys.argv[1])
            listening.listen()
            while True:
                connection, _ = listening.accept()
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
                connection.close()
            """
        )
    )
    return path


def test_when_the_native_server_ends_so_does_its_keeper(tmp_path: Path) -> None:
    command = [sys.executable, "-I", native_worker.__file__]
    worker = Worker(lambda name: [*command, name, sys.executable, "-I", str(_stand_in(tmp_path)), name])
    try:
        worker.ready(20)
        (child,) = map(
            int, Path(f"/proc/{worker._process.pid}/task/{worker._process.pid}/children").read_text().split()
        )
        assert worker.memory_bytes() > 5 << 20, "the server's memory is counted, not only its keeper's"
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: not worker.alive())
    finally:
        worker.kill()


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (71, UnsupportedModel, "package"),
        (72, ModelLoadFailed, "could not load"),
        (73, OutOfMemory, "memory"),
        (0, ModelLoadFailed, "could not load"),
        (-signal.SIGSEGV, ModelLoadFailed, "could not load"),
        (-signal.SIGKILL, OutOfMemory, "memory"),
    ],
)
def test_how_a_worker_ended_while_loading_is_told(tmp_path: Path, code: int, kind: type[Exception], said: str) -> None:
    ending = f"os.kill(os.getpid(), {-code})" if code < 0 else f"os._exit({code})"
    worker = Worker(lambda name: script(tmp_path, f"import os\n{ending}"))
    with pytest.raises(kind, match=said):
        worker.ready(20)
    assert not Path(worker.socket).parent.exists()


def test_a_worker_that_never_is_ready_is_ended(tmp_path: Path) -> None:
    worker = Worker(lambda name: script(tmp_path, "import time\ntime.sleep(600)"))
    with pytest.raises(ModelLoadFailed, match=r"0\.2 s"):
        worker.ready(0.2)
    assert not worker.alive()


def test_a_temporary_folder_with_too_long_a_name_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with pytest.raises(UnsupportedModel, match="TMPDIR"):
        Worker(lambda name: ["true"])
    assert not list(long.iterdir())


def test_ten_models_opened_and_closed_leave_no_process_no_folder_and_no_file_open(random_model: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        model = LlamaCpp(slots=1, context=256, threads=1).open(random_model)
        run(said(model, "Hi"))
        model.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
