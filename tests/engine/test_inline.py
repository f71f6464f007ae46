"""A model that is quicker than a thread's delay runs on the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

from maru.engine.engine import Engine
from maru.engine.model import Model, ModelSpec
from maru.engine.types import Limits, ModelRef, Request


class Inline(Model):
    inline = True

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def predict(self, batch: Sequence[int]) -> Sequence[int]:
        self.threads.add(threading.get_ident())
        if 13 in batch:
            raise ValueError("thirteen")
        return [2 * value for value in batch]


def test_it_answers_on_the_loop_in_batches_and_fails_alone() -> None:
    async def scenario() -> None:
        engine, model = Engine(), Inline()
        spec = ModelSpec(ModelRef("m", "1", "digest"), lambda: model, Limits(running=8, waiting=64, max_batch_size=4))
        engine.repository.add(spec)
        await engine.manager.load(spec)

        def request(*values: int) -> Request:
            return Request("m", values, time.monotonic() + 5, partial=True)

        several = await asyncio.gather(*(engine.infer(request(n)) for n in range(10)))
        assert [result.outputs for result in several] == [[2 * n] for n in range(10)]
        many = await engine.infer(request(*range(30)))
        assert [n for n, output in enumerate(many.outputs) if isinstance(output, Exception)] == [13]
        assert many.outputs[29] == 58
        assert model.threads == {threading.get_ident()}
        await engine.close()

    asyncio.run(scenario())


def test_what_is_queued_is_shared_out_among_free_workers() -> None:
    class Slow(Model):
        def __init__(self) -> None:
            self.batches: list[int] = []

        def predict(self, batch: Sequence[int]) -> Sequence[int]:
            self.batches.append(len(batch))
            time.sleep(0.05)
            return list(batch)

    async def scenario() -> None:
        engine, model = Engine(), Slow()
        limits = Limits(running=64, waiting=64, max_batch_size=32, workers=2)
        spec = ModelSpec(ModelRef("m", "1", "digest"), lambda: model, limits)
        engine.repository.add(spec)
        await engine.manager.load(spec)
        await asyncio.gather(*(engine.infer(Request("m", (n,), time.monotonic() + 5)) for n in range(16)))
        assert sorted(model.batches) == [8, 8]
        await engine.close()

    asyncio.run(scenario())
