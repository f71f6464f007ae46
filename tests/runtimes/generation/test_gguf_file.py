"""What a header says of a model, and files that are sound but no language model."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures_llm import SMALL, random_gguf
from tests.runtimes.generation.test_gguf_header import ARRAY, LLAMA, STRING, U32, field, gguf, number, text, words

from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.generation.gguf_file import GgufFile


def file(tmp_path: Path, *fields: bytes, without: tuple[int, ...] = ()) -> GgufFile:
    kept = [each for index, each in enumerate(LLAMA) if index not in without]
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf([*kept, *fields]))
    return GgufFile.read(path)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0"])
def test_a_models_facts(tmp_path: Path, kind: str) -> None:
    path = random_gguf(tmp_path / "m.gguf", kind=kind, context=1024)
    found = GgufFile.read(path)
    assert (found.architecture, found.quantization, found.context_length) == ("llama", kind, 1024)
    assert found.size == path.stat().st_size > found.weight_bytes > 0.5 * found.size
    width = SMALL.width // SMALL.heads * SMALL.key_heads
    assert found.token_bytes == SMALL.layers * 2 * width * 2


def test_layers_that_differ_are_counted_each(tmp_path: Path) -> None:
    several = field("llama.attention.head_count_kv", ARRAY, struct.pack("<IQ3I", U32, 3, 2, 0, 1))
    found = file(tmp_path, number("llama.attention.key_length", 4), number("llama.attention.value_length", 4), several)
    assert found.token_bytes == (2 + 0 + 1) * (4 + 4) * 2


@pytest.mark.parametrize(
    ("fields", "without", "said"),
    [
        ([field("general.type", STRING, text("adapter"))], (), "adapter"),
        ([field("split.count", U32, struct.pack("<I", 3))], (), "merge"),
        ([field("general.architecture", STRING, text("nomic-bert"))], (0,), "does not generate"),
        ([], (0,), "no model"),
        ([], (5,), "vocabulary"),
    ],
)
def test_a_sound_file_that_is_no_language_model_says_what_it_is(
    tmp_path: Path, fields: list[bytes], without: tuple[int, ...], said: str
) -> None:
    with pytest.raises(UnsupportedModel, match=said):
        file(tmp_path, *fields, without=without)


@pytest.mark.parametrize(
    ("fields", "without"),
    [
        ([number("llama.context_length", 0)], (1,)),
        ([number("llama.context_length", 2**31)], (1,)),
        ([], (1,)),
        ([], (3,)),
        ([field("general.name", U32, struct.pack("<I", 1))], ()),
        ([words("tokenizer.ggml.scores", "a")], ()),
        ([number("tokenizer.ggml.token_type", 1)], ()),
        ([number("llama.attention.head_count", 2**31)], (4,)),
        ([field("tokenizer.chat_template", STRING, text("x" * 70_000))], ()),
    ],
)
def test_fields_that_cannot_be_so_are_refused(tmp_path: Path, fields: list[Any], without: tuple[int, ...]) -> None:
    with pytest.raises(BadModelFile):
        file(tmp_path, *fields, without=without)
