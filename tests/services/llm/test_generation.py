"""One answer, and several at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.services.llm.conftest import DONE, Workshop, two_words

from maru.engine.errors import DeadlineExceeded, ModelFailed, OutOfMemory, QueueFull
from maru.runtimes.generation.types import Finished, Part, Piece, Progress, Prompt, TokenLogprob
from maru.services.llm.several import collect, merged

ASKED = Prompt(text="a")


async def many(w: Workshop, count: int):
    return [w.generations.stream(Prompt(text=str(index)), "one") for index in range(count)]


def test_what_an_answer_took(workshop, run) -> None:
    async def scene() -> None:
        w = workshop("one")
        await w.models.look()
        async with w.generations.stream(ASKED, "one") as generation:
            answer = await generation.collected()
        counts = generation.counts()
        assert (answer.text, counts.tokens_generated, counts.prompt_tokens, counts.cached_tokens) == (
            "hello world",
            2,
            3,
            1,
        )
        assert 0 < counts.time_to_first_token <= counts.time_elapsed
        (served,) = w.reported
        assert (served.ref, served.generated_tokens, served.prompt_tokens) == (generation.ref, 2, 3)
        assert served.total_time == counts.time_elapsed
        await w.engine.close()

    run(scene())


def test_an_answer_that_is_left_is_stopped_and_not_reported(workshop, run) -> None:
    async def scene() -> None:
        w = workshop("one")
        await w.models.look()
        async with w.generations.stream(ASKED, "one") as generation:
            assert (await anext(generation.parts)).text == "hello "
            assert w.under_way == 1
        assert w.under_way == 0 and w.reported == [] and w.engine.status("one").running == 0
        await w.engine.close()

    run(scene())


def test_no_part_and_no_end_are_failures(workshop, run) -> None:
    async def nothing(prompt: Prompt) -> AsyncIterator[Part]:
        for part in ():
            yield part

    async def endless(prompt: Prompt) -> AsyncIterator[Part]:
        yield Progress(1, 2)
        yield Piece("a")

    async def scene() -> None:
        w = workshop("one")
        await w.models.look()
        for script in (nothing, endless):
            w.script = script
            with pytest.raises(ModelFailed):
                await w.said("one")
        assert w.reported == []
        await w.engine.close()

    run(scene())


def test_text_and_figures_that_no_json_can_hold(workshop, run) -> None:
    odd = TokenLogprob("\ud800", float("-inf"), b"\xed", 1, (TokenLogprob("ü", float("nan"), b"", 2),))

    async def script(prompt: Prompt) -> AsyncIterator[Part]:
        yield Piece("\udfff ü", (odd,))
        yield DONE

    async def scene() -> None:
        w = workshop("one")
        w.script = script
        await w.models.look()
        async with w.generations.stream(ASKED, "one") as generation:
            answer = await generation.collected()
        (token,) = answer.logprobs
        assert answer.text == "? ü"
        assert (token.token, token.logprob, token.top[0].token, token.top[0].logprob) == ("?", -9999.0, "ü", -9999.0)
        await w.engine.close()

    run(scene())


def test_several_answers_in_order(workshop, run) -> None:
    async def script(prompt: Prompt) -> AsyncIterator[Part]:
        await asyncio.sleep(0.02 * (5 - int(prompt.text)))
        yield Piece(prompt.text)
        yield DONE

    async def scene() -> None:
        w = workshop("one")
        w.script = script
        await w.models.look()
        answers = await collect(await many(w, 5))
        assert [answer.text for answer in answers] == ["0", "1", "2", "3", "4"]
        await w.engine.close()

    run(scene())


def test_the_first_error_ends_all_and_is_itself(workshop, run) -> None:
    async def script(prompt: Prompt) -> AsyncIterator[Part]:
        yield Piece("a")
        if prompt.text == "1":
            raise OutOfMemory("out of memory")
        await asyncio.Event().wait()

    async def scene() -> None:
        w = workshop("one")
        w.script = script
        await w.models.look()
        with pytest.raises(OutOfMemory):
            await collect(await many(w, 2))
        assert w.under_way == 0
        with pytest.raises(OutOfMemory):
            async with merged(await many(w, 2)) as parts:
                async for _ in parts:
                    pass
        assert w.under_way == 0 and w.engine.status("one").running == 0
        await w.engine.close()

    run(scene())


def test_several_streams_in_fewer_slots(workshop, run) -> None:
    async def scene() -> None:
        w = workshop("one")
        w.slots = 1
        await w.models.look()
        ended, texts = [], dict.fromkeys(range(4), "")
        async with merged(await many(w, 4)) as parts:
            async for index, generation, part in parts:
                if isinstance(part, Piece):
                    texts[index] += part.text
                elif isinstance(part, Finished):
                    ended.append(index)
                    assert generation.finished is part
        assert texts == dict.fromkeys(range(4), "hello world") and sorted(ended) == [0, 1, 2, 3]
        await w.engine.close()

    run(scene())


def test_several_streams_that_are_left(workshop, run) -> None:
    async def forever(prompt: Prompt) -> AsyncIterator[Part]:
        while True:
            yield Piece("a")
            await asyncio.sleep(0)

    async def scene() -> None:
        w = workshop("one")
        w.script = forever
        await w.models.look()
        async with merged(await many(w, 2)) as parts:
            await anext(parts)
            assert w.under_way == 2
        assert w.under_way == 0
        with pytest.raises(ZeroDivisionError):
            async with merged(await many(w, 2)) as parts:
                await anext(parts)
                raise ZeroDivisionError
        assert w.under_way == 0

        async def read() -> None:
            async with merged(await many(w, 2)) as parts:
                async for _ in parts:
                    await asyncio.sleep(0.001)

        task = asyncio.create_task(read())
        while w.under_way < 2:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() and w.under_way == 0
        await w.engine.close()

    run(scene())


def test_a_reader_who_is_slow_holds_up_the_models_and_not_the_memory(workshop, run) -> None:
    made = 0

    async def fast(prompt: Prompt) -> AsyncIterator[Part]:
        nonlocal made
        while True:
            made += 1
            yield Piece("a")

    async def scene() -> None:
        w = workshop("one")
        w.script = fast
        await w.models.look()
        async with merged(await many(w, 2)) as parts:
            await anext(parts)
            await asyncio.sleep(0.1)
            assert made < 200
        await w.engine.close()

    run(scene())


def test_all_of_several_are_refused_where_one_is(workshop, run) -> None:
    async def slowly(prompt: Prompt) -> AsyncIterator[Part]:
        yield Piece("a")
        await asyncio.sleep(0.05)
        yield DONE

    async def scene() -> None:
        w = workshop("one", waiting=0)
        w.script = slowly
        w.slots = 1
        await w.models.look()
        for asked in (collect, _streamed):
            with pytest.raises(QueueFull):
                await asked(await many(w, 2))
        assert w.under_way == 0 and w.engine.status("one").running == 0
        await w.engine.close()

    run(scene())


async def _streamed(openings) -> None:
    async with merged(openings) as parts:
        async for _ in parts:
            pass


def test_the_deadline(workshop, run) -> None:
    async def stuck(prompt: Prompt) -> AsyncIterator[Part]:
        yield Piece("a")
        await asyncio.Event().wait()

    async def scene() -> None:
        w = workshop("one", timeout_s=0.05)
        await w.models.look()
        w.script = stuck
        with pytest.raises(DeadlineExceeded):
            await w.said("one")
        with pytest.raises(DeadlineExceeded):
            await _streamed(await many(w, 2))
        w.script = two_words
        assert await w.said("one") == "hello world"
        await w.engine.close()

    run(scene())
