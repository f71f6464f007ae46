"""Safetensors models in real workers of transformers': the same promises as for GGUF, and the same tokens."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures_llm import Reciter, random_folder, random_gguf, reciting_folder
from tests.runtimes.generation.asking import GREEDY, run, said
from tests.runtimes.generation.conftest import open_folder

from maru.engine.errors import InputError, InputTooLong, ModelNotReady
from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.generation.llama_cpp import LlamaCpp
from maru.runtimes.generation.model import GenerationModel
from maru.runtimes.generation.model_folder import ModelFolder
from maru.runtimes.generation.transformers import Transformers
from maru.runtimes.generation.types import Piece, Prompt, Sampling


def sampled(**options: Any) -> Sampling:
    return dataclasses.replace(GREEDY, **options)


@pytest.fixture(scope="module")
def source(folder: Path) -> Reciter:
    return reciting_folder(folder / "reciter", "one two three four five", split="🦙")


@pytest.fixture(scope="module")
def reciter(source: Reciter) -> Iterator[GenerationModel]:
    with open_folder(source.path) as model:
        model.warm()
        yield model


@pytest.fixture(scope="module")
def random(folder: Path) -> Iterator[GenerationModel]:
    with open_folder(random_folder(folder / "random", seed=7)) as model:
        yield model


def test_it_says_what_the_model_says_and_counts_what_the_model_counted(
    reciter: GenerationModel, source: Reciter
) -> None:
    answer = run(said(reciter, "Say it!"))
    assert answer.text == source.words and "�" not in answer.text
    assert (answer.finished.reason, answer.finished.completion_tokens) == ("stop", source.tokens + 1)
    assert answer.finished.prompt_tokens == answer.progress[-1].total > 0
    assert reciter.memory_bytes > 100 << 20


def test_messages_go_through_the_models_own_template(reciter: GenerationModel, source: Reciter) -> None:
    messages = [{"role": "system", "content": "Short."}, {"role": "user", "content": "Hi"}]
    answer = run(said(reciter, Prompt(messages=messages, sampling=GREEDY)))
    assert answer.text == source.words
    assert answer.finished.prompt_tokens > run(said(reciter, "Hi")).finished.prompt_tokens + 4


def test_an_answer_ends_at_its_length_or_at_a_stop_string_that_is_not_part_of_it(reciter: GenerationModel) -> None:
    short = run(said(reciter, Prompt(text="Say it!", sampling=sampled(max_tokens=2))))
    assert (short.text, short.finished.reason, short.finished.completion_tokens) == ("one two", "length", 2)
    stopped = run(said(reciter, Prompt(text="Say it!", sampling=sampled(stop=(" three f", "never")))))
    assert (stopped.text, stopped.finished.reason) == ("one two", "stop")
    held = run(said(reciter, Prompt(text="Say it!", sampling=sampled(stop=("five!",), max_tokens=5))))
    assert (held.text, held.finished.reason) == ("one two three four five", "length"), "what was held back is said"


@pytest.mark.parametrize("asked", [0, 2])
def test_each_tokens_probability_and_its_rivals(reciter: GenerationModel, asked: int) -> None:
    answer = run(said(reciter, Prompt(text="Hi", sampling=sampled(logprobs=asked))))
    told = [each for piece in answer.pieces for each in piece.logprobs]
    assert b"".join(each.bytes for each in told).decode() == answer.text
    assert all(each.logprob <= 0 and len(each.top) == asked for each in told)


def test_its_probabilities_are_those_of_llama_cpp_with_the_same_weights(random: GenerationModel, folder: Path) -> None:
    model = LlamaCpp(slots=1, context=256, threads=1).open(random_gguf(folder / "same.gguf", seed=7))
    texts = ["The cat sat", "안녕 12.5\n\tx", *(f"The hat {number} and" for number in range(10)), "word " * 30]
    compared = 0
    try:
        for text in texts:
            prompt = Prompt(text=text, sampling=sampled(max_tokens=1, ignore_eos=True, logprobs=3))
            ours, theirs = run(said(random, prompt)), run(said(model, prompt))
            assert ours.finished.prompt_tokens == theirs.finished.prompt_tokens
            if theirs.pieces and theirs.pieces[0].logprobs:  # of a part of a character llama.cpp tells nothing
                (our,), (their,) = ours.pieces[0].logprobs, theirs.pieces[0].logprobs
                assert [each.logprob for each in our.top] == pytest.approx([t.logprob for t in their.top], abs=0.02)
                compared += 1
    finally:
        model.close()
    assert compared >= 4


def test_answers_together_are_the_same_as_alone(random: GenerationModel) -> None:
    prompts = [
        Prompt(text=f"The {i}", sampling=Sampling(max_tokens=20, temperature=i / 4, seed=i, top_k=9, top_p=0.9))
        for i in range(6)
    ]

    async def together() -> list[str]:
        return [answer.text for answer in await asyncio.gather(*(said(random, prompt) for prompt in prompts))]

    assert run(together()) == [run(said(random, prompt)).text for prompt in prompts]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.5, "seed": 1},
        {"temperature": 1.0, "seed": 1, "min_p": 0.2},
        {"repeat_penalty": 1.5},
        {"presence_penalty": 2.0, "frequency_penalty": 2.0},
    ],
)
def test_what_is_asked_of_the_sampling_changes_the_answer_and_is_repeatable(
    random: GenerationModel, options: dict[str, Any]
) -> None:
    base = {"max_tokens": 40, "temperature": 0.0, "ignore_eos": True}
    prompt = Prompt(text="The cat", sampling=Sampling(**{**base, **options}))
    first, second = run(said(random, prompt)), run(said(random, prompt))
    assert first.text == second.text != run(said(random, Prompt(text="The cat", sampling=Sampling(**base)))).text


def test_a_bias_decides(random: GenerationModel) -> None:
    answer = run(said(random, Prompt(text="a", sampling=sampled(max_tokens=3, logit_bias={70: 1e6}, logprobs=0))))
    assert [each.id for piece in answer.pieces for each in piece.logprobs] == [70, 70, 70]


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1e-40}, {"temperature": 1.0, "logit_bias": {70: 1e39}}, {"temperature": 1.0, "min_p": 2.0}],
)
def test_no_sampling_is_beyond_computing(random: GenerationModel, options: dict[str, Any]) -> None:
    """What can't be drawn from would end the process, and with it everybody's answers."""
    answer = run(said(random, Prompt(text="a", sampling=Sampling(max_tokens=5, ignore_eos=True, **options))))
    assert answer.finished.completion_tokens == 5


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(text="a", grammar='root ::= "a"'),
        Prompt(text="a", json_schema={}),
        Prompt(messages=[{"role": "user", "content": "a"}], json_schema={}),
        Prompt(tokens=[5, 10**6]),
        Prompt(tokens=[-1]),
        Prompt(messages=[{"no": "role"}]),
    ],
)
def test_what_the_model_cannot_take_is_the_callers_error(random: GenerationModel, prompt: Prompt) -> None:
    with pytest.raises(InputError):
        run(said(random, prompt))
    assert random.alive()


def test_a_prompt_that_is_too_long_is_refused_and_ends_nobody_elses_answer(
    reciter: GenerationModel, source: Reciter
) -> None:
    """Handed on, it would end transformers' manager, which would still say that it runs."""

    async def main() -> None:
        other = asyncio.create_task(said(reciter, Prompt(text="Hi", sampling=sampled(max_tokens=200, ignore_eos=True))))
        for length in (256, 257, 5_000):
            with pytest.raises(InputTooLong, match=rf"{length} tokens.* 256"):
                await said(reciter, Prompt(tokens=[5] * length, sampling=GREEDY))
        last = await said(reciter, Prompt(tokens=[5] * 255, sampling=sampled(max_tokens=1000)))
        assert (last.finished.completion_tokens, last.finished.reason) == (1, "length")
        assert (await other).finished.completion_tokens == 200

    run(main())
    assert run(said(reciter, "Say it!")).text == source.words


def test_full_contexts_in_every_slot_have_room(random: GenerationModel) -> None:
    async def main() -> list[int]:
        prompts = [Prompt(tokens=[5 + i] * 100, sampling=Sampling(ignore_eos=True)) for i in range(5)]
        return [
            answer.finished.completion_tokens for answer in await asyncio.gather(*(said(random, p) for p in prompts))
        ]

    assert run(main(), within_s=120) == [156] * 5


def test_a_reader_who_leaves_frees_the_slot(random: GenerationModel) -> None:
    async def main() -> None:
        for _ in range(6):
            prompt = Prompt(text="Hi", sampling=Sampling(ignore_eos=True))
            async with aclosing(random.stream(prompt)) as stream:  # type: ignore[type-var]
                async for part in stream:
                    if isinstance(part, Piece):
                        break
        left = time.monotonic()
        await asyncio.gather(*(said(random, Prompt(text="a", sampling=sampled(max_tokens=1))) for _ in range(3)))
        assert time.monotonic() - left < 2.0

    run(main())


# What may not be opened


def test_a_worker_that_is_killed_ends_its_answers_at_once(source: Reciter) -> None:
    with open_folder(source.path) as model:

        async def main() -> Any:
            asked = asyncio.create_task(said(model, Prompt(text="Hi", sampling=Sampling(ignore_eos=True))))
            await asyncio.sleep(0.2)
            os.kill(model._worker._process.pid, signal.SIGKILL)
            (ended,) = await asyncio.gather(asked, return_exceptions=True)
            return ended

        assert isinstance(run(main()), ModelNotReady) and not model.alive()


def test_a_python_without_transformers_is_a_clear_error(source: Reciter) -> None:
    with pytest.raises(UnsupportedModel, match="package"):
        Transformers(python=sys.executable).open(source.path)


def spoilt(path: Path, source: Reciter) -> Path:
    shutil.copytree(source.path, path)
    return path


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokenization.Evil", None]}}),
        ("config.json", {"architectures": ["BertModel"]}),
        ("config.json", {"architectures": []}),
        ("config.json", {"max_position_embeddings": None}),
    ],
)
def test_what_would_need_code_or_does_not_generate_is_refused(
    tmp_path: Path, source: Reciter, file: str, change: dict[str, Any]
) -> None:
    path = spoilt(tmp_path / "m", source)
    fields = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps({**fields, **change}))
    with pytest.raises(UnsupportedModel):
        Transformers(python="/no/such/python").open(path)


DAMAGES = ["cut", "no weights", "a pickle", "no tokenizer", "no config", "link", "template", "pipe", "broken link"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_folder_is_refused_before_anything_is_started(tmp_path: Path, source: Reciter, how: str) -> None:
    path = spoilt(tmp_path / "m", source)
    weights = path / "model.safetensors"
    match how:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "no weights":
            weights.rename(path / "pytorch_model.bin")
        case "a pickle":
            weights.write_bytes(b"\x80\x04\x95" + bytes(100))
        case "link":
            weights.rename(tmp_path / "elsewhere")
            weights.symlink_to(tmp_path / "elsewhere")
        case "pipe":
            (path / "config.json").unlink()
            os.mkfifo(path / "config.json")
        case "broken link":
            (path / "vocab.txt").symlink_to(tmp_path / "nowhere")
        case "template":
            (path / "chat_template.jinja").write_text("x" * 70_000)
        case _:
            (path / ("tokenizer.json" if how == "no tokenizer" else "config.json")).unlink()
    with pytest.raises(BadModelFile):
        Transformers(python="/no/such/python").open(path)


def test_a_folders_facts(source: Reciter) -> None:
    found = ModelFolder.read(source.path)
    assert (found.architecture, found.dtype, found.context_length) == ("LlamaForCausalLM", "F32", 512)
    assert found.weight_bytes == 4 * found.parameters and found.token_bytes == 2 * 2 * 2 * 16 * 4
    assert found.chat_template
