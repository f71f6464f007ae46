"""What a benchmark ran on, without which its figures mean little."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from maru import __version__
from maru.telemetry.host import HostSample

_PACKAGES = ("xllamacpp", "torch", "transformers", "aiohttp", "uvloop")


def environment(sample: HostSample) -> dict[str, Any]:
    """This machine and this installation. Nothing in it names a person, a folder or the machine itself."""
    return {
        "maru": __version__,
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_bytes": sample.memory_total,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "gpus": [{"index": gpu.index, "name": gpu.name, "memory_bytes": gpu.memory_total} for gpu in sample.gpus],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
