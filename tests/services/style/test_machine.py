"""One sampler, however many watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from maru.services.style.machine import Machine
from maru.telemetry.gpu import Gpu
from maru.telemetry.host import HostSample

GPU = Gpu(0, "H200", 12.0, 2_100_000_000, 8_000_000_000, 50.0, 100.0)


class Sampler:
    def __init__(self, *gpus: Gpu) -> None:
        self.gpus = gpus
        self.taken = 0
        self.inside = 0
        self.most = 0

    def __call__(self) -> HostSample:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.001)
        self.taken += 1
        self.inside -= 1
        return HostSample(float(self.taken), 1.0, 1, 1, 1, self.gpus)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def collect(machine: Machine, every_s: float, count: int) -> list[float]:
    async with machine.watch(every_s) as samples:
        times = []
        async for sample in samples:
            times.append(sample.time)
            if len(times) == count:
                return times
    raise AssertionError


def test_several_watchers_cost_one_sampler() -> None:
    async def main() -> tuple[int, int]:
        alone, shared = Sampler(), Sampler()
        for sampler, watchers in ((alone, 1), (shared, 25)):
            machine = Machine(sampler)
            await asyncio.gather(*(collect(machine, 0.1, 8) for _ in range(watchers)))
            assert sampler.most == 1
        return alone.taken, shared.taken

    alone, shared = asyncio.run(main())
    assert shared <= alone + 8  # and not 25 times as many


def test_each_watcher_is_given_a_fresh_sample_first() -> None:
    async def main() -> None:
        sampler = Sampler()
        machine = Machine(sampler)
        async with machine.opened():
            (first,) = await collect(machine, 60.0, 1)
            assert first > 1  # the one that was taken at the start is old
            async with machine.watch(60.0) as samples:
                slow = await anext(samples)
                (second,) = await collect(machine, 60.0, 1)
                assert second > slow.time

    asyncio.run(main())


def test_the_most_impatient_sets_the_pace_while_there_is_one() -> None:
    async def main() -> None:
        sampler = Sampler()
        machine = Machine(sampler)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(machine.watch(60.0))
            await until(lambda: sampler.taken == 1)
            found = await collect(machine, 0.02, 10)
            assert found == sorted(found) and len(set(found)) > 4
        taken = sampler.taken
        await asyncio.sleep(0.1)
        assert sampler.taken <= taken + 1  # nobody watches

    asyncio.run(main())


def test_a_watcher_that_fails_leaves_nothing_behind() -> None:
    async def main() -> None:
        machine = Machine(Sampler())
        for _ in range(3):
            try:
                async with machine.watch(0.01) as samples:
                    await anext(samples)
                    raise ValueError
            except ValueError:
                pass
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_gpus() -> None:
    async def main() -> None:
        bare, with_gpus = Machine(Sampler()), Machine(Sampler(GPU, GPU))
        assert bare.gpu_memory_used is None and not bare.has_gpu
        async with bare.opened(), with_gpus.opened():
            assert bare.gpu_memory_used is None and not bare.has_gpu
            assert with_gpus.gpu_memory_used == "4.2GB" and with_gpus.has_gpu
        silent = Machine(Sampler(Gpu(0, "?", None, None, None, None, None)))
        async with silent.opened():
            assert silent.has_gpu and silent.gpu_memory_used is None
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
