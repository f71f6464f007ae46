"""Readiness follows what the service answers, not what it lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tests.services.llm.conftest import DONE, Workshop, two_words

from maru.runtimes.generation.types import Part, Piece, Prompt
from maru.services.llm.health import GenerationHealth, Pulse


async def failing(prompt: Prompt) -> AsyncIterator[Part]:
    raise RuntimeError
    yield DONE


def checked(w: Workshop, every_s: float = 0.0) -> tuple[Pulse, GenerationHealth]:
    pulse = Pulse(w.engine, w.generations, every_s)
    w.engine.lifecycle.advance("ready")
    return pulse, GenerationHealth(w.engine, (), lambda accept: (b"", ""), pulse)


def test_ready_is_a_service_that_answers(workshop, run) -> None:
    async def scene() -> None:
        w = workshop()
        pulse, health = checked(w)
        await w.models.look()
        await pulse.check()
        assert health.readiness().status == "not_ready"  # there is nothing to ask
        w.put("one")
        await w.models.look()
        assert health.readiness().status == "not_ready"  # a model that is listed has answered nothing yet
        await pulse.check()
        assert health.readiness().status == "ready" and health.readiness().models == {"generate": True}
        w.script = failing
        await pulse.check()
        assert health.readiness().status == "not_ready"
        w.script = two_words
        await pulse.check()
        assert health.readiness().status == "ready" and w.reported == []
        await w.engine.close()

    run(scene())


def test_one_bad_model_is_not_a_bad_service(workshop, run) -> None:
    async def scene() -> None:
        w = workshop("aaa", "bbb")
        pulse, health = checked(w)
        await w.models.look()
        asked = []

        async def first_fails(prompt: Prompt) -> AsyncIterator[Part]:
            asked.append(prompt)
            if len(asked) == 1:
                raise RuntimeError
            yield DONE

        w.script = first_fails
        await pulse.check()
        assert health.readiness().status == "ready" and [name for name, _ in w.asked] == ["aaa", "bbb"]
        await w.engine.close()

    run(scene())


def test_nothing_is_asked_while_others_are_answered(workshop, run) -> None:
    async def scene() -> None:
        w = workshop("one")
        pulse, health = checked(w, every_s=60.0)
        await w.models.look()
        await w.said("one")
        await pulse.check()
        assert health.readiness().status == "ready" and len(w.asked) == 1
        await w.engine.close()

    run(scene())


def test_what_was_unloaded_by_hand_is_not_loaded_to_ask_it(workshop, run) -> None:
    async def scene() -> None:
        w = workshop("one")
        pulse, health = checked(w)
        await w.models.look()
        await pulse.check()
        assert await w.models.unload("one")
        await pulse.check()
        assert health.readiness().status == "ready" and not list(w.engine.manager) and len(w.asked) == 1
        (w.folder / "one.gguf").unlink()
        await w.models.look()
        await pulse.check()
        assert health.readiness().status == "not_ready"
        await w.engine.close()

    run(scene())


def test_a_busy_model_that_says_nothing_is_stuck(workshop, run) -> None:
    async def stuck(prompt: Prompt) -> AsyncIterator[Part]:
        yield Piece("a")
        await asyncio.Event().wait()
        yield DONE

    async def scene() -> None:
        w = workshop("one")
        pulse, health = checked(w, every_s=0.05)
        await w.models.look()
        await pulse.check()
        w.script = stuck
        tasks = [asyncio.create_task(w.said("one")) for _ in range(w.slots)]
        while w.under_way < w.slots:
            await asyncio.sleep(0.001)
        await pulse.check()
        assert health.readiness().status == "ready"  # it has just been heard
        await asyncio.sleep(0.06)
        await pulse.check()
        assert health.readiness().status == "not_ready" and len(w.asked) == 1 + w.slots
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        w.script = two_words
        await pulse.check()
        assert health.readiness().status == "ready"
        await w.engine.close()

    run(scene())


def test_it_is_found_out_by_itself(workshop, run) -> None:
    async def scene() -> None:
        w = workshop("one")
        pulse, health = checked(w, every_s=0.01)
        await w.models.look()
        async with pulse.kept():
            for script, status in ((two_words, "ready"), (failing, "not_ready"), (two_words, "ready")):
                w.script = script
                while health.readiness().status != status:
                    await asyncio.sleep(0.01)
        await w.engine.close()

    run(scene())
