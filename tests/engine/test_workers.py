"""Batches computed in real threads, on a real clock: what virtual time can't show."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Sequence

from maru.engine.engine import Engine
from maru.engine.model import Model, ModelSpec
from maru.engine.types import Limits, ModelRef, Request

PATIENCE_S = 20.0


class Doubling(Model):
    """Answers 2·n. `gate` holds every batch, `seconds` is how long one takes."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[int]] = []
        self.inside = 0
        self.most_inside = 0
        self.closed = False
        self._lock = threading.Lock()

    def predict(self, batch: Sequence[int]) -> list[int]:
        assert not self.closed
        with self._lock:
            self.batches.append(list(batch))
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        assert self.gate.wait(PATIENCE_S)
        time.sleep(self.seconds * random.random())
        with self._lock:
            self.inside -= 1
        return [2 * n for n in batch]

    def close(self) -> None:
        assert not self.inside
        self.closed = True


async def served(model: Model, limits: Limits) -> Engine:
    engine = Engine()
    spec = ModelSpec(ModelRef("m", "1", "d"), lambda: model, limits)
    engine.repository.add(spec)
    await engine.manager.load(spec)
    engine.lifecycle.advance("ready")
    return engine


def ask(engine: Engine, *numbers: int) -> asyncio.Task[list[int]]:
    async def answer() -> list[int]:
        request = Request("m", numbers, engine.clock() + PATIENCE_S)
        return (await engine.infer(request)).outputs

    return asyncio.create_task(answer())


def until(true: object) -> None:
    """Wait, with the event loop stopped."""
    assert callable(true)
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_a_worker_goes_on_without_the_event_loop() -> None:
    async def main() -> None:
        model = Doubling()
        engine = await served(model, Limits(running=64, waiting=64, max_batch_size=4))
        model.gate.clear()
        tasks = [ask(engine, 0)]
        while not model.batches:
            await asyncio.sleep(0.001)
        tasks += [ask(engine, n) for n in range(1, 5)]
        await asyncio.sleep(0.05)
        model.gate.set()
        until(lambda: len(model.batches) == 2)
        assert [task.done() for task in tasks] == [False] * 5, "the loop hasn't turned since"
        assert await asyncio.gather(*tasks) == [[2 * n] for n in range(5)]
        assert model.batches == [[0], [1, 2, 3, 4]]
        await engine.close()

    asyncio.run(main())


def test_many_threads_many_callers_who_come_and_go() -> None:
    """Every answer is its caller's own, no more workers than allowed, and nothing is left behind."""

    async def main() -> None:
        model = Doubling(0.002)
        engine = await served(model, Limits(running=48, waiting=4096, max_batch_size=8, workers=4))
        rng = random.Random(7)

        async def caller(first: int) -> int:
            answered = 0
            for n in range(first, first + 40):
                numbers = [n * 10 + i for i in range(rng.randint(1, 5))]
                task = ask(engine, *numbers)
                if rng.random() < 0.2:
                    await asyncio.sleep(0.004 * rng.random())
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                else:
                    assert await task == [2 * number for number in numbers]
                    answered += 1
            return answered

        answers = await asyncio.gather(*(caller(1000 * k) for k in range(24)))
        assert sum(answers) > 24 * 20
        assert 1 < model.most_inside <= 4
        assert max(map(len, model.batches)) > 1
        status = engine.status("m")
        assert (status.running, status.waiting) == (0, 0)
        await engine.close()
        assert model.closed

    asyncio.run(main())
