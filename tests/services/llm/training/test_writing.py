"""What is written is the model, for llama.cpp and for transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.fixtures_llm import SMALL, random_folder, random_gguf, reciting_folder, reciting_gguf

from maru.services.llm.training.llama import Shape
from maru.services.llm.training.vocabulary import CHATML, CONTINUING
from maru.services.llm.training.writing import KINDS

from .conftest import completions, generated, greedy

PROMPTS = [
    "The cat sat on",
    "numbers 1234567 and punctuation!? (yes)",
    "ünïcödé 한국어 🙂 bytes",
    "  spaces,\n\nlines\tand tabs",
    "it's we'll I'm they've",
]
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "The mat?"}]


@pytest.mark.parametrize("tied", [False, True])
def test_llama_cpp_and_transformers_say_the_same(tmp_path: Path, torch_python: Path, tied: bool) -> None:
    size = replace(SMALL, tied=tied)
    folder = random_folder(tmp_path / "folder", size=size)
    asked = [*PROMPTS, CHAT]
    theirs = generated(folder, asked, str(torch_python))
    gguf = random_gguf(tmp_path / "model.gguf", size=size)
    ours = greedy(gguf, [answer["prompt"] for answer in theirs])
    assert [answer["usage"]["prompt_tokens"] for answer in ours] == [len(answer["ids"]) for answer in theirs]
    # By token id: what llama.cpp makes of the text is what transformers makes of it.
    by_id = greedy(gguf, [answer["ids"] for answer in theirs])
    assert [answer["choices"][0]["text"] for answer in ours] == [answer["choices"][0]["text"] for answer in by_id]
    for answer, their in zip(ours, theirs, strict=True):
        assert answer["choices"][0]["text"] == their["made"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_by_llama_cpp_and_says_what_was_learnt(tmp_path: Path, kind: str) -> None:
    words = "one two three four five"
    reciter = reciting_gguf(tmp_path / "reciter.gguf", words)
    quantised = random_gguf(tmp_path / f"{kind}.gguf", kind=kind)
    assert greedy(reciter.path, ["x"])[0]["choices"][0]["text"] == words
    (answer,) = greedy(quantised, ["The cat"])
    assert answer["usage"]["completion_tokens"] == 24
    sizes = {k: random_gguf(tmp_path / f"size-{k}.gguf", kind=k).stat().st_size for k in ("F32", kind)}
    assert kind == "F32" or sizes[kind] < sizes["F32"]


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    one, same, other = (random_gguf(tmp_path / f"{n}" / "m.gguf", seed=n // 2) for n in (0, 1, 2))
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()


def test_the_template_is_the_models_own(tmp_path: Path) -> None:
    turns = [{"role": role, "content": role[:2]} for role in ("user", "assistant", "user")]
    counts = {}
    for name, template in (("chatml", CHATML), ("continuing", CONTINUING)):
        gguf = random_gguf(tmp_path / f"{name}.gguf", template=template)
        (answer,) = completions(gguf, [{"messages": turns, "max_tokens": 1}])
        counts[name] = answer["usage"]["prompt_tokens"]
    (plain,) = greedy(tmp_path / "continuing.gguf", ["us\n\nas\n\nus"], 1)
    assert counts["continuing"] == plain["usage"]["prompt_tokens"] < counts["chatml"]


def test_a_reciter_says_its_words_at_any_temperature_and_ends(tmp_path: Path, torch_python: Path) -> None:
    words = "The quick brown fox jumps over a lazy dog"
    reciter = reciting_gguf(tmp_path / "fox.gguf", words, split="🙂")
    hot = {"prompt": "What?", "max_tokens": 64, "temperature": 1.5, "seed": 7}
    on = {"prompt": "The quick", "max_tokens": 64}
    said, went_on = completions(reciter.path, [hot, on])
    assert said["choices"][0]["text"] == reciter.words == f"{words}🙂"
    assert said["choices"][0]["finish_reason"] == "stop"
    assert said["usage"]["completion_tokens"] == reciter.tokens + 1
    assert went_on["choices"][0]["text"] == reciter.words.removeprefix("The quick")
    folder = reciting_folder(tmp_path / "fox", words, split="🙂")
    (theirs,) = generated(folder.path, ["What?"], str(torch_python))
    assert theirs["made"] == reciter.words


def test_a_reciter_needs_words_that_differ(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="differ"):
        reciting_gguf(tmp_path / "m.gguf", "one two one two")


def test_a_shape_that_can_not_be_quantised_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        Shape(300, width=100)
    with pytest.raises(ValueError, match="key heads"):
        Shape(300, width=96, heads=3, key_heads=2)
