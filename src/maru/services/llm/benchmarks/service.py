"""Benchmarks that are asked for, looked at and cancelled."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from maru.engine.types import Clock
from maru.http.problem import Problem
from maru.services.llm.benchmarks.executor import Executor
from maru.services.llm.benchmarks.schemas import MAX_QUEUED, BenchmarkConfig, BenchmarkResult, BenchmarkStatus
from maru.storage.benchmark_board import Board
from maru.storage.benchmarks import BenchmarkRun, BenchmarkRuns
from maru.storage.measurements import MachineRow, Measurements, Minute

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_ID = re.compile(r"bench_[0-9]{8}_[0-9a-f]{32}")
MOST_SAMPLES = 10_000


class Benchmarks:
    """The runs of this database. A Problem 503 while it can't be reached."""

    def __init__(
        self, runs: BenchmarkRuns, measurements: Measurements, executor: Executor, clock: Clock, board: Board | None
    ) -> None:
        self._runs = runs
        self._measurements = measurements
        self._board = board
        self.executor = executor
        self.clock = clock

    async def add(self, model_id: str, config: BenchmarkConfig, owner: str) -> str:
        """Have it run; its id. QueueFull when the owner has too many waiting."""
        benchmark_id = f"bench_{datetime.now(UTC):%Y%m%d}_{secrets.token_hex(16)}"
        given = config.model_dump(mode="json")
        await _asked(self._runs.add, benchmark_id, model_id, given, owner, MAX_QUEUED)
        self.executor.wake()
        return benchmark_id

    async def get(self, benchmark_id: str, *, results: bool = False) -> BenchmarkRun:
        """That run, or a Problem in the document's words."""
        run = None
        if _ID.fullmatch(benchmark_id):
            run = await _asked(self._runs.get, benchmark_id, results=results)
        if run is None:
            raise Problem(404, "BENCHMARK_NOT_FOUND", "해당 벤치마크를 찾을 수 없습니다.")
        return run

    async def cancel(self, benchmark_id: str) -> BenchmarkRun:
        """Have it stop. One that runs has stopped within a second or so."""
        await self.get(benchmark_id)
        run = await _asked(self._runs.cancel, benchmark_id)
        assert run is not None
        self.executor.wake()
        return run

    async def latest(self, model_id: str | None) -> list[BenchmarkRun]:
        return await _asked(self._runs.latest, model_id)

    async def progress(self, run: BenchmarkRun) -> Mapping[str, Any] | None:
        """How far it is: from here if it runs here, from Redis if that knows, or as it was last stored."""
        if run.status != "running":
            return run.progress
        job = self.executor.job
        if self.executor.running == run.benchmark_id and job is not None:
            return job.progress()
        return (await self._board.progress(run.benchmark_id) if self._board else None) or run.progress

    async def status(self, run: BenchmarkRun) -> BenchmarkStatus:
        return BenchmarkStatus(**_described(run), progress=_plain(await self.progress(run)))

    async def result(self, run: BenchmarkRun, *, raw: bool) -> dict[str, Any]:
        """All of it, as JSON has it. `raw` has the time of each piece of text, too."""
        progress = await self.progress(run)
        return await asyncio.to_thread(result_of, run, progress, raw)

    async def samples(self, benchmark_id: str, start: datetime | None, end: datetime | None) -> list[MachineRow]:
        """One more than may be answered at once, if there are more."""
        most = MOST_SAMPLES + 1
        return await _asked(self._measurements.samples, benchmark_id, start=start, end=end, most=most)

    async def minutes(self, benchmark_id: str) -> list[Minute]:
        return await _asked(self._measurements.minutes, benchmark_id)


async def _asked(ask: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """What the database answers, asked in a thread."""
    try:
        return await asyncio.to_thread(ask, *given, **named)
    except SQLAlchemyError as error:
        log.error("the table of benchmarks can't be reached (%s)", type(error).__name__)
        after = {"retry-after": "5"}
        raise Problem(503, "STORE_UNAVAILABLE", "벤치마크 저장소에 연결할 수 없습니다.", headers=after) from error


def result_of(run: BenchmarkRun, progress: Mapping[str, Any] | None = None, raw: bool = True) -> dict[str, Any]:
    """A run as the document answers it: its averages, and each request with the prompt that it asked."""
    found = dict(run.results or {})
    levels = [dict(level) for level in found.get("levels", ())]
    prompts = run.config.get("test_prompts", ())
    detailed = [_detailed(record, level, prompts, raw) for level in levels for record in level.pop("records", ())]
    peak = run.memory_peak_bytes
    result = BenchmarkResult(
        **_described(run),
        progress=_plain(progress),
        avg_tokens_per_second=run.avg_tokens_per_second,
        avg_time_to_first_token=run.avg_time_to_first_token,
        memory_peak_mb=None if peak is None else round(peak / 2**20, 1),
        detailed_results=detailed,
        levels=levels,
        config=dict(run.config),
        **{name: found[name] for name in _PASSED if name in found},
    )
    return result.model_dump()


_PASSED = ("memory_source", "objectives", "warmup", "environment", "model", "samples", "definitions")


def _detailed(record: Mapping[str, Any], level: Mapping[str, Any], prompts: Any, raw: bool) -> dict[str, Any]:
    """A request in the document's own words, and then in ours."""
    tokens, elapsed = record["completion_tokens"], record["e2e_s"]
    own = {name: value for name, value in record.items() if raw or name != "text_s"}
    return {
        "prompt": prompts[record["prompt"]],
        "prompt_number": record["prompt"],
        "tokens_generated": tokens,
        "time_elapsed": elapsed,
        "tokens_per_second": round(tokens / elapsed, 3) if tokens and elapsed else None,
        "time_to_first_token": record["ttft_s"],
        "level": level["level"],
        **{name: value for name, value in own.items() if name != "prompt"},
    }


def _described(run: BenchmarkRun) -> dict[str, Any]:
    return {
        "benchmark_id": run.benchmark_id,
        "model_id": run.model_id,
        "status": run.status,
        "created_at": run.created_at.isoformat(),
        "started_at": run.started_at and run.started_at.isoformat(),
        "finished_at": run.finished_at and run.finished_at.isoformat(),
        "error": run.error,
    }


def _plain(progress: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if progress is None else dict(progress)
