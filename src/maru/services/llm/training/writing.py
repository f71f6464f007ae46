"""A model's files: one GGUF, or a folder as transformers reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from maru.services.llm.training.llama import EMBEDDING, HEAD, LAST_NORM, NORM_EPSILON, ROPE_BASE, Shape, Values, Weights
from maru.services.llm.training.vocabulary import BEGIN, END, PAD, SPECIAL, TURN_END, Vocabulary

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
"""How the matrices of a GGUF can be kept. Norms are always F32."""

_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(
    path: Path,
    shape: Shape,
    weights: Weights,
    vocabulary: Vocabulary,
    *,
    kind: str = "Q8_0",
    name: str | None = None,
    about: Mapping[str, str] | None = None,
) -> None:
    """`about` are further strings of the header, by their keys ("general.license"). Equal input gives equal bytes."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name or path.stem)
    for key, value in (about or {}).items():
        writer.add_string(key, value)
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)

    tokens = vocabulary.tokens
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in SPECIAL else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.id(BEGIN))
    writer.add_eos_token_id(vocabulary.id(END))
    writer.add_eot_token_id(vocabulary.id(TURN_END))
    writer.add_pad_token_id(vocabulary.id(PAD))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(vocabulary.template)

    quantised = gguf.GGMLQuantizationType[kind]
    for source in shape.sizes():
        values = np.ascontiguousarray(_interleaved(source, weights[source], shape), np.float32)
        if values.ndim == 1 or kind == "F32":
            writer.add_tensor(_gguf_name(source), values)
        elif kind == "F16":
            writer.add_tensor(_gguf_name(source), values.astype(np.float16))
        else:
            writer.add_tensor(_gguf_name(source), gguf.quants.quantize(values, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(source: str) -> str:
    whole = {EMBEDDING: "token_embd.weight", LAST_NORM: "output_norm.weight", HEAD: "output.weight"}
    if source in whole:
        return whole[source]
    _, _, layer, part = source.split(".", 3)
    return f"blk.{layer}.{_NAMES[part.removesuffix('.weight')]}.weight"


def _interleaved(source: str, values: Values, shape: Shape) -> Values:
    """Query and key rows as a GGUF of this architecture has them: the numbers that are turned together are neighbours.
    transformers has them half a head apart."""
    heads = {"q_proj": shape.heads, "k_proj": shape.key_heads}.get(source.split(".")[-2])
    if heads is None:
        return values
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_folder(folder: Path, shape: Shape, weights: Weights, vocabulary: Vocabulary) -> None:
    """`config.json`, `model.safetensors`, `tokenizer.json` and what else transformers asks for, in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(weights[name], np.float32) for name in shape.sizes()},
              folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    ends = {
        "bos_token_id": vocabulary.id(BEGIN),
        "eos_token_id": [vocabulary.id(END), vocabulary.id(TURN_END)],
        "pad_token_id": vocabulary.id(PAD),
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "head_dim": shape.head,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": NORM_EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE},
        "rope_theta": ROPE_BASE,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": shape.tied,
        **ends,
    }
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.context,
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "chat_template": vocabulary.template,
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"do_sample": False, **ends})
    _write_json(folder / "tokenizer_config.json", tokenizer)
    (folder / "tokenizer.json").write_text(vocabulary.to_json(), "utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
