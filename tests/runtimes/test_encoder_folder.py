from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.onnx.architecture import read_architecture

from .small_encoder import small_encoder


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_the_default_model(minilm: EncoderFolder) -> None:
    assert (minilm.pooling, minilm.max_tokens, minilm.dense, minilm.prompts) == ("mean", 256, (), {})


def test_older_and_newer_words_for_the_same(tmp_path: Path) -> None:
    old = EncoderFolder.read(small_encoder(tmp_path / "old", pooling={"pooling_mode_cls_token": True}))
    new = EncoderFolder.read(small_encoder(tmp_path / "new", pooling={"pooling_mode": "cls", "include_prompt": False}))
    assert (old.pooling, old.pool_prompt) == ("cls", True)
    assert (new.pooling, new.pool_prompt) == ("cls", False)


def test_a_window_from_the_tokenizer_or_from_nowhere(tmp_path: Path) -> None:
    def window(name: str, special: dict[str, Any]) -> int | None:
        return EncoderFolder.read(small_encoder(tmp_path / name, transformer={"x": 1}, special=special)).max_tokens

    assert window("a", {"model_max_length": 40}) == 40
    assert window("b", {"model_max_length": 10**30}) is None
    assert window("c", {"model_max_length": 1e30}) is None
    assert window("d", {}) is None


def test_prompts_and_dimensions(tmp_path: Path) -> None:
    general = {"prompts": {"query": "q: ", "other": None}, "default_prompt_name": "query"}
    folder = EncoderFolder.read(small_encoder(tmp_path, general=general, config={"matryoshka_dimensions": [16, 8]}))
    assert (folder.prompts, folder.default_task, folder.dimensions) == ({"query": "q: "}, "query", (8, 16))


Spoil = Callable[[Path], Any]


def without(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def holding(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text(text)


def saying(name: str, **fields: Any) -> Spoil:
    return lambda folder: change(folder / name, **fields)


def config(**fields: Any) -> Spoil:
    return saying("config.json", **fields)


MODULES, POOLING, GENERAL = "modules.json", "1_Pooling/config.json", "config_sentence_transformers.json"
SPOILED: dict[str, tuple[Spoil, type[Exception], str]] = {
    "no modules.json": (without(MODULES), BadModelFile, r"modules\.json"),
    "modules.json of text": (holding(MODULES, '"x"'), BadModelFile, r"modules\.json"),
    "modules.json of numbers": (holding(MODULES, "[1, 2]"), BadModelFile, r"modules\.json"),
    "modules.json that is huge": (holding(MODULES, " " * (17 << 20)), BadModelFile, "too large"),
    "nested deeply": (holding("config.json", "[" * 100_000), BadModelFile, r"config\.json"),
    "no weights": (without("model.safetensors"), BadModelFile, r"model\.safetensors"),
    "no tokenizer": (without("tokenizer.json"), BadModelFile, r"tokenizer\.json"),
    "no pooling": (without(POOLING), BadModelFile, r"config\.json"),
    "an unknown pooling": (saying(POOLING, pooling_mode="max"), UnsupportedModel, "mean, cls"),
    "two poolings": (saying(POOLING, pooling_mode_cls_token=True), UnsupportedModel, "mean, cls"),
    "a default that is none": (saying(GENERAL, default_prompt_name="x"), BadModelFile, "no prompt"),
    "a prompt that is a number": (saying(GENERAL, prompts={"query": 1}), BadModelFile, "prompts"),
    "an unknown architecture": (config(model_type="t5"), UnsupportedModel, "bert, roberta, xlm-roberta"),
    "relative positions": (config(position_embedding_type="relative_key"), UnsupportedModel, "absolute"),
    "an unknown activation": (config(hidden_act="swish"), UnsupportedModel, "gelu"),
    "heads that do not divide": (config(num_attention_heads=5), BadModelFile, "sizes"),
    "a negative size": (config(hidden_size=-32), BadModelFile, "hidden_size"),
    "a size of true": (config(hidden_size=True), BadModelFile, "hidden_size"),
    "a size as text": (config(hidden_size="32"), BadModelFile, "hidden_size"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_folder_says_what_is_wrong(name: str, small: Path) -> None:
    spoil, kind, said = SPOILED[name]
    spoil(small)
    with pytest.raises(kind, match=said) as refused:
        read_architecture(EncoderFolder.read(small).config)
    assert str(small) not in str(refused.value)


def test_modules_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="Transformer, Pooling, Dense, Normalize"):
        EncoderFolder.read(small_encoder(tmp_path, modules=["Transformer", "Pooling", "LSTM"]))


def test_a_dense_module_without_safetensors(tmp_path: Path) -> None:
    """Older folders have it as a pickle, which is not read."""
    small_encoder(tmp_path, modules=["Transformer", "Pooling", "Dense"])
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "config.json").write_text('{"in_features": 32, "out_features": 8}')
    (tmp_path / "2_Dense" / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BadModelFile, match=r"2_Dense.model\.safetensors"):
        EncoderFolder.read(tmp_path)


@pytest.mark.parametrize("path", ["../outside", "/etc", "a/../../outside"])
def test_a_module_outside_of_the_folder(path: str, small: Path) -> None:
    modules = json.loads((small / "modules.json").read_text())
    modules[1]["path"] = path
    (small / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(BadModelFile, match="outside"):
        EncoderFolder.read(small)


@pytest.mark.parametrize(
    "changed",
    [
        "model.safetensors",
        "tokenizer.json",
        "config.json",
        "1_Pooling/config.json",
        "config_sentence_transformers.json",
    ],
)
def test_the_digest_is_of_every_file_that_matters(changed: str, small: Path) -> None:
    before = EncoderFolder.read(small).digest()
    assert EncoderFolder.read(small).digest() == before
    (small / "README.md").write_text("words")
    assert EncoderFolder.read(small).digest() == before
    with (small / changed).open("ab") as file:
        file.write(b" ")
    assert EncoderFolder.read(small).digest() != before


def test_the_digest_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    one, two, other = (small_encoder(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    digests = [EncoderFolder.read(folder).digest() for folder in (one, two, other)]
    assert digests[0] == digests[1] != digests[2]
