"""A whole run: warm-up, levels, figures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from maru.services.llm.benchmarks.courtesy import Alone, Courtesy
from maru.services.llm.benchmarks.load import Load, SourceError
from maru.services.llm.benchmarks.plan import Level, Plan
from maru.services.llm.benchmarks.records import CpuClock, Record, Window
from maru.services.llm.benchmarks.source import Source
from maru.services.llm.benchmarks.statistics import DEFINITIONS, averages, figures, summary


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. The figures are those of the level that is being measured."""

    phase: str
    level: int = 0
    levels: int = 0
    label: str = ""
    done: int = 0
    total: int = 0
    failed: int = 0
    on_the_way: int = 0
    output_tokens_per_s: float | None = None
    ttft_p50_s: float | None = None


class WarmupFailed(Exception):
    """The model did not answer even once, so there is nothing to measure. The message says why, in a word."""


class Benchmark:
    """Measures `plan` at `source`. `cpu` tells the CPU seconds of whatever serves it; `tell` hears of each step."""

    def __init__(
        self,
        source: Source,
        plan: Plan,
        *,
        courtesy: Courtesy | None = None,
        cpu: CpuClock = lambda: None,
        tell: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._source = source
        self._plan = plan
        self._courtesy = courtesy or Alone()
        self._cpu = cpu
        self._tell = tell
        self._measured: list[tuple[Level, list[Window]]] = []
        self._load: Load | None = None
        self._planned = len(plan.levels) if not plan.sweep else plan.sweep + 2
        self.warmups: list[Record] = []

    async def run(self) -> None:
        """Measure all of it. WarmupFailed before anything else, if the model can't be measured."""
        await self._warm_up()
        for level in self._plan.levels if not self._plan.sweep else self._swept():
            self._measured.append((level, []))
            for repetition in range(self._plan.repetitions):
                await self._measure(level, repetition)
        self._tell(Progress("done", self._planned, self._planned))

    def result(self, **about: Any) -> dict[str, Any]:
        """What was measured until now, as JSON has it: `about`, the figures of each level, and every request."""
        levels = self._levels()
        windows = [window for _, measured in levels for window in measured]
        tokens_per_second, ttft = averages(windows)
        return {
            **about,
            "avg_tokens_per_second": tokens_per_second,
            "avg_time_to_first_token": ttft,
            "levels": [
                {
                    "level": str(level),
                    "concurrency": level.concurrency,
                    "rate": level.rate,
                    "arrivals": level.arrivals if level.rate is not None else None,
                    **figures(measured, self._plan.objectives),
                    "records": [_told(record, n) for n, window in enumerate(measured) for record in window.records],
                }
                for level, measured in levels
            ],
            "objectives": asdict(self._plan.objectives),
            "warmup": {
                "requests": len(self.warmups),
                "excluded": True,
                "e2e_s": summary(record.e2e_s for record in self.warmups),
            },
            "definitions": DEFINITIONS,
        }

    def _levels(self) -> list[tuple[Level, list[Window]]]:
        """With the one that is being measured, as far as it got."""
        levels = [(level, list(measured)) for level, measured in self._measured]
        if self._load is not None and self._load.records:
            levels[-1][1].append(self._load.window())
        return [(level, measured) for level, measured in levels if measured]

    async def _warm_up(self) -> None:
        """Each warm-up by itself; the first also loads the model, if it is not in memory."""
        plan = self._plan
        for number in range(plan.warmups):
            self._tell(Progress("warmup", 0, self._planned, "warm-up", number, plan.warmups))
            load = Load(self._source, [plan.warmup], Level(1, concurrency=1), self._courtesy)
            (record,) = (await load.run()).records
            self.warmups.append(record)
            if record.outcome != "ok":
                raise WarmupFailed(record.error or record.outcome)

    async def _measure(self, level: Level, repetition: int) -> Window:
        load = self._load = Load(
            self._source,
            self._plan.prompts,
            level,
            self._courtesy,
            seed=self._plan.seed + repetition,
            cpu=self._cpu,
            tell=self._advanced,
        )
        self._advanced(load)
        window = await load.run()
        self._load = None
        self._measured[-1][1].append(window)
        if not any(record.outcome == "ok" for record in window.records):
            raise SourceError(next((record.error for record in window.records if record.error), "no answer"))
        return window

    def _swept(self) -> Iterator[Level]:
        """One client, as many as may be, and rates between what these two came to."""
        most = self._plan.levels[0]
        yield replace(most, concurrency=1)
        yield most
        lowest, highest = (_requests_per_s(measured) for _, measured in self._measured[:2])
        low, high = min(lowest, highest), max(lowest, highest)
        for step in range(self._plan.sweep):
            share = (step + 1) / (self._plan.sweep + 1)
            yield replace(most, concurrency=4 * (most.concurrency or 1), rate=low + (high - low) * share)

    def _advanced(self, load: Load) -> None:
        done = load.records
        tokens = sum(record.completion_tokens or 0 for record in done)
        seconds = load.elapsed_s() if done else 0.0
        self._tell(
            Progress(
                "measuring",
                len(self._measured),
                self._planned,
                str(load.level),
                len(done),
                load.level.requests,
                sum(record.outcome != "ok" for record in done),
                load.on_the_way,
                round(tokens / seconds, 2) if seconds > 0 else None,
                _median([record.ttft_s for record in done[-50:]]),
            )
        )


def _requests_per_s(windows: Sequence[Window]) -> float:
    rates = [sum(r.outcome == "ok" for r in w.records) / w.seconds for w in windows if w.seconds > 0]
    return sum(rates) / len(rates)


def _median(values: Sequence[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    return round(known[len(known) // 2], 6) if known else None


def _told(record: Record, repetition: int) -> Mapping[str, Any]:
    """A request as JSON has it, to the microsecond. `text_s` are the times of its pieces since it was due."""
    figures = {
        name: getattr(record, name) for name in ("queue_s", "ttft_s", "tpot_s", "e2e_s", "prefill_s", "decode_s")
    }
    return {
        "number": record.number,
        "repetition": repetition,
        "prompt": record.prompt,
        "outcome": record.outcome,
        "error": record.error,
        "finish_reason": record.finish_reason,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "cached_tokens": record.cached_tokens,
        "due_s": round(record.intended, 6),
        **{name: None if value is None else round(value, 6) for name, value in figures.items()},
        "text_s": [round(at - record.intended, 6) for at in record.texts],
    }


async def measured(benchmark: Benchmark, deadline_s: float) -> str | None:
    """Run it; why it ended early, or None. What it measured until then is kept."""
    try:
        async with asyncio.timeout(deadline_s):
            await benchmark.run()
    except TimeoutError:
        return f"it was not done within {deadline_s:g} s"
    except (WarmupFailed, SourceError) as error:
        return f"the model does not answer ({error})"
    return None
