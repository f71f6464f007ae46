"""One run of a benchmark as the executor does it: measured through the engine, the machine sampled meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from maru.engine.errors import EngineError
from maru.http.problem import Problem
from maru.services.llm.benchmarks.benchmark import Benchmark, Progress, measured
from maru.services.llm.benchmarks.courtesy import Courtesy
from maru.services.llm.benchmarks.environment import environment
from maru.services.llm.benchmarks.load import word
from maru.services.llm.benchmarks.monitor import Monitor, Peak, rows, told
from maru.services.llm.benchmarks.schemas import BenchmarkConfig
from maru.services.llm.benchmarks.source import Source
from maru.storage.benchmark_board import Board
from maru.storage.benchmarks import BenchmarkRun, Conclusion
from maru.storage.metrics_writer import MetricsWriter
from maru.telemetry.host import HostSample
from maru.telemetry.processes import cpu_seconds

log = logging.getLogger(__name__)

TELL_EVERY_S = 0.5
STORED_WITHIN_S = 10.0
FOUND_WITHIN_S = 10.0

Listener = Callable[[str, Mapping[str, Any]], None]
"""Is told of what happens, by the name of the event."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs of this process share. `describe` says of a model what it is, `hash` its files' checksum, for
    which it reads them all."""

    source: Callable[[str], Source]
    describe: Callable[[str], Mapping[str, Any]]
    courtesy: Courtesy
    monitor: Monitor
    writer: MetricsWriter
    hash: Callable[[str], str | None]
    board: Board | None = None


class EngineJob:
    """A run of a model in this process's engine. Whoever listens hears of each sample and of each step."""

    def __init__(self, run: BenchmarkRun, bench: Bench) -> None:
        self._run = run
        self._bench = bench
        self._plan = BenchmarkConfig.model_validate(dict(run.config)).plan()
        self._progress = Progress("waiting")
        self._environment: Mapping[str, Any] = {}
        self._model: Mapping[str, Any] = {}
        self._peak = Peak()
        self._last: HostSample | None = None
        self._listeners: list[Listener] = []
        self._stored = True
        self._benchmark = Benchmark(
            bench.source(run.model_id),
            self._plan,
            courtesy=bench.courtesy,
            cpu=partial(cpu_seconds, os.getpid()),
            tell=self._advanced,
        )

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` from now on; what is returned ends that."""
        self._listeners.append(listener)
        listener("progress", self.progress())
        return lambda: self._listeners.remove(listener)

    def progress(self) -> Mapping[str, Any]:
        return asdict(self._progress)

    async def run(self) -> Conclusion:
        """Measure, and have the samples stored."""
        bench = self._bench
        try:
            self._model = await self._described()
        except (EngineError, Problem) as unserved:
            return Conclusion("failed", f"the model can't be served ({word(unserved)})", progress=self.progress())
        self._environment = await asyncio.to_thread(environment, await bench.monitor.now())
        telling = asyncio.create_task(self._tell())
        try:
            with bench.monitor.watched_by(self._sample):
                error = await measured(self._benchmark, self._plan.deadline_s)
        finally:
            telling.cancel()
        self._model = {**self._model, "sha256": await asyncio.to_thread(bench.hash, self._run.model_id)}
        self._stored = await asyncio.to_thread(bench.writer.flush, STORED_WITHIN_S)
        return await asyncio.to_thread(self._concluded, error)

    async def _described(self) -> Mapping[str, Any]:
        """What the model is. Just after the start of the server, its folder has yet to be looked at."""
        until = time.monotonic() + FOUND_WITHIN_S
        while True:
            try:
                return self._bench.describe(self._run.model_id)
            except (EngineError, Problem):
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(0.1)

    def partial(self) -> Conclusion:
        return self._concluded("it was broken off")

    def _concluded(self, error: str | None) -> Conclusion:
        results = self._benchmark.result(
            environment=self._environment,
            model=self._model,
            memory_source=self._peak.source,
            samples={"count": self._peak.samples, "all_stored": self._stored},
        )
        return Conclusion(
            "completed" if error is None else "failed",
            error,
            results["avg_tokens_per_second"],
            results["avg_time_to_first_token"],
            self._peak.bytes,
            results,
            self.progress(),
        )

    def _sample(self, sample: HostSample) -> None:
        self._last = sample
        self._peak.see(sample)
        self._bench.writer.add(*rows(sample, self._run.benchmark_id))
        self._hear("metrics", told(sample))

    def _advanced(self, progress: Progress) -> None:
        self._progress = progress
        self._hear("progress", self.progress())

    def _hear(self, event: str, data: Mapping[str, Any]) -> None:
        for listener in list(self._listeners):
            listener(event, data)

    async def _tell(self) -> None:
        """Tell the other processes, through Redis."""
        board = self._bench.board
        while board is not None:
            sample = None if self._last is None else told(self._last)
            await board.tell(self._run.benchmark_id, self.progress(), sample)
            await asyncio.sleep(TELL_EVERY_S)
