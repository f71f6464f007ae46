"""The document's endpoints of benchmarks and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Literal

import orjson
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from maru.http.call import Caller
from maru.http.endpoint import Reply, Route
from maru.http.problem import Envelope
from maru.http.sse import EventStream
from maru.services.llm import events
from maru.services.llm.benchmarks import report, schemas
from maru.services.llm.benchmarks.live import Live
from maru.services.llm.benchmarks.monitor import Monitor, told
from maru.services.llm.benchmarks.service import MOST_SAMPLES, Benchmarks
from maru.services.llm.models import Models
from maru.services.llm.schemas import Success
from maru.storage.measurements import MachineRow, Minute

LIVE = "/api/v1/metrics/{benchmark_id}"

_RESULTS = {
    "application/json": {"schema": {"$ref": "#/components/schemas/Success_BenchmarkResult_"}},
    "text/csv": {"schema": {"type": "string"}},
    "text/markdown": {"schema": {"type": "string"}},
}


@dataclass(frozen=True, slots=True)
class BenchmarkRoutes:
    """Handlers over the runs of one database. `envelope` is the shape of an error that ends a stream."""

    benchmarks: Benchmarks
    models: Models
    monitor: Monitor
    live: Live
    ending: asyncio.Event
    envelope: Envelope

    async def run(self, call: Caller, body: schemas.BenchmarkRunRequest) -> Reply:
        """Measure a model: now, or after the benchmarks that wait already."""
        self.models.spec(body.model_id)
        benchmark_id = await self.benchmarks.add(body.model_id, body.configured(), call.principal.id)
        return Reply(Success[schemas.Taken](data=schemas.Taken(benchmark_id=benchmark_id, status="started")))

    async def all(self, call: Caller, model_id: Annotated[str, Field(max_length=256)] | None = None) -> Reply:
        """The newest benchmarks."""
        storable = model_id is None or "\0" not in model_id
        runs = await self.benchmarks.latest(model_id) if storable else []
        found = [await self.benchmarks.status(run) for run in runs]
        return Reply(Success[list[schemas.BenchmarkStatus]](data=found))

    async def status(self, call: Caller, benchmark_id: str) -> Reply:
        """How far a benchmark is."""
        return Reply(
            Success[schemas.BenchmarkStatus](data=await self.benchmarks.status(await self.benchmarks.get(benchmark_id)))
        )

    async def cancel(self, call: Caller, benchmark_id: str) -> Reply:
        """Stop a benchmark. What it has measured is kept; one that has ended stays what it is."""
        run = await self.benchmarks.cancel(benchmark_id)
        return Reply(Success[schemas.BenchmarkStatus](data=await self.benchmarks.status(run)))

    async def results(
        self,
        call: Caller,
        benchmark_id: str,
        format: Literal["json", "csv", "markdown"] = "json",
        raw: bool = False,
    ) -> Reply:
        """What a benchmark has measured: as JSON (`raw` with the time of every piece of text), as CSV with a line
        a request, or as a report in Markdown with its plots in it. Nulls and empty lists until it has ended."""
        run = await self.benchmarks.get(benchmark_id, results=True)
        result = await self.benchmarks.result(run, raw=raw or format != "json")
        if format == "json":
            return Reply(await asyncio.to_thread(orjson.dumps, {"success": True, "data": result}))
        write = report.requests_csv if format == "csv" else report.markdown
        text = await asyncio.to_thread(write, result)
        media = {"csv": "text/csv; charset=utf-8", "markdown": "text/markdown; charset=utf-8"}[format]
        return Reply(text.encode(), media_type=media)

    async def current(self, call: Caller) -> Reply:
        """The GPUs now, or the machine where there is none."""
        sample = schemas.MachineSample(**told(await self.monitor.now()))
        return Reply(Success[schemas.MachineSample](data=sample))

    async def history(
        self,
        call: Caller,
        benchmark_id: str,
        resolution: Literal["raw", "1m"] = "raw",
        start: AwareDatetime | None = None,
        end: AwareDatetime | None = None,
    ) -> Reply:
        """The machine during a benchmark: every sample from `start` and before `end`, or its minutes."""
        run = await self.benchmarks.get(benchmark_id)
        if resolution == "1m":
            found: Sequence[Minute | MachineRow] = await self.benchmarks.minutes(run.benchmark_id)
        else:
            found = await self.benchmarks.samples(run.benchmark_id, start, end)
        return Reply(await asyncio.to_thread(_history, run.benchmark_id, resolution, found))

    async def follow(self, call: Caller, benchmark_id: str) -> Response:
        """A benchmark as it goes, as server-sent events: `progress`, `metrics` every 100 ms, and `done` in the end.
        A WebSocket on the same path gives the same, as `{"event", "data"}`."""
        return EventStream(
            self.live.events(benchmark_id),
            ending=self.ending,
            describe=partial(events.failed, call, envelope=self.envelope),
        )

    def routes(self) -> list[Route]:
        runs, metrics = ("benchmarks",), ("metrics",)
        one, status = "/api/v1/benchmark/{benchmark_id}", Success[schemas.BenchmarkStatus]
        return [
            Route("POST", "/api/v1/benchmark/run", self.run, Success[schemas.Taken], (404, 429, 503), tags=runs),
            Route("GET", "/api/v1/benchmark", self.all, Success[list[schemas.BenchmarkStatus]], (422, 503), tags=runs),
            Route("GET", f"{one}/status", self.status, status, (404, 503), tags=runs),
            Route("POST", f"{one}/cancel", self.cancel, status, (404, 503), tags=runs),
            Route(
                "GET", f"{one}/results", self.results, Success[schemas.BenchmarkResult], (404, 422, 503),
                content=_RESULTS, tags=runs,
            ),
            Route("GET", "/api/v1/metrics/gpu/current", self.current, Success[schemas.MachineSample], tags=metrics),
            Route(
                "GET", "/api/v1/metrics/benchmark/{benchmark_id}", self.history, Success[schemas.MetricsHistory],
                (404, 422, 503), tags=metrics,
            ),
            Route("GET", LIVE, self.follow, errors=(404, 503), content=events.CONTENT, tags=metrics),
        ]  # fmt: skip


def _history(benchmark_id: str, resolution: Literal["raw", "1m"], found: Sequence[Minute | MachineRow]) -> bytes:
    samples = [asdict(row) for row in found[:MOST_SAMPLES]]
    for sample in samples:
        sample.pop("benchmark_id", None)
    of_gpu = any(sample.get("memory_used", sample.get("max_memory")) is not None for sample in samples)
    data = {
        "benchmark_id": benchmark_id,
        "source": ("gpu" if of_gpu else "host") if samples else None,
        "resolution": resolution,
        "samples": samples,
        "truncated": len(found) > MOST_SAMPLES,
    }
    return orjson.dumps({"success": True, "data": data})
