"""The machine that the model runs on, for all who watch it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress

from maru.telemetry.host import HostSample

GPU_EVERY_S = 5.0
"""How often GPUs are looked at when nobody watches, so that a log line can say what memory is taken."""


class Machine:
    """The machine as it was sampled last. There is one sampler however many watch, and it is as quick as the most
    impatient of them asks; when nobody watches a machine without GPUs, there is none."""

    def __init__(self, sample: Callable[[], HostSample]) -> None:
        """`sample` is called in threads."""
        self._sample = sample
        self._intervals: list[float] = []
        self._sampling: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._fresh = asyncio.Event()
        """Of the next sample."""
        self.latest: HostSample | None = None

    @property
    def has_gpu(self) -> bool:
        return self.latest is not None and bool(self.latest.gpus)

    @property
    def gpu_memory_used(self) -> str | None:
        """Of all GPUs, as the document writes it; None where there are none, or they don't tell."""
        told = [gpu.memory_used for gpu in self.latest.gpus if gpu.memory_used] if self.latest else []
        return f"{sum(told) / 1e9:.1f}GB" if told else None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Look once, and where there are GPUs keep looking."""
        self.latest = await asyncio.to_thread(self._sample)
        with self._watched(GPU_EVERY_S) if self.has_gpu else nullcontext():
            yield

    @asynccontextmanager
    async def watch(self, every_s: float) -> AsyncIterator[AsyncIterator[HostSample]]:
        """`async with` it: the machine now, and then every `every_s` seconds."""
        with self._watched(every_s) as fresh:
            yield self._samples(every_s, fresh)

    async def _samples(self, every_s: float, fresh: asyncio.Event) -> AsyncIterator[HostSample]:
        await fresh.wait()
        while True:
            assert self.latest is not None
            yield self.latest
            await asyncio.sleep(every_s)

    @contextmanager
    def _watched(self, every_s: float) -> Iterator[asyncio.Event]:
        """What is set once there is a sample that was begun after this."""
        self._intervals.append(every_s)
        self._asked.set()
        if self._sampling is None:
            self._sampling = asyncio.get_running_loop().create_task(self._keep_sampling())
        try:
            yield self._fresh
        finally:
            self._intervals.remove(every_s)
            if not self._intervals:
                self._sampling.cancel()
                self._sampling = None

    async def _keep_sampling(self) -> None:
        while True:
            self._asked.clear()
            fresh, self._fresh = self._fresh, asyncio.Event()
            self.latest = await asyncio.to_thread(self._sample)
            fresh.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._intervals)):
                    await self._asked.wait()
