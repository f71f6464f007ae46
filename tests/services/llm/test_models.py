"""Which models can be asked, as the folder changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.services.llm.conftest import DONE, Workshop

from maru.engine.errors import ModelNotFound
from maru.engine.model import Model, ModelSpec
from maru.engine.types import ModelRef
from maru.http.problem import Problem
from maru.runtimes.generation.types import Part, Piece, Prompt


def states(w: Workshop) -> dict[str, str]:
    return {model.model_id: model.state for model in w.models.all()}


def test_models_come_and_go(workshop, run) -> None:
    async def scene() -> None:
        w = workshop()
        await w.models.look()
        assert states(w) == {} and w.models.cards() == []
        w.put("one")
        w.put("two")
        await w.models.look()
        assert states(w) == {"one": "available", "two": "available"}
        assert await w.said("one") == "hello world"
        assert states(w) == {"one": "loaded", "two": "available"}
        (w.folder / "one.gguf").unlink()
        await w.models.look()
        assert states(w) == {"two": "available"}
        with pytest.raises(ModelNotFound, match="'one' not found in registry"):
            w.models.spec("one")
        assert not list(w.engine.manager)
        await w.engine.close()

    run(scene())


def test_a_file_that_changes_is_another_version_and_answers_under_way_are_the_old_ones(workshop, run) -> None:
    more = asyncio.Event()

    async def slowly(prompt: Prompt) -> AsyncIterator[Part]:
        yield Piece("CONTENT")
        if prompt.text == "wait":
            await more.wait()
        yield Piece("CONTENT")
        yield DONE

    async def scene() -> None:
        w = workshop()
        w.script = slowly
        w.put("one", "old")
        await w.models.look()
        before = w.models.spec("one").ref
        async with w.generations.stream(Prompt(text="wait"), "one") as generation:
            assert (await anext(generation.parts)).text == "old"
            w.put("one", "new")
            await w.models.look()
            assert w.models.spec("one").ref != before
            assert await w.said("one") == "newnew"
            await w.models.look()
            assert w.engine.manager.get(before) is not None
            more.set()
            assert (await anext(generation.parts)).text == "old"
        await w.models.look()
        assert w.engine.manager.get(before) is None
        assert w.models.status("one").version == w.models.spec("one").ref.version
        await w.engine.close()

    run(scene())


def test_a_bad_file_is_listed_with_its_reason(workshop, run) -> None:
    async def scene() -> None:
        w = workshop("good")
        w.put("broken", "bad")
        await w.models.look()
        assert states(w) == {"good": "available", "broken": "invalid"}
        assert w.models.status("broken").error == "it is bad"
        assert [card.id for card in w.models.cards()] == ["good"]
        with pytest.raises(Problem, match="it is bad"):
            w.models.spec("broken")
        w.put("broken", "fine")
        await w.models.look()
        assert await w.said("broken") == "hello world"
        w.put("broken", "bad")  # a good one that is written over with a bad one is no longer served
        await w.models.look()
        assert states(w)["broken"] == "invalid"
        assert [resident.spec.ref.name for resident in w.engine.manager] == []
        await w.engine.close()

    run(scene())


def test_another_services_model_is_not_taken_over(workshop, run) -> None:
    async def scene() -> None:
        w = workshop("one", "theirs")
        theirs = ModelSpec(ModelRef("theirs", "1", "1"), Model)
        w.engine.repository.add(theirs)
        await w.models.look()
        assert w.engine.repository.resolve("theirs") is theirs
        assert states(w) == {"one": "available", "theirs": "invalid"}
        (w.folder / "theirs.gguf").unlink()
        await w.models.look()
        assert w.engine.repository.resolve("theirs") is theirs

    run(scene())


def test_pinned_models_are_loaded_and_stay(workshop, run) -> None:
    async def scene() -> None:
        w = workshop("a", "b", "c", pinned=("b", "missing"))
        await w.models.look()
        await w.models.load_pinned()
        assert states(w)["b"] == "loaded" and w.models.status("b").pinned
        for name in ("a", "c", "a", "c"):
            await w.said(name)
            assert states(w)["b"] == "loaded"
        assert sorted(states(w).values()) == ["available", "loaded", "loaded"]
        await w.engine.close()

    run(scene())


def test_two_models_by_default_and_the_least_recent_leaves(workshop, run) -> None:
    """The document's own scenario."""

    async def scene() -> None:
        w = workshop("llama", "mistral", "gpt2")
        await w.models.look()
        held = []
        for name in ("llama", "mistral", "gpt2", "mistral"):
            await w.said(name)
            held.append({name for name, state in states(w).items() if state == "loaded"})
        assert held == [{"llama"}, {"llama", "mistral"}, {"mistral", "gpt2"}, {"mistral", "gpt2"}]
        await w.engine.close()

    run(scene())


def test_the_folder_is_followed(workshop, run) -> None:
    async def scene() -> None:
        w = workshop(look_s=0.01)
        async with w.models.followed():
            w.put("one")
            while "one" not in states(w):
                await asyncio.sleep(0.01)

    run(scene())


def test_the_handiest_was_asked_last_or_is_small(workshop, run) -> None:
    async def scene() -> None:
        w = workshop()
        for name, size in (("large", 100), ("middle", 50), ("small", 1)):
            w.put(name, "x" * size)
        await w.models.look()

        def order() -> list[str]:
            return [spec.ref.name for spec in w.models.handiest()]

        assert order() == ["small", "middle", "large"]
        for name in ("middle", "large"):
            await w.said(name)
        assert order() == ["large", "middle", "small"]
        await w.engine.close()

    run(scene())
