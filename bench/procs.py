"""A server under test: its process tree, what that tree costs, its life from start to stop. Needs /proc."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MARK = "MARU_BENCH_RUN"


def _stat(pid: int) -> tuple[int, int, float] | None:
    """(parent, session, CPU seconds with reaped children) of one process, None when it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] == b"Z":
        return None
    return int(fields[1]), int(fields[3]), sum(map(int, fields[11:15])) * _TICK_S


def _marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def tree(root: int, mark: str = "") -> list[int]:
    """Every live process that descends from `root`, shares its session, or carries `mark` in its environment.

    The last finds daemons that left both (Ray starts some).
    """
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    stats = {pid: found for pid in pids if (found := _stat(pid))}
    wanted = {root} & stats.keys()
    wanted |= {pid for pid, (_, session, _) in stats.items() if session == root}
    if mark:
        wanted |= {pid for pid in stats.keys() - wanted if _marked(pid, mark.encode())}
    while more := {pid for pid, (parent, _, _) in stats.items() if parent in wanted} - wanted:
        wanted |= more
    return sorted(wanted)


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds, user and system, that these processes and their reaped children have used so far."""
    return sum(found[2] for pid in pids if (found := _stat(pid)))


def busy_s() -> float:
    """CPU seconds that the whole machine has worked since it started, time stolen from it included."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) * _TICK_S


def resident(pids: Iterable[int]) -> int:
    """Resident bytes of these processes added up: a page shared by two counts twice. One small read each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    return total


def proportional(pids: Iterable[int]) -> int:
    """Resident bytes with each shared page divided among its sharers (PSS). Takes milliseconds."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
                if line.startswith(b"Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def free_port() -> int:
    """A TCP port that was free a moment ago on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, path: str, timeout_s: float = 2.0) -> bool:
    """Whether GET `path` is answered 200 on loopback."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as sock:
            head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
            sock.sendall(head.encode())
            return sock.recv(64)[9:12] == b"200"
    except OSError:
        return False


class Server:
    """One server process with all its children, from entering the context to leaving it.

    `command` is given the port; TMPDIR is a folder of its own, which goes when it does. Entering waits until
    `ready` answers 200; leaving sends SIGTERM, waits `grace_s`, and kills what is left of this tree alone.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int], Sequence[str]],
        env: Mapping[str, str],
        ready: str,
        logs: Path,
        cwd: Path | None = None,
        start_s: float = 180.0,
        grace_s: float = 10.0,
    ) -> None:
        self.name = name
        self.port = free_port()
        self.started_s = 0.0
        """Seconds from the start of the process to its first 200 on the readiness path."""
        self._command, self._env, self._ready, self._cwd = command, env, ready, cwd
        self._log_path = logs / f"{name}.log"
        self._start_s, self._grace_s = start_s, grace_s
        self._mark = f"{_MARK}={uuid.uuid4()}"

    def __enter__(self) -> Server:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TZ")}
        self._scratch = tempfile.mkdtemp(prefix="bench-")
        environment |= {**self._env, "TMPDIR": self._scratch, _MARK: self._mark.partition("=")[2]}
        began = time.monotonic()
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                list(self._command(self.port)),
                env=environment,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while not answers(self.port, self._ready):
                if self._process.poll() is not None:
                    code = self._process.returncode
                    raise RuntimeError(f"{self.name} exited with {code}: {self._tail()}")
                if time.monotonic() - began > self._start_s:
                    raise RuntimeError(f"{self.name} not ready after {self._start_s:.0f} s: {self._tail()}")
                time.sleep(0.05)
        except BaseException:
            self._end()
            raise
        self.started_s = time.monotonic() - began
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def pids(self) -> list[int]:
        """The whole process tree now."""
        return tree(self._process.pid, self._mark)

    def pause(self) -> None:
        """Stop every process of the tree where it stands, so that it can't disturb another server's turn."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused tree go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self) -> None:
        self.resume()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._grace_s)
        deadline = time.monotonic() + 5.0
        while self.pids() and time.monotonic() < deadline:
            self._signal(signal.SIGKILL)
            time.sleep(0.05)
        self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _tail(self) -> str:
        return self._log_path.read_text(errors="replace")[-2000:]
