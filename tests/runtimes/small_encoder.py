"""A small BERT with random weights in a sentence-transformers folder, made without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(60))]
HIDDEN, INNER, LAYERS, HEADS, POSITIONS = 32, 64, 2, 4, 64


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def small_encoder(
    folder: Path,
    *,
    config: dict[str, Any] | None = None,
    pooling: dict[str, Any] | None = None,
    modules: list[str] | None = None,
    general: dict[str, Any] | None = None,
    transformer: dict[str, Any] | None = None,
    special: dict[str, Any] | None = None,
    positions: int = POSITIONS,
    seed: int = 0,
) -> Path:
    """What is given replaces or adds fields of the files."""
    kinds = modules or ["Transformer", "Pooling", "Normalize"]
    paths = ["" if kind == "Transformer" else f"{number}_{kind}" for number, kind in enumerate(kinds)]
    types = [f"sentence_transformers.models.{kind}" for kind in kinds]
    listed = [{"path": path, "type": kind} for path, kind in zip(paths, types, strict=True)]
    write(folder / "modules.json", listed)
    write(
        folder / "config.json",
        {
            "model_type": "bert", "vocab_size": len(WORDS), "hidden_size": HIDDEN, "intermediate_size": INNER,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "max_position_embeddings": positions,
            "hidden_act": "gelu", "layer_norm_eps": 1e-12, **(config or {}),
        },
    )  # fmt: skip
    write(folder / "1_Pooling" / "config.json", pooling or {"pooling_mode_mean_tokens": True})
    write(folder / "config_sentence_transformers.json", general or {})
    write(folder / "sentence_bert_config.json", transformer or {"max_seq_length": 32})
    write(folder / "tokenizer_config.json", special or {})
    tokenizer().save(str(folder / "tokenizer.json"))
    save_file(tensors(seed, positions), folder / "model.safetensors")
    return folder


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, "[UNK]"))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return made


def tensors(seed: int = 0, positions: int = POSITIONS) -> dict[str, np.ndarray[Any, Any]]:
    chance = np.random.default_rng(seed)

    def random(*shape: int) -> np.ndarray[Any, Any]:
        return chance.standard_normal(shape).astype(np.float32) * 0.3

    made: dict[str, np.ndarray[Any, Any]] = {}

    def norm(name: str) -> None:
        made[f"{name}.weight"], made[f"{name}.bias"] = 1 + random(HIDDEN), random(HIDDEN)

    def linear(name: str, inputs: int, outputs: int) -> None:
        made[f"{name}.weight"], made[f"{name}.bias"] = random(outputs, inputs), random(outputs)

    for table, rows in (("word", len(WORDS)), ("position", positions), ("token_type", 2)):
        made[f"embeddings.{table}_embeddings.weight"] = random(rows, HIDDEN)
    norm("embeddings.LayerNorm")
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{layer}.attention.{part}", HIDDEN, HIDDEN)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", HIDDEN, INNER)
        linear(f"{layer}.output.dense", INNER, HIDDEN)
        norm(f"{layer}.output.LayerNorm")
    return made
