"""NVIDIA GPUs, where nvidia-ml-py is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. What it doesn't tell is None. Memory in bytes, power in watts, temperature in °C."""

    index: int
    name: str
    utilization_percent: float | None
    memory_used: int | None
    memory_total: int | None
    temperature: float | None
    power_usage: float | None


class Gpus:
    """All GPUs of the machine; none where there is no driver or no nvidia-ml-py."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        with suppress(Exception):  # ImportError, or NVMLError, whose module may not be there
            nvml = importlib.import_module("pynvml")
            nvml.nvmlInit()
            self._nvml = nvml
            self._handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]

    def sample(self) -> tuple[Gpu, ...]:
        return tuple(self._read(index, handle) for index, handle in enumerate(self._handles))

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()

    def _read(self, index: int, handle: Any) -> Gpu:
        nvml = self._nvml
        memory = _told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        celsius = _told(lambda: nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU))
        if celsius is None:  # a driver from before the call above
            celsius = _told(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        milliwatts = _told(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        return Gpu(
            index,
            str(_told(lambda: nvml.nvmlDeviceGetName(handle)) or "unknown"),
            _told(lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
            memory and memory.used,
            memory and memory.total,
            None if celsius is None else float(celsius),
            None if milliwatts is None else milliwatts / 1000,
        )


def _told(ask: Callable[[], Any]) -> Any:
    """The answer, or None: a GPU refuses what it has no sensor or no permission for, each in its own way."""
    try:
        return ask()
    except Exception:
        return None
