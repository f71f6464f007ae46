"""`maru bench llm`: a benchmark from the command line, with what it does shown as it goes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from maru.runtimes.generation.types import Prompt, Sampling
from maru.services.llm.benchmarks import report
from maru.services.llm.benchmarks.benchmark import Benchmark, Progress, measured
from maru.services.llm.benchmarks.environment import environment
from maru.services.llm.benchmarks.load import SourceError
from maru.services.llm.benchmarks.monitor import Monitor, Peak
from maru.services.llm.benchmarks.openai_source import OpenAISource
from maru.services.llm.benchmarks.plan import Level, Objectives, Plan
from maru.services.llm.benchmarks.service import result_of
from maru.services.llm.benchmarks.source import EngineSource, Source
from maru.services.llm.models import LONG
from maru.services.llm.service import Generations
from maru.storage.benchmarks import BenchmarkRun
from maru.telemetry.host import HostSampler
from maru.telemetry.processes import cpu_seconds

BROKEN_OFF = "it was broken off"


class CommandError(Exception):
    """What a person can mend, in one line."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured. Without `url` it is this installation's own engine; `pid` is the server whose CPU time is
    counted, where it runs on this machine."""

    prompts: Sequence[str]
    model: str | None = None
    url: str | None = None
    key: str | None = None
    pid: int | None = None
    chat: bool = False
    concurrency: Sequence[int] = (1,)
    rates: Sequence[float] = ()
    arrivals: Literal["poisson", "constant"] = "poisson"
    sweep: int = 0
    requests: int = 0
    repetitions: int = 1
    warmups: int = 3
    max_tokens: int = 128
    fixed_length: bool = False
    temperature: float = 0.0
    seed: int = 0
    reuse_cache: bool = False
    objectives: Objectives = field(default_factory=Objectives)
    timeout_s: float = 300.0
    deadline_s: float = 3600.0

    def plan(self) -> Plan:
        sampling = Sampling(
            max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed, ignore_eos=self.fixed_length
        )
        prompts = tuple(self._prompt(text, sampling) for text in self.prompts)
        asked = self.requests or len(prompts)
        levels = [
            Level(asked, rate=rate, arrivals="constant" if self.arrivals == "constant" else "poisson")
            for rate in self.rates
        ]
        if self.sweep or not levels:
            levels = [Level(max(asked, each), each) for each in self.concurrency]
        return Plan(
            prompts, tuple(levels), replace(prompts[0], reuse=False), self.warmups, self.sweep, self.repetitions,
            self.objectives, self.seed, self.deadline_s,
        )  # fmt: skip

    def _prompt(self, text: str, sampling: Sampling) -> Prompt:
        if self.chat:
            return Prompt(messages=[{"role": "user", "content": text}], sampling=sampling, reuse=self.reuse_cache)
        return Prompt(text=text, sampling=sampling, reuse=self.reuse_cache)

    def told(self) -> dict[str, Any]:
        """As the result has them: everything but the key."""
        found = {name: value for name, value in asdict(self).items() if name not in ("key", "prompts", "objectives")}
        return {**found, "test_prompts": list(self.prompts)}


Opened = Callable[[], AbstractAsyncContextManager[Generations]]
"""This installation's models, ready to answer."""


def run(options: Options, opened: Opened, screen: Console, output: Path | None, as_json: bool) -> int:
    """Measure, show, and write; the exit status: 0 when all of it was measured."""
    with asyncio.Runner(loop_factory=_loop) as runner:
        result = runner.run(_measure(options, opened, screen))
    show(result, screen)
    if output is not None:
        write(result, output)
        screen.print(f"written to {output}", soft_wrap=True, markup=False)
    if as_json:
        print(json.dumps(result))  # noqa: T201
    return 0 if result["status"] == "completed" else 1


def _loop() -> asyncio.AbstractEventLoop:
    """The one that takes least of what is measured on the same machine."""
    try:
        import uvloop
    except ImportError:  # not on this system
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _measure(options: Options, opened: Opened, screen: Console) -> dict[str, Any]:
    sampler, began = HostSampler(), datetime.now(UTC)
    async with AsyncExitStack() as stack:
        source, model = await _source(options, opened, stack)
        pid = options.pid if options.url else os.getpid()
        about = {"environment": environment(await asyncio.to_thread(sampler.sample)), "model": model}
        peak = Peak()
        with _bar(screen) as bar, Monitor(sampler).watched_by(peak.see):
            task = bar.add_task("", total=None, rate="", first="")
            benchmark = Benchmark(
                source,
                options.plan(),
                cpu=partial(cpu_seconds, pid) if pid else lambda: None,
                tell=partial(_show, bar, task),
            )
            error = await _unless_interrupted(measured(benchmark, options.deadline_s))
        counted = isinstance(source, OpenAISource) and source.counted_by_pieces
        results = benchmark.result(**about, memory_source=peak.source)
        await asyncio.to_thread(sampler.close)
    memory = peak.bytes if pid else None  # another machine's is not known
    return _result(options, str(model["id"]), began, error, memory, {**results, "counted_by_pieces": counted})


async def _source(options: Options, opened: Opened, stack: AsyncExitStack) -> tuple[Source, Mapping[str, Any]]:
    """Where to ask, and what is known of the model there. CommandError when there is none."""
    if options.url is None:
        generations = await stack.enter_async_context(opened())
        known = [model.model_id for model in generations.models.all() if model.error is None]
        model = options.model or next(iter(known), None)
        if model is None or model not in known:
            raise CommandError(f"there is no model {model or 'here'}; there are: {', '.join(known) or 'none'}")
        status = generations.models.status(model)
        about = {"id": model, "version": status.version, "type": status.type, "size_bytes": status.size_bytes}
        details = {name: value for name, value in status.details.items() if name not in LONG}
        return EngineSource(generations, model, options.timeout_s), {**about, **details}
    source = OpenAISource(options.url, options.model or "", key=options.key, timeout_s=options.timeout_s)
    await stack.enter_async_context(source)
    if not source.model:
        try:
            source.model = next(iter(await source.models()), "")
        except SourceError as error:
            raise CommandError(f"{options.url} does not say what models it has ({error}): name one") from None
    if not source.model:
        raise CommandError(f"{options.url} has no models")
    return source, {"id": source.model, "url": options.url}


async def _unless_interrupted(work: Any) -> str | None:
    """What it returns; a first Ctrl-C ends it, and what was measured until then stands."""
    task: asyncio.Task[str | None] = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError, ValueError, RuntimeError):  # not on this system, or not in this thread
        loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
        return BROKEN_OFF
    finally:
        with suppress(NotImplementedError, ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)


def _result(
    options: Options, model: str, began: datetime, error: str | None, memory: int | None, found: dict[str, Any]
) -> dict[str, Any]:
    """The same document as the API answers."""
    run = BenchmarkRun(
        benchmark_id=f"bench_{began:%Y%m%d_%H%M%S}",
        model_id=model,
        status="completed" if error is None else "failed",
        owner="",
        config={**options.told(), "counted_by_pieces": found.pop("counted_by_pieces")},
        created_at=began,
        started_at=began,
        finished_at=datetime.now(UTC),
        avg_tokens_per_second=found["avg_tokens_per_second"],
        avg_time_to_first_token=found["avg_time_to_first_token"],
        memory_peak_bytes=memory,
        results=found,
        error=error,
    )
    return result_of(run)


def write(result: Mapping[str, Any], folder: Path) -> None:
    """The result as JSON with its raw samples, as CSV, and as a report with its plots beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    (folder / "requests.csv").write_text(report.requests_csv(result))
    (folder / "levels.csv").write_text(report.levels_csv(result))

    def placed(name: str, svg: str) -> str:
        (folder / f"{name}.svg").write_text(svg)
        return f"{name}.svg"

    (folder / "report.md").write_text(report.markdown(result, placed))


def show(result: Mapping[str, Any], screen: Console) -> None:
    """The levels as a table."""
    columns = (
        "load",
        "ok",
        "req/s",
        "output tok/s",
        "tok/CPU s",
        "TTFT p50",
        "p99 ms",
        "ITL p50",
        "p99 ms",
        "TPOT p50 ms",
    )
    table = Table(*columns, box=None, title=f"{result['model_id']}", title_justify="left")
    for level in result["levels"]:
        requests = level["requests"]
        table.add_row(
            level["level"],
            f"{requests['ok']}/{requests['total']}",
            _figure(level["requests_per_s"]),
            _figure(level["output_tokens_per_s"]),
            _figure(level["output_tokens_per_cpu_s"]),
            *(_figure(level[name][share], 1e3) for name in ("ttft_s", "itl_s") for share in ("p50", "p99")),
            _figure(level["tpot_s"]["p50"], 1e3),
        )
    screen.print(table)
    if result["error"]:
        screen.print(f"maru: {result['error']}", style="bold red", markup=False, soft_wrap=True)


def _figure(value: float | None, times: float = 1.0) -> str:
    return "-" if value is None else f"{value * times:.4g}"


def _bar(screen: Console) -> Bar:
    return Bar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[first]}"), console=screen, transient=True,
    )  # fmt: skip


def _show(bar: Bar, task: Any, progress: Progress) -> None:
    of = f" ({progress.level}/{progress.levels})" if progress.level else ""
    rate = "" if progress.output_tokens_per_s is None else f"{progress.output_tokens_per_s:.4g} tok/s"
    first = "" if progress.ttft_p50_s is None else f"TTFT {1e3 * progress.ttft_p50_s:.4g} ms"
    failed = f", {progress.failed} failed" if progress.failed else ""
    bar.update(
        task, description=f"{progress.label}{of}{failed}", completed=progress.done, total=progress.total or None,
        rate=rate, first=first,
    )  # fmt: skip
