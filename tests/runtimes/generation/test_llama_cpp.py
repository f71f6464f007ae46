"""GGUF models in real workers: what they say, and how they are interrupted."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.fixtures_llm import Reciter, reciting_gguf
from tests.runtimes.generation.asking import GREEDY, run, said

from maru.engine.errors import InputError, InputTooLong, ModelNotReady
from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.generation.llama_cpp import LlamaCpp, native
from maru.runtimes.generation.model import GenerationModel
from maru.runtimes.generation.types import Piece, Prompt, Sampling

Opened = Callable[..., GenerationModel]

LONG = Sampling(max_tokens=100_000, ignore_eos=True, temperature=0.0)


def pid(model: GenerationModel) -> int:
    return model._worker._process.pid


def sampled(**options: Any) -> Sampling:
    return dataclasses.replace(GREEDY, **options)


def test_it_says_what_the_model_says_and_counts_what_the_model_counted(opened: Opened, reciter: Reciter) -> None:
    model = opened(reciter.path)
    answer = run(said(model, "Say it!"))
    assert answer.text == reciter.words
    assert len(answer.pieces) == reciter.tokens
    finished = answer.finished
    assert (finished.reason, finished.completion_tokens) == ("stop", reciter.tokens + 1)
    assert finished.prompt_tokens == answer.progress[-1].total > 0
    assert finished.prefill_s > 0 and finished.decode_s > 0


def test_messages_go_through_the_models_own_template(opened: Opened, reciter: Reciter) -> None:
    model = opened(reciter.path)
    messages = [{"role": "system", "content": "Short."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    answer = run(said(model, Prompt(messages=messages, sampling=GREEDY)))
    assert answer.text == reciter.words
    plain = run(said(model, Prompt(text="Hi", sampling=GREEDY)))
    assert answer.finished.prompt_tokens > plain.finished.prompt_tokens + 4, "the template adds to the text"


def test_an_answer_ends_at_its_length_or_at_a_stop_string_that_is_not_part_of_it(
    opened: Opened, reciter: Reciter
) -> None:
    model = opened(reciter.path)
    short = run(said(model, Prompt(text="Say it!", sampling=sampled(max_tokens=2))))
    assert (short.text, short.finished.reason, short.finished.completion_tokens) == ("one two", "length", 2)
    stopped = run(said(model, Prompt(text="Say it!", sampling=sampled(stop=(" three f", "never")))))
    assert (stopped.text, stopped.finished.reason) == ("one two", "stop")


def test_a_character_of_several_tokens_comes_whole(opened: Opened, folder: Path) -> None:
    emoji = reciting_gguf(folder / "emoji.gguf", "one two", split="🦙")
    answer = run(said(opened(emoji.path), "Say it!"))
    assert answer.text == "one two🦙"
    assert "�" not in answer.text
    assert answer.finished.completion_tokens == emoji.tokens + 1 > len(answer.pieces) + 1, "pieces are no tokens"


def test_tokens_may_be_given_instead_of_text(opened: Opened, reciter: Reciter) -> None:
    model = opened(reciter.path)
    answer = run(said(model, Prompt(tokens=[5, 6, 7], sampling=GREEDY)))
    assert (answer.text, answer.finished.prompt_tokens) == (reciter.words, 3)
    with pytest.raises(InputError, match="token"):
        run(said(model, Prompt(tokens=[5, 10**6], sampling=GREEDY)))


@pytest.mark.parametrize("asked", [0, 2])
@pytest.mark.parametrize("chat", [False, True])
def test_each_tokens_probability_and_its_rivals(opened: Opened, reciter: Reciter, asked: int, chat: bool) -> None:
    given = {"messages": [{"role": "user", "content": "Hi"}]} if chat else {"text": "Hi"}
    answer = run(said(opened(reciter.path), Prompt(**given, sampling=sampled(logprobs=asked, max_tokens=3))))
    told = [each for piece in answer.pieces for each in piece.logprobs]
    assert [each.token for each in told] == ["one", " two", " three"]
    assert all(each.logprob <= 0 and each.bytes == each.token.encode() for each in told)
    assert all(len(each.top) == asked for each in told)
    assert asked == 0 or all(each.top[0].logprob >= each.top[1].logprob for each in told)


@pytest.mark.parametrize("chat", [False, True])
def test_a_schema_is_kept_to_by_a_model_that_knows_nothing(opened: Opened, random_model: Path, chat: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}},
        "required": ["mood"],
        "additionalProperties": False,
    }
    given: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]} if chat else {"text": "Hi"}
    prompt = Prompt(**given, json_schema=schema, sampling=sampled(logit_bias=None, max_tokens=400))
    answer = run(said(opened(random_model), prompt))
    text = answer.text.rstrip()
    if answer.finished.reason == "stop":
        assert orjson.loads(text)["mood"] in ("good", "bad")
    else:
        assert text.startswith("{")


def test_a_grammar_is_kept_to(opened: Opened, random_model: Path) -> None:
    answer = run(said(opened(random_model), Prompt(text="Hi", grammar='root ::= "yes" | "no"', sampling=GREEDY)))
    assert answer.text in ("yes", "no") and answer.finished.reason == "stop"


def test_equal_seeds_give_equal_answers_and_others_others(opened: Opened, random_model: Path) -> None:
    model = opened(random_model)
    texts = [
        run(said(model, Prompt(text="Hi", sampling=Sampling(max_tokens=20, temperature=1.5, seed=seed), reuse=False)))
        for seed in (1, 1, 2, -1)
    ]
    assert texts[0].text == texts[1].text != texts[2].text


def test_concurrent_answers_are_computed_together_and_none_is_anothers(opened: Opened, folder: Path) -> None:
    model = opened(reciting_gguf(folder / "loop.gguf", "one two three", ends=False).path)
    words = ["one", "two", "three"]

    async def main() -> list[str]:
        prompts = [Prompt(text=f"say {words[i % 3]}", sampling=sampled(max_tokens=30 + i)) for i in range(12)]
        return [answer.text for answer in await asyncio.gather(*(said(model, prompt) for prompt in prompts))]

    for number, text in enumerate(run(main())):
        expected = [words[(number % 3 + 1 + i) % 3] for i in range(30 + number)]
        assert text.split() == expected or "".join(text.split()) == "".join(expected)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(),
        Prompt(text=""),
        Prompt(tokens=[]),
        Prompt(messages=[]),
        Prompt(text="a", messages=[{"role": "user", "content": "b"}]),
        Prompt(text="a", grammar="root ::= ((("),
        Prompt(text="a", grammar="root ::= " + "(" * 10_000),
        Prompt(text="a", grammar="x" * 100_000),
        Prompt(text="a", grammar='root ::= "a"', json_schema={}),
        Prompt(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}]),
        Prompt(messages=[{"no": "role"}]),
        Prompt(messages=[{"role": "user", "content": 7}]),
    ],
)
def test_what_the_model_cannot_take_is_the_callers_error_and_the_model_lives(
    opened: Opened, reciter: Reciter, prompt: Prompt
) -> None:
    model = opened(reciter.path)
    with pytest.raises(InputError):
        run(said(model, prompt))
    assert run(said(model, "Say it!")).text == reciter.words


def deep() -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(5_000):
        schema = {"properties": {"a": schema}}
    return schema


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no such type"},
        {"$ref": "#/nowhere"},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"type": "string", "pattern": "^a(b$"},
        {"type": "array", "minItems": 10**9, "items": {"type": "string"}},
        {"type": "string", "minLength": 1e9},
        {"type": "string", "pattern": "^(a|b){1,1000000000}$"},
        {"type": "integer", "maximum": 10**300},
        {"type": "string", "description": "long" * 50_000},
        deep(),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_rather_than_not_kept(
    opened: Opened, reciter: Reciter, schema: dict[str, Any], chat: bool
) -> None:
    """llama.cpp leaves a plain prompt's schema out when it can't use it, and dies of some."""
    model = opened(reciter.path)
    given: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]} if chat else {"text": "Hi"}
    with pytest.raises(InputError):
        run(said(model, Prompt(**given, json_schema=schema, sampling=GREEDY)))
    assert model.alive()


def test_a_prompt_longer_than_the_context_says_so_and_not_what_it_was(opened: Opened, reciter: Reciter) -> None:
    model = opened(reciter.path, context=256)
    with pytest.raises(InputTooLong, match=r"\d+ tokens.* 256") as refused:
        run(said(model, "secret " * 200))
    assert "secret" not in str(refused.value)


def test_an_answer_without_a_limit_ends_when_the_context_is_full(opened: Opened, random_model: Path) -> None:
    model = opened(random_model, context=256)
    answer = run(said(model, Prompt(text="Hi", sampling=Sampling(ignore_eos=True, temperature=0.0))))
    assert answer.finished.reason == "length"
    assert answer.finished.prompt_tokens + answer.finished.completion_tokens <= 257


def test_a_prompt_that_was_read_before_is_not_read_again_unless_that_was_asked(
    opened: Opened, random_model: Path
) -> None:
    model = opened(random_model, slots=1)
    prompts = [Prompt(text="word " * 40, sampling=sampled(max_tokens=1), reuse=reuse) for reuse in (True, True, False)]
    first, second, third = (run(said(model, prompt)).finished for prompt in prompts)
    assert first.cached_tokens == 0 and second.cached_tokens >= second.prompt_tokens - 1 and third.cached_tokens == 0


# Interruption


def freed_s(model: GenerationModel, leave: Callable[[GenerationModel], Any]) -> float:
    """Seconds from a reader's leaving until the model's only slot serves another."""

    async def main() -> float:
        await leave(model)
        left = time.monotonic()
        answer = await said(model, Prompt(text="Hi", sampling=sampled(max_tokens=1), reuse=False))
        return time.monotonic() - left - answer.finished.prefill_s

    return run(main())


def test_a_reader_who_leaves_while_tokens_come_frees_the_slot(opened: Opened, slow_model: Path) -> None:
    async def leave(model: GenerationModel) -> None:
        async with aclosing(model.stream(Prompt(text="Hi", sampling=LONG))) as stream:  # type: ignore[type-var]
            async for part in stream:
                if isinstance(part, Piece):
                    return

    assert freed_s(opened(slow_model, slots=1, context=4096), leave) < 2.0, "the answer goes on for 16 s"


def test_a_reader_who_leaves_while_the_prompt_is_read_frees_the_slot(opened: Opened, slow_model: Path) -> None:
    prompt = Prompt(tokens=[5 + i % 200 for i in range(1200)], sampling=LONG)
    model = opened(slow_model, slots=1, context=4096, batch=64)
    whole = run(said(model, dataclasses.replace(prompt, sampling=sampled(max_tokens=1)))).finished.prefill_s

    async def leave(model: GenerationModel) -> None:
        async with aclosing(model.stream(dataclasses.replace(prompt, reuse=False))) as stream:  # type: ignore[type-var]
            part = await anext(stream)
            assert not isinstance(part, Piece)

    assert freed_s(model, leave) < max(0.5 * whole, 0.5)


def test_a_worker_that_is_killed_ends_its_answers_at_once_with_an_error(opened: Opened, slow_model: Path) -> None:
    model = opened(slow_model)

    async def main() -> list[Any]:
        asked = [asyncio.create_task(said(model, Prompt(text="Hi", sampling=LONG))) for _ in range(3)]
        await asyncio.sleep(0.3)
        os.kill(pid(model), signal.SIGKILL)
        async with asyncio.timeout(5):
            return await asyncio.gather(*asked, return_exceptions=True)

    assert model.alive()
    assert {type(answer) for answer in run(main())} == {ModelNotReady}
    assert not model.alive()
    with pytest.raises(ModelNotReady):
        run(said(model, "Hi"))


def test_a_reader_who_stops_reading_holds_up_nobody_else(opened: Opened, slow_model: Path) -> None:
    model = opened(slow_model)

    async def main() -> None:
        async with aclosing(model.stream(Prompt(text="Hi", sampling=LONG))) as stuck:  # type: ignore[type-var]
            await anext(stuck)
            for _ in range(3):
                await said(model, Prompt(text="Hello", sampling=sampled(max_tokens=10)))

    run(main())


# Opening and closing


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all" * 100])
def test_a_file_that_is_no_model_is_refused_before_anything_is_started(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(BadModelFile):
        LlamaCpp(python="/no/such/python").open(path)


def test_a_python_without_the_package_is_a_clear_error(reciter: Reciter, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 71\n")
    bare.chmod(0o700)
    with pytest.raises(UnsupportedModel, match="package"):
        LlamaCpp(python=str(bare)).open(reciter.path)
    with pytest.raises(UnsupportedModel, match="started"):
        LlamaCpp(python="/no/such/python").open(reciter.path)


def test_what_is_expected_of_memory_is_near_what_is_measured(opened: Opened, slow_model: Path) -> None:
    options = LlamaCpp(slots=4, context=512, threads=1)
    model = opened(slow_model)
    model.warm()
    expected = options.describe(slow_model).memory_bytes
    assert 0.7 * expected < model.memory_bytes < 1.4 * expected, (expected, model.memory_bytes)


def test_what_a_model_is_can_be_shown(opened: Opened, slow_model: Path) -> None:
    facts = opened(slow_model).metadata
    assert facts["architecture"] == "llama" and facts["quantization"] == "Q8_0"
    assert facts["context_length"] == 4096 and facts["max_context_length"] == 512
    assert facts["size_bytes"] == slow_model.stat().st_size and facts["parameters"] > 30_000_000
    assert "messages" in facts["chat_template"]


def test_the_words_for_a_llama_server_of_ones_own() -> None:
    options = {
        "path": "m.gguf",
        "slots": 4,
        "context": 512,
        "batch": 128,
        "threads": 2,
        "gpu_layers": -1,
        "cache_mib": 0,
    }
    words = native("s.sock", options)
    for name, value in {"--ctx-size": "2048", "--parallel": "4", "--host": "s.sock", "--n-gpu-layers": "auto"}.items():
        assert words[words.index(name) + 1] == value
