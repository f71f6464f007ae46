"""How much of the machine there is for models: a container may have less than the machine has."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

CGROUP = Path("/sys/fs/cgroup")


def cores(cgroup: Path = CGROUP) -> int:
    """How many cores this process may use. More threads than that only wait for each other."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # there is no quota, or no cgroup
        quota, period = (cgroup / "cpu.max").read_text().split()
        allowed = min(allowed, math.ceil(int(quota) / int(period)))
    return max(1, allowed)


def memory_bytes(cgroup: Path = CGROUP) -> int:
    """What models may take at the very most: the memory of this process's container, and that of all GPUs."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            total = min(total, int((cgroup / name).read_text()))
    return total + _gpu_bytes()


def gpu_bytes_of(pids: Iterable[int]) -> int:
    """What these processes hold on all GPUs; 0 where that can't be told."""
    wanted = set(pids)

    def held(nvml: Any, handle: Any) -> int:
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return sum(process.usedGpuMemory or 0 for process in processes if process.pid in wanted)

    return _over_gpus(held)


def _gpu_bytes() -> int:
    return _over_gpus(lambda nvml, handle: int(nvml.nvmlDeviceGetMemoryInfo(handle).total))


def _over_gpus(ask: Callable[[Any, Any], int]) -> int:
    """The sum of what each GPU answers; 0 where there is none, or no driver."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # ImportError, or NVMLError, whose module may not be there
        return 0
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return sum(ask(nvml, handle) for handle in handles)
    except Exception:
        return 0
    finally:
        nvml.nvmlShutdown()
