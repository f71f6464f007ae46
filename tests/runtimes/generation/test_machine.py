"""What a container may use is what counts, where that is less than the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maru.runtimes.generation.machine import cores, memory_bytes


@pytest.mark.parametrize(
    ("quota", "expected"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None), ("nonsense", None)]
)
def test_a_quota_of_processor_time_is_a_bound(tmp_path: Path, quota: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert cores(tmp_path) == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_containers_memory_is_a_bound(tmp_path: Path, name: str) -> None:
    whole = memory_bytes(tmp_path)
    assert whole > 1 << 28
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("1000000\n")
    assert memory_bytes(tmp_path) == whole - memory_of_host() + 1_000_000
    (tmp_path / name).write_text("max\n")
    assert memory_bytes(tmp_path) == whole


def memory_of_host() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
