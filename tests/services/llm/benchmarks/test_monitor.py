from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from maru.services.llm.benchmarks.monitor import Monitor, memory_used, rows, told
from maru.telemetry.gpu import Gpu
from maru.telemetry.host import HostSample, HostSampler

HOST = HostSample(1_795_000_000.25, 12.5, 1, 3 * 2**30, 4 * 2**30, ())
GPUS = (Gpu(0, "H200", 90.0, 5 * 2**30, 8 * 2**30, 55.0, 300.5), Gpu(1, "H200", None, None, None, None, None))


class Sampler:
    """Counts; a sample that nobody else has asked for is new each time."""

    def __init__(self, distinct: int = 10**6) -> None:
        self.asked = 0
        self._distinct = distinct
        self._samples: dict[int, HostSample] = {}

    def sample(self, every_s: float | None = None) -> HostSample:
        self.asked += 1
        number = min(self.asked, self._distinct)
        return self._samples.setdefault(number, replace(HOST, time=float(number)))


def test_a_machine_without_a_gpu_says_so() -> None:
    data = told(HOST)
    assert data["source"] == "host" and data["gpus"] == []
    assert {data[name] for name in ("temperature", "memory_used", "memory_total", "utilization", "power_usage")} == {
        None
    }
    assert (data["cpu_percent"], data["host_memory_used"], data["host_memory_total"]) == (12.5, 2**30, 4 * 2**30)
    assert datetime.fromisoformat(data["timestamp"]) == datetime.fromtimestamp(HOST.time, UTC)
    (row,) = rows(HOST, "b")
    assert row.gpu is None and row.memory_used is None and row.host_memory_used == 2**30
    assert memory_used(HOST) == 2**30


def test_each_gpu_has_a_row_and_the_first_speaks_for_all() -> None:
    sample = replace(HOST, gpus=GPUS)
    data = told(sample)
    assert data["source"] == "gpu" and data["temperature"] == 55.0 and data["power_usage"] == 300.5
    assert [gpu["index"] for gpu in data["gpus"]] == [0, 1]
    assert [(row.gpu, row.utilization) for row in rows(sample, "b")] == [(0, 90.0), (1, None)]
    assert memory_used(sample) == 5 * 2**30, "of all that tell it"
    assert memory_used(replace(HOST, gpus=GPUS[1:])) == 2**30


def test_all_who_watch_share_one_sampler() -> None:
    async def watch() -> tuple[list[HostSample], list[HostSample], int]:
        sampler = Sampler()
        monitor = Monitor(cast(Any, sampler), 0.01)
        first: list[HostSample] = []
        second: list[HostSample] = []
        with monitor.watched_by(first.append):
            while len(first) < 5:
                await asyncio.sleep(0.005)
            with monitor.watched_by(second.append):
                while len(second) < 5:
                    await asyncio.sleep(0.005)
        asked = sampler.asked
        await asyncio.sleep(0.1)
        assert sampler.asked <= asked + 1, "nobody watches any more"
        with monitor.watched_by(second.append):
            while len(second) < 8:
                await asyncio.sleep(0.005)
        return first, second, asked

    first, second, asked = asyncio.run(asyncio.wait_for(watch(), 20))
    assert (len(first) <= asked and second[:5] == first[-len(second[:5]) :][:5]) or second[0] in first
    assert [sample.time for sample in first] == sorted({sample.time for sample in first})


def test_a_sample_that_somebody_else_has_had_taken_is_shown_once() -> None:
    async def watch() -> int:
        monitor = Monitor(cast(Any, Sampler(distinct=3)), 0.001)
        seen: list[HostSample] = []
        with monitor.watched_by(seen.append):
            await asyncio.sleep(0.2)
        return len(seen)

    assert asyncio.run(watch()) == 3


def test_a_watcher_that_fails_is_no_trouble_to_others(caplog: pytest.LogCaptureFixture) -> None:
    async def watch() -> int:
        monitor = Monitor(cast(Any, Sampler()), 0.005)
        seen: list[HostSample] = []
        with monitor.watched_by(lambda sample: 1 / 0), monitor.watched_by(seen.append):
            while len(seen) < 3:
                await asyncio.sleep(0.005)
        return len(seen)

    assert asyncio.run(asyncio.wait_for(watch(), 10)) >= 3
    assert "a watcher of the machine failed" in caplog.text


def test_the_real_machine_ten_times_a_second() -> None:
    async def watch() -> list[HostSample]:
        sampler = HostSampler()
        monitor = Monitor(sampler, 0.1)
        seen: list[HostSample] = []
        with monitor.watched_by(seen.append):
            while len(seen) < 6:
                await asyncio.sleep(0.02)
        sampler.close()
        return seen

    seen = asyncio.run(asyncio.wait_for(watch(), 20))
    assert len({sample.time for sample in seen}) == len(seen)
    assert all(sample.memory_total for sample in seen)
