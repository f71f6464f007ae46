"""How busy the machine is: its processors, its memory, and its GPUs if there are any."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from maru.telemetry.gpu import Gpu, Gpus


@dataclass(frozen=True, slots=True)
class HostSample:
    """The machine at `time` (seconds since the epoch). Memory is in bytes; None is not known here.

    `cpu_percent` is of all cores since the sample before, 0 to 100. `memory_available` is what this process
    may still take: of the machine's memory, or of its container's where that leaves less.
    """

    time: float
    cpu_percent: float | None
    rss: int | None
    memory_available: int | None
    memory_total: int | None
    gpus: tuple[Gpu, ...]


class HostSampler:
    """Samples the machine for all who ask; those who ask within `every_s` of a sample are given that one.

    A sample takes a fraction of a millisecond, and some milliseconds where there are GPUs or at the first
    time: ask from a thread.
    """

    def __init__(self, every_s: float = 0.1) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._ticks = _cpu_ticks()
        self._gpus: Gpus | None = None
        self._taken = 0.0
        self._last: HostSample | None = None

    def sample(self, every_s: float | None = None) -> HostSample:
        """The machine as it was `every_s` ago (by default what the sampler was made with), or later."""
        with self._lock:
            now = time.monotonic()
            if self._last is None or now - self._taken >= (self._every_s if every_s is None else every_s):
                self._taken = now
                self._last = self._take(self._last)
            return self._last

    def close(self) -> None:
        if self._gpus is not None:
            self._gpus.close()

    def collect(self) -> Iterable[Metric]:
        """The sample for Prometheus."""
        sample = self.sample()
        ratio = None if sample.cpu_percent is None else sample.cpu_percent / 100
        yield _gauge("maru_host_cpu_ratio", "Share of all cores in use.", ratio)
        available = "Memory that this process may still take."
        yield _gauge("maru_host_memory_available_bytes", available, sample.memory_available)
        used = GaugeMetricFamily("maru_gpu_utilization_ratio", "Share of time in use.", labels=["gpu"])
        taken = GaugeMetricFamily("maru_gpu_memory_used_bytes", "Memory in use.", labels=["gpu"])
        total = GaugeMetricFamily("maru_gpu_memory_total_bytes", "Memory there is.", labels=["gpu"])
        for gpu in sample.gpus:
            if gpu.utilization_percent is not None:
                used.add_metric([str(gpu.index)], gpu.utilization_percent / 100)
            if gpu.memory_used is not None and gpu.memory_total is not None:
                taken.add_metric([str(gpu.index)], gpu.memory_used)
                total.add_metric([str(gpu.index)], gpu.memory_total)
        yield from (used, taken, total)

    def _take(self, last: HostSample | None) -> HostSample:
        self._gpus = self._gpus or Gpus()
        available, total = _memory()
        cpu = self._cpu_percent(last.cpu_percent if last else None)
        return HostSample(time.time(), cpu, _rss(), available, total, self._gpus.sample())

    def _cpu_percent(self, last: float | None) -> float | None:
        before, now = self._ticks, _cpu_ticks()
        if before is None or now is None:
            return None
        busy, every = now[0] - before[0], now[1] - before[1]
        if every <= 0:  # the kernel counts in hundredths of a second
            return last
        self._ticks = now
        return min(100.0, max(0.0, 100.0 * busy / every))


def _gauge(name: str, text: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def _cpu_ticks() -> tuple[int, int] | None:
    """How many ticks all cores were busy, and how many there were."""
    text = _read("/proc/stat")
    if text is None:
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, text.split(None, 9)[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy, busy + idle + iowait


def _rss() -> int | None:
    text = _read("/proc/self/statm")
    return None if text is None else int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _memory() -> tuple[int | None, int | None]:
    """Available and total, of the machine or of the container."""
    text = _read("/proc/meminfo")
    if text is None:
        return None, None
    figures = {
        name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in text.splitlines())
    }
    available, total = figures["MemAvailable"], figures["MemTotal"]
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if limit is not None and used is not None and limit.strip() != "max":
        total = min(total, int(limit))
        available = min(available, max(0, int(limit) - int(used)))
    return available, total


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None
