"""The machine, sampled once for all who watch it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from maru.storage.measurements import MachineRow
from maru.telemetry.host import HostSample, HostSampler

log = logging.getLogger(__name__)

Watcher = Callable[[HostSample], None]


class Monitor:
    """Samples every `every_s` while anybody watches, and not otherwise. Watchers are called on the event loop."""

    def __init__(self, sampler: HostSampler, every_s: float = 0.1) -> None:
        self._sampler = sampler
        self._every_s = every_s
        self._watchers: list[Watcher] = []
        self._task: asyncio.Task[None] | None = None

    async def now(self) -> HostSample:
        """One sample, no older than half the time between two."""
        return await asyncio.to_thread(self._sampler.sample, self._every_s / 2)

    @contextmanager
    def watched_by(self, watcher: Watcher) -> Iterator[None]:
        """`with` it: `watcher` is given every sample."""
        self._watchers.append(watcher)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._watch())
        try:
            yield
        finally:
            self._watchers.remove(watcher)
            if not self._watchers:
                self._task.cancel()
                self._task = None

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        due, last = loop.time(), None
        while True:
            sample = await self.now()
            if sample is not last:  # who else asks for samples may have had this one taken just after the last
                self._show(sample)
            last = sample
            due = max(due + self._every_s, loop.time())  # what could not be taken in time is not made up for
            await asyncio.sleep(due - loop.time())

    def _show(self, sample: HostSample) -> None:
        for watcher in list(self._watchers):
            try:
                watcher(sample)
            except Exception:
                log.exception("a watcher of the machine failed")


class Peak:
    """The most memory that was in use in the samples it has seen, of the GPUs or, where there is none, the machine."""

    def __init__(self) -> None:
        self.bytes: int | None = None
        self.source: Literal["gpu", "host"] = "host"
        self.samples = 0

    def see(self, sample: HostSample) -> None:
        self.samples += 1
        self.source = "gpu" if sample.gpus else "host"
        used = memory_used(sample)
        if used is not None:
            self.bytes = max(used, self.bytes or 0)


def rows(sample: HostSample, benchmark_id: str) -> list[MachineRow]:
    """The sample as it is stored: a row for each GPU, or one of the machine alone."""
    time = datetime.fromtimestamp(sample.time, UTC)
    host = {
        "cpu_percent": sample.cpu_percent,
        "host_memory_used": host_memory_used(sample),
        "host_memory_total": sample.memory_total,
    }
    if not sample.gpus:
        return [MachineRow(time, benchmark_id, **host)]  # type: ignore[arg-type]
    return [
        MachineRow(
            time, benchmark_id, gpu.temperature, gpu.memory_used, gpu.memory_total, gpu.utilization_percent,
            gpu.power_usage, gpu.index, **host,  # type: ignore[arg-type]
        )
        for gpu in sample.gpus
    ]  # fmt: skip


def told(sample: HostSample) -> dict[str, Any]:
    """The sample as the document has it, with the figures of the first GPU; null where there is none."""
    first = sample.gpus[0] if sample.gpus else None
    return {
        "timestamp": datetime.fromtimestamp(sample.time, UTC).isoformat(timespec="milliseconds"),
        "source": "gpu" if first else "host",
        "temperature": first and first.temperature,
        "memory_used": first and first.memory_used,
        "memory_total": first and first.memory_total,
        "utilization": first and first.utilization_percent,
        "power_usage": first and first.power_usage,
        "gpus": [
            {
                "index": gpu.index,
                "name": gpu.name,
                "temperature": gpu.temperature,
                "memory_used": gpu.memory_used,
                "memory_total": gpu.memory_total,
                "utilization": gpu.utilization_percent,
                "power_usage": gpu.power_usage,
            }
            for gpu in sample.gpus
        ],
        "cpu_percent": sample.cpu_percent,
        "host_memory_used": host_memory_used(sample),
        "host_memory_total": sample.memory_total,
    }


def memory_used(sample: HostSample) -> int | None:
    """Of the GPUs together, or of the machine where there is none."""
    known = [gpu.memory_used for gpu in sample.gpus if gpu.memory_used is not None]
    return sum(known) if known else host_memory_used(sample)


def host_memory_used(sample: HostSample) -> int | None:
    if sample.memory_total is None or sample.memory_available is None:
        return None
    return sample.memory_total - sample.memory_available
