"""Any model that MLflow can load, in a process of its own: for who trusts what is in the registry.

Such a model is Python code, and does what it likes with the rights of the process it is in. Here that is a child,
which has none of our memory, credentials or connections, and whose crash or endless loop is its own.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from maru.engine.errors import ModelFailed, ModelNotReady
from maru.engine.model import Model, ModelSpec, Prepared
from maru.engine.types import Limits, ModelRef
from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.registry.types import RegisteredVersion
from maru.runtimes.registry.vetting import ONNX_LOADER, Manifest
from maru.services.forecast import pickled_child
from maru.services.forecast.model import Forecaster, checked_facts, described, finite, probes, ready
from maru.services.forecast.window import Window

log = logging.getLogger(__name__)

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
"""What a child is told of our environment. Everything else may be a secret."""

RESTART_S = 1.0
LONGEST_S = 30.0
"""The first and the longest pause before a child that could not be started is tried again."""

LENGTH = pickled_child.LENGTH
MAX_ANSWER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Host:
    """What models run in: an interpreter with MLflow and what they need, and how long it may take, in seconds,
    to load one and to answer for one window."""

    python: str = sys.executable
    load_s: float = 100.0
    answer_s: float = 10.0


class ChildFailed(ModelFailed):
    """The child is gone, silent, or talks nonsense. It has been killed."""


class Child:
    """One process with one model. Used by one thread at a time; `kill` may come from any."""

    def __init__(self, host: Host, folder: Path, shape: tuple[int, int]) -> None:
        """Starts the process, and does not wait for it. UnsupportedModel when it can't be started."""
        self._host = host
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [host.python, "-I", pickled_child.__file__, str(folder.absolute()), *map(str, shape)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # where a model may print what a person sent
                bufsize=0,
                cwd=folder,
                env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        except OSError as error:
            raise UnsupportedModel("the Python that registered models are to run in can't be started") from error
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("the pipes were asked for")
        self._way_in, self._way_out = self._process.stdin, self._process.stdout
        os.set_blocking(self._way_in.fileno(), False)
        os.set_blocking(self._way_out.fileno(), False)

    def load(self) -> None:
        """Wait until the model is loaded. UnsupportedModel when it can't be, ChildFailed when nothing is heard."""
        said = self._receive(time.monotonic() + self._host.load_s)
        if said != b"R":
            self.kill()
            raise UnsupportedModel(f"MLflow could not load the model: {said[1:].decode(errors='replace')}")

    def answer(self, window: Window) -> float | ModelFailed:
        """The model's answer, or that it raised. ChildFailed when none comes."""
        until = time.monotonic() + self._host.answer_s
        content = window.astype("<f4", copy=False).tobytes()
        self._send(LENGTH.pack(len(content)) + content, until)
        said = self._receive(until)
        if said[:1] == b"Y" and len(said) == 9:
            return finite(struct.unpack("<d", said[1:])[0])
        return ModelFailed(f"the model raised {said[1:].decode(errors='replace')}")

    def alive(self) -> bool:
        return self._process.poll() is None

    def memory_bytes(self) -> int:
        """What the process holds in memory; 0 where that can't be told."""
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """End it, and whatever it has started."""
        with suppress(ProcessLookupError):
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _send(self, data: bytes, until: float) -> None:
        while data:
            self._await(self._way_in, select.POLLOUT, until)
            try:
                data = data[os.write(self._way_in.fileno(), data) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self._failed("ended") from None

    def _receive(self, until: float) -> bytes:
        (size,) = LENGTH.unpack(self._read(LENGTH.size, until))
        if not 1 <= size <= MAX_ANSWER_BYTES:
            raise self._failed("talks nonsense")
        return self._read(size, until)

    def _read(self, size: int, until: float) -> bytes:
        data = b""
        while len(data) < size:
            self._await(self._way_out, select.POLLIN, until)
            part = os.read(self._way_out.fileno(), size - len(data))
            if not part:
                raise self._failed("ended")
            data += part
        return data

    def _await(self, pipe: IO[bytes], event: int, until: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1e3):
            raise self._failed("did not answer in time")

    def _failed(self, what: str) -> ChildFailed:
        self.kill()
        return ChildFailed(f"the model's process {what}")


class PickledForecaster(Model):
    """A model in a `Child`. When that ends or hangs, its batch fails, and another is started in the background."""

    def __init__(
        self, version: RegisteredVersion, manifest: Manifest, facts: Mapping[str, Any], digest: str, host: Host,
        shape: tuple[int, int],
    ) -> None:  # fmt: skip
        self._host = host
        self._root = manifest.root
        self._shape = shape
        self._closed = threading.Event()
        self._starting: Child | None = None
        self._child: Child | None = None
        self.metadata = described(version, digest, facts, *shape, "mlflow_pyfunc")
        self._start()

    @classmethod
    def spec(
        cls, version: RegisteredVersion, folder: Path, *, seq_len: int, n_features: int, limits: Limits, host: Host
    ) -> ModelSpec:
        """How the model whose files are in `folder` is served. The folder is needed as long as it is."""
        manifest = Manifest.read(folder)
        digest = manifest.digest()
        facts = checked_facts(manifest.metadata, n_features)

        def load() -> Model:
            return cls(version, manifest, facts, digest, host, (seq_len, n_features))

        return ModelSpec(ModelRef(version.name, version.version, digest), load, limits)

    def prepare(self, inputs: Sequence[Window]) -> list[Prepared | Exception]:
        return [ready(window, self._shape) for window in inputs]

    def predict(self, batch: Sequence[Window]) -> list[float | Exception]:
        """The next close after each window. What the model raises for one fails that one alone."""
        child = self._child
        if child is not None and not child.alive():
            self._lost("the model's process has ended")
            child = None
        if child is None:
            return [ModelNotReady("the model's process is started again", RESTART_S) for _ in batch]
        outputs: list[float | Exception] = []
        try:
            for window in batch:
                outputs.append(child.answer(window))
        except ChildFailed as error:
            self._lost(str(error))
            outputs += [ModelFailed(str(error)) for _ in batch[len(outputs) :]]
        return outputs

    def warm(self) -> None:
        """BadModelFile for a model that answers none of the windows it is tried on with a number."""
        answers = self.predict(probes(*self._shape))
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        if len(failures) == len(answers):
            raise BadModelFile(f"the model can't be used: {failures[0]}")
        if self._child is not None:
            self.memory_bytes = self._child.memory_bytes()

    def close(self) -> None:
        self._closed.set()
        for child in (self._starting, self._child):
            if child is not None:
                child.kill()

    def _start(self) -> None:
        child = self._starting = Child(self._host, self._root, self._shape)
        try:
            if self._closed.is_set():  # before anybody could know of this child
                child.kill()
            child.load()
        except BaseException:
            child.kill()
            raise
        self._child, self._starting = child, None

    def _lost(self, what: str) -> None:
        log.warning("%s@%s: %s; it is started again", self.metadata["name"], self.metadata["version"], what)
        self._child = None
        threading.Thread(target=self._restart, name="maru-restart", daemon=True).start()

    def _restart(self) -> None:
        pause = RESTART_S
        while not self._closed.is_set():
            try:
                return self._start()
            except (ChildFailed, UnsupportedModel) as error:
                log.warning("%s@%s: %s", self.metadata["name"], self.metadata["version"], error)
            self._closed.wait(pause)
            pause = min(2 * pause, LONGEST_S)


def any_spec(
    version: RegisteredVersion, folder: Path, *, seq_len: int, n_features: int, limits: Limits, host: Host
) -> ModelSpec:
    """How a model of any kind is served: as `Forecaster` if it can be, in a child otherwise."""
    if Manifest.read(folder).loader == ONNX_LOADER:
        return Forecaster.spec(version, folder, seq_len=seq_len, n_features=n_features, limits=limits)
    return PickledForecaster.spec(version, folder, seq_len=seq_len, n_features=n_features, limits=limits, host=host)
