"""Makes small models with random weights, and records what sentence-transformers makes of texts with them.

    python tests/reference/make_tiny_models.py TARGET

Run by the tests with the interpreter that MARU_REFERENCE_PYTHON names, which has torch and
sentence-transformers. TARGET gets a folder a model, each a sentence-transformers folder of its own with a
`reference.npz` of vectors and a `reference.json` of what was asked.

gemma      EmbeddingGemma at a hundredth of its size: one key head, sliding and full layers, two dense layers.
grouped    the same with two key heads, bfloat16 weights, a prompt that is not pooled, a default prompt, tanh.
roberta    XLM-RoBERTa: positions after the padding token's, the first token pooled, no normalisation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3TextConfig,
    Gemma3TextModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

HERE = Path(__file__).parent
VOCABULARY = 2048
WINDOW = 96
"""Shorter than some of the texts, so that they are cut."""

PROMPTS = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "Clustering": "task: clustering | query: ",
}


def texts() -> list[str]:
    every = json.loads((HERE / "texts.json").read_text())
    return [*every[:6], *every[40:60], *every[-30:-20], "a", "  spaced  out  ", "tab\tand\nline", "🙂 emoji"]


def tokenizer(folder: Path, *, special: tuple[str, ...], first: str, last: str) -> None:
    """Byte-fallback BPE as Gemma's, trained on the texts."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tok.normalizer = normalizers.Replace(" ", "▁")
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    tok.train_from_iterator(
        json.loads((HERE / "texts.json").read_text()),
        trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=pieces, show_progress=False),
    )
    ends = [(piece, tok.token_to_id(piece)) for piece in (first, last)]
    tok.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ends)
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = {"bos_token": first, "eos_token": last, "unk_token": "<unk>", "pad_token": "<pad>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, padding_side="right", model_max_length=WINDOW, **names)
    fast.save_pretrained(folder)


def shake(model: PreTrainedModel, norms: float) -> None:
    """Random norms and biases, which are zeros or ones at first and would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * norms)


def gemma(folder: Path, **changes: Any) -> int:
    sizes = {
        "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 6, "num_attention_heads": 3,
        "num_key_value_heads": 1, "head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 32,
    }  # fmt: skip
    dtype = changes.pop("dtype", torch.float32)
    config = Gemma3TextConfig(
        **{**sizes, **changes}, vocab_size=VOCABULARY, max_position_embeddings=2048, pad_token_id=0,
        eos_token_id=1, bos_token_id=2, use_bidirectional_attention=True,
    )  # fmt: skip
    model = Gemma3TextModel(config).eval()
    shake(model, 0.2)
    model.to(dtype).save_pretrained(folder)
    tokenizer(folder, special=("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"), first="<bos>", last="<eos>")
    return int(config.hidden_size)


def roberta(folder: Path) -> int:
    config = XLMRobertaConfig(
        vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=96, max_position_embeddings=WINDOW + 2, type_vocab_size=1, pad_token_id=1,
        bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5, initializer_range=0.1,
    )  # fmt: skip
    model = XLMRobertaModel(config, add_pooling_layer=False).eval()
    shake(model, 0.1)
    model.save_pretrained(folder)
    tokenizer(folder, special=("<s>", "<pad>", "</s>", "<unk>", "<mask>"), first="<s>", last="</s>")
    return int(config.hidden_size)


def save(folder: Path, modules: list[Any], **options: Any) -> None:
    """Put the modules round the network that is in `folder`."""
    network = Transformer(str(folder), model_kwargs={"dtype": "auto"})
    SentenceTransformer(modules=[network, *modules], device="cpu", **options).save(str(folder))


def record(folder: Path, cases: dict[str, dict[str, Any]]) -> None:
    """What the model makes of the texts in each case: their ids, and vectors computed in float32."""
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    given = texts()
    vectors = {name: model.encode(given, **options) for name, options in cases.items()}
    np.savez(folder / "reference.npz", **vectors)
    ids = {}
    for name, options in cases.items():
        prompt = model.prompts.get(options.get("prompt_name", model.default_prompt_name))
        ids[name] = [model.preprocess([text], prompt=prompt)["input_ids"][0].tolist() for text in given]
    (folder / "reference.json").write_text(json.dumps({"texts": given, "ids": ids, "cases": cases}))


def main(target: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(2)
    tasks = {name: {"prompt_name": name} for name in PROMPTS}

    folder = target / "gemma"
    size = gemma(folder)
    dense = {"bias": False, "activation_function": torch.nn.Identity()}
    modules = [
        Pooling(size, "mean"),
        Dense(size, 4 * size, **dense),
        Dense(4 * size, size, **dense),
        Normalize(),
    ]
    save(folder, modules, prompts=PROMPTS)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "matryoshka_dimensions": [24, 48, 96]}))
    short = {"truncate_dim": 24, "normalize_embeddings": True}
    record(folder, {"plain": {}, **tasks, "short": short, "both": {**short, "prompt_name": "query"}})

    folder = target / "grouped"
    size = gemma(folder, num_attention_heads=4, num_key_value_heads=2, head_dim=24, dtype=torch.bfloat16)
    modules = [
        Pooling(size, "mean", include_prompt=False),
        Dense(size, 64, activation_function=torch.nn.Tanh()),
    ]
    save(folder, [*modules, Normalize()], prompts=PROMPTS, default_prompt_name="query")
    record(folder, {"plain": {}, **tasks})

    folder = target / "roberta"
    save(folder, [Pooling(roberta(folder), "cls")])
    record(folder, {"plain": {}})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
