from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from maru.telemetry.host import HostSampler


def test_a_busy_processor_shows() -> None:
    sampler = HostSampler(every_s=0.0)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass
    sample = sampler.sample()
    assert sample.cpu_percent is not None
    assert 1.0 < sample.cpu_percent <= 100.0
    assert abs(sample.time - time.time()) < 5


def test_memory_that_is_taken_shows() -> None:
    sampler = HostSampler(every_s=0.0)
    before = sampler.sample()
    block = b"x" * 100_000_000
    after = sampler.sample()
    del block
    assert before.rss is not None
    assert after.rss is not None
    assert after.rss - before.rss > 80_000_000
    assert after.memory_available is not None
    assert after.memory_total is not None
    assert 0 < after.memory_available < after.memory_total


def test_readers_share_a_sample() -> None:
    sampler = HostSampler(every_s=60.0)
    assert sampler.sample() is sampler.sample()


def test_readers_are_not_given_an_old_sample() -> None:
    sampler = HostSampler(every_s=0.0)
    assert sampler.sample() is not sampler.sample()


def test_where_there_is_no_gpu_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sampler = HostSampler()
    assert sampler.sample().gpus == ()
    sampler.close()


class Refused(Exception):
    pass


class Nvml:
    """nvidia-ml-py on a machine with two GPUs, the second of which has few sensors."""

    NVML_TEMPERATURE_GPU = 0
    shut = False

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None:
        self.shut = True

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "H200"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(used=10 * 2**30, total=140 * 2**30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        if handle:
            raise Refused
        return SimpleNamespace(gpu=40)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 50

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if handle:
            raise Refused
        return 250_500


def test_gpus_tell_what_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    sampler = HostSampler()
    first, second = sampler.sample().gpus
    assert (first.name, first.utilization_percent, first.temperature, first.power_usage) == (
        "H200",
        40.0,
        50.0,
        250.5,
    )
    assert (first.memory_used, first.memory_total) == (10 * 2**30, 140 * 2**30)
    assert (second.index, second.utilization_percent, second.power_usage) == (1, None, None)
    assert second.memory_used == 10 * 2**30
    registry = CollectorRegistry()
    registry.register(sampler)
    text = generate_latest(registry).decode()
    assert 'maru_gpu_utilization_ratio{gpu="0"} 0.4' in text
    assert 'maru_gpu_utilization_ratio{gpu="1"}' not in text
    assert 'maru_gpu_memory_used_bytes{gpu="1"} 1.073741824e+010' in text.replace("e+10", "e+010")
    sampler.close()
    assert nvml.shut
