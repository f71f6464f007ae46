"""The engine over real workers: what other servers got wrong, one test each (research-llm, section 4)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures_llm import reciting_gguf
from tests.runtimes.generation.asking import GREEDY, run

from maru.engine.engine import Engine
from maru.engine.errors import ModelLoadFailed, ModelNotFound, ModelNotReady, NoRoom, OutOfMemory, QueueFull
from maru.engine.events import ModelChanged
from maru.engine.memory import Budget
from maru.engine.model import ModelSpec
from maru.engine.types import Limits, Request
from maru.runtimes.generation.catalogue import Catalogue
from maru.runtimes.generation.llama_cpp import LlamaCpp
from maru.runtimes.generation.types import Piece, Prompt, Sampling

ENDLESS = Sampling(ignore_eos=True, temperature=0.0)
WORDS = {"a": "apple ant arm", "b": "bread bird bell", "c": "cat cup coin", "d": "dog dust door"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four models that each say words of their own, over and over, and one that is damaged."""
    folder = tmp_path_factory.mktemp("several")
    for name, words in WORDS.items():
        reciting_gguf(folder / f"{name}.gguf", words, ends=False)
    content = (folder / "a.gguf").read_bytes()
    (folder / "bad.gguf").write_bytes(content[: len(content) - 4096])
    return folder


@dataclass
class Serving:
    """An engine with the models of the folder, of which two may be loaded."""

    engine: Engine
    changes: list[ModelChanged]

    def request(self, model: str, sampling: Sampling = GREEDY, deadline_s: float = 30.0) -> Request:
        prompt = Prompt(text="Say it!", sampling=sampling)
        return Request(model, [prompt], self.engine.clock() + deadline_s)

    async def ask(self, model: str, sampling: Sampling = GREEDY) -> str:
        async with self.engine.stream(self.request(model, sampling)) as stream:
            return "".join([part.text async for part in stream.parts if isinstance(part, Piece)])

    @asynccontextmanager
    async def talking(self, model: str) -> AsyncIterator[AsyncIterator[Any]]:
        """An answer that goes on; some of it has come."""
        async with self.engine.stream(self.request(model, ENDLESS)) as stream:
            async for part in stream.parts:
                if isinstance(part, Piece):
                    break
            yield stream.parts

    def loaded(self) -> set[str]:
        return {resident.spec.ref.name for resident in self.engine.manager}

    def pid(self, model: str) -> int:
        (resident,) = [each for each in self.engine.manager if each.spec.ref.name == model]
        return int(resident.model._worker._process.pid)  # type: ignore[attr-defined]

    def count(self, change: str) -> int:
        return sum(each.change == change for each in self.changes)


@asynccontextmanager
async def serving(
    folder: Path, budget: Budget | None = None, limits: Limits | None = None, **spec: Any
) -> AsyncIterator[Serving]:
    engine = Engine(budgets={"llm": budget or Budget(models=2)})
    changes: list[ModelChanged] = []
    engine.events.subscribe(lambda event: changes.append(event) if isinstance(event, ModelChanged) else None)
    catalogue = Catalogue(folder, {"gguf": LlamaCpp(slots=4, context=512, threads=1)})
    catalogue.scan()
    for entry in catalogue:
        memory_bytes = entry.description.memory_bytes if entry.description else 0
        engine.repository.add(
            ModelSpec(
                entry.ref,
                entry.load,
                limits or Limits(running=4, waiting=8),
                memory_bytes=memory_bytes,
                on_demand=True,
                group="llm",
                **spec,
            )
        )
    engine.lifecycle.advance("ready")
    try:
        yield Serving(engine, changes)
    finally:
        await engine.close()


def right(model: str, text: str) -> bool:
    """Whether a text is what that model says, from wherever it began, to wherever it was cut off."""
    words = WORDS[model].replace(" ", "")
    said = text.replace(" ", "")
    return bool(said) and said in words * (len(said) // len(words) + 2)


def served(test: Callable[[Serving], Any]) -> Callable[[Path], None]:
    """The test as a plain one, with an engine of two models."""

    def plain(models: Path) -> None:
        async def main() -> None:
            async with serving(models) as each:
                await test(each)

        run(main())

    plain.__name__, plain.__doc__ = test.__name__, test.__doc__
    return plain


@served
async def test_a_third_model_evicts_the_one_that_was_used_longest_ago(world: Serving) -> None:
    for name in "abac":
        assert right(name, await world.ask(name))
    assert world.loaded() == {"a", "c"}
    assert world.count("evicted") == 1


@served
async def test_a_model_that_is_answering_is_never_evicted(world: Serving) -> None:
    async with world.talking("a") as parts:
        for name in "bcdbcd":
            assert right(name, await world.ask(name))
            assert "a" in world.loaded()
        text = "".join([(await anext(parts)).text for _ in range(20)])
    assert right("a", text)


@served
async def test_when_both_are_answering_a_third_is_refused_with_a_time_and_not_left_hanging(world: Serving) -> None:
    async with world.talking("a"), world.talking("b"):
        began = time.monotonic()
        with pytest.raises(NoRoom) as refused:
            await world.ask("c")
        assert time.monotonic() - began < 2 and refused.value.retry_after_s > 0
    assert right("c", await world.ask("c"))


@served
async def test_a_stampede_on_a_cold_model_loads_it_once(world: Serving) -> None:
    texts = await asyncio.gather(*(world.ask("a") for _ in range(12)))
    assert all(right("a", text) for text in texts) and world.count("loaded") == 1


@served
async def test_loads_at_the_same_time_never_exceed_the_two(world: Serving) -> None:
    answers = await asyncio.gather(*(world.ask(name) for name in "abcd"), return_exceptions=True)
    assert len(world.loaded()) <= 2
    for name, answer in zip("abcd", answers, strict=True):
        assert isinstance(answer, NoRoom) or right(name, str(answer))
    assert sum(not isinstance(answer, Exception) for answer in answers) >= 2


@served
async def test_a_damaged_file_evicts_nothing(world: Serving) -> None:
    await world.ask("a")
    await world.ask("b")
    for _ in range(3):
        with pytest.raises(ModelLoadFailed):
            await world.ask("bad")
    assert world.loaded() == {"a", "b"} and world.count("evicted") == 0


def test_a_model_that_can_never_fit_is_refused_before_anything_is_evicted(models: Path) -> None:
    async def main() -> None:
        one = LlamaCpp(slots=4, context=512, threads=1).describe(models / "a.gguf").memory_bytes
        async with serving(models, Budget(models=2, bytes=one - 1)) as world:
            with pytest.raises(OutOfMemory):
                await world.ask("a")
            assert not world.changes

    run(main())


@served
async def test_a_name_that_is_no_models_is_not_answered_by_another(world: Serving) -> None:
    await world.ask("a")
    for name in ("nobody", "A", "a.gguf", "../a", ""):
        with pytest.raises(ModelNotFound):
            await world.ask(name)


@served
async def test_a_hit_does_not_wait_for_the_load_of_another(world: Serving) -> None:
    await world.ask("a")
    load = asyncio.create_task(world.ask("b"))
    waits = []
    while not load.done():
        began = time.monotonic()
        async with world.talking("a"):
            waits.append(time.monotonic() - began)
        await asyncio.sleep(0.01)
    assert right("b", await load) and waits
    assert sorted(waits)[len(waits) // 2] < 1.0


@served
async def test_a_worker_that_died_is_loaded_again_by_who_asks_next_and_once(world: Serving) -> None:
    await world.ask("a")
    (resident,) = world.engine.manager
    os.kill(world.pid("a"), signal.SIGKILL)
    while resident.model.alive():
        await asyncio.sleep(0.001)
    assert world.engine.manager.get(resident.spec.ref) is None
    answers = await asyncio.gather(*(world.ask("a") for _ in range(4)))
    assert all(right("a", answer) for answer in answers)
    assert world.count("loaded") == 2 and world.loaded() == {"a"}


@served
async def test_answers_of_a_worker_that_dies_end_at_once_and_the_next_one_is_whole(world: Serving) -> None:
    with pytest.raises(ModelNotReady) as ended:
        async with world.talking("a") as parts:
            os.kill(world.pid("a"), signal.SIGKILL)
            async with asyncio.timeout(5):
                async for _ in parts:
                    pass
    assert ended.value.retry_after_s > 0
    assert right("a", await world.ask("a"))


@served
async def test_the_time_without_use_counts_from_the_end_of_an_answer(world: Serving) -> None:
    async with world.talking("a"):
        await world.ask("b")
    await world.ask("c")
    assert world.loaded() == {"a", "c"}


def test_a_pinned_model_stays(models: Path) -> None:
    async def main() -> None:
        async with serving(models, pinned=True) as world:
            await world.ask("a")
            await world.ask("b")
            with pytest.raises(NoRoom):
                await world.ask("c")
            assert world.loaded() == {"a", "b"}

    run(main())


def test_more_than_may_run_and_wait_are_refused_at_once(models: Path) -> None:
    async def main() -> None:
        async with serving(models, limits=Limits(running=1, waiting=2)) as world:
            await world.ask("a")
            asked = [asyncio.create_task(world.ask("a")) for _ in range(6)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(isinstance(answer, QueueFull) for answer in answers) == 3
            assert all(right("a", answer) for answer in answers if isinstance(answer, str))

    run(main())


@served
async def test_one_that_leaves_the_line_or_a_load_costs_the_others_nothing(world: Serving) -> None:
    left = asyncio.create_task(world.ask("a"))
    await asyncio.sleep(0.02)
    left.cancel()
    assert right("a", await world.ask("a")) and world.count("loaded") == 1
    status = world.engine.status("a")
    assert (status.running, status.waiting) == (0, 0)


@served
async def test_memory_is_measured_and_given_back(world: Serving) -> None:
    await world.ask("a")
    pid = world.pid("a")
    (resident,) = world.engine.manager
    assert resident.model.memory_bytes > 10 << 20
    assert await world.engine.manager.unload(resident.spec.ref)
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.01)


def test_fifty_at_once_over_four_models_with_room_for_two_are_all_answered_and_rightly(models: Path) -> None:
    """With patience, the models take turns: nobody is refused, and no model keeps the others out."""

    async def one(world: Serving, number: int) -> None:
        name = "abcd"[number % 4]
        for _ in range(3):
            text = await world.ask(name, Sampling(temperature=0.0, max_tokens=5 + number % 7, ignore_eos=True))
            assert right(name, text), (name, text)
            assert len(world.loaded()) <= 2

    async def main() -> None:
        limits = Limits(running=4, waiting=20)
        async with serving(models, Budget(models=2, patience_s=20.0), limits) as world:
            await asyncio.gather(*(one(world, number) for number in range(50)))

    run(main())
