"""EmbeddingGemma: Gemma 3's text model with attention in both directions.

RMSNorm with (1 + weight) before and after each half of a block, rotary positions with one base for the layers
that see a sliding window and another for those that see all, grouped queries, and GeGLU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.json_file import JsonFile
from maru.runtimes.onnx.assembly import Assembly
from maru.runtimes.onnx.graph import MICROSOFT
from maru.runtimes.onnx.grouped_attention import GroupedAttention, full_mask, sliding_mask
from maru.runtimes.onnx.packed import FULL_RUN

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, slots=True)
class Gemma:
    """What a checkpoint's config.json says. A sliding layer sees less than `reach` tokens to either side."""

    anchor: ClassVar[str] = "embed_tokens.weight"
    bfloat: ClassVar[bool] = True
    matryoshka: ClassVar[dict[int, tuple[int, ...]]] = {768: (128, 256, 512)}

    vocabulary: int
    hidden: int
    inner: int
    attention: GroupedAttention
    epsilon: float
    reach: int
    layers: tuple[str, ...]
    bases: Mapping[str, float]
    positions: int

    @classmethod
    def read(cls, config: JsonFile) -> Gemma:
        if not config.get("use_bidirectional_attention", bool, False):
            raise UnsupportedModel("gemma3_text is supported with attention in both directions only")
        if config.find("attn_logit_softcapping", float) or config.get("attention_bias", bool, False):
            raise UnsupportedModel("gemma3_text is supported without softcapping and attention_bias only")
        if config.get("hidden_activation", str) != "gelu_pytorch_tanh":
            raise UnsupportedModel("gemma3_text is supported with gelu_pytorch_tanh only")
        return cls(
            vocabulary=config.size("vocab_size"),
            hidden=config.size("hidden_size"),
            inner=config.size("intermediate_size"),
            attention=_attention(config),
            epsilon=config.get("rms_norm_eps", float, 1e-6),
            reach=config.size("sliding_window") // 2 + 1,
            layers=_layers(config),
            bases={kind: _base(config, kind) for kind in (FULL, SLIDING)},
            positions=config.size("max_position_embeddings"),
        )

    def build(self, a: Assembly) -> str:
        """Add the encoder to the graph; the normalised hidden states of the last layer, [T, hidden]."""
        words = a.precision.table(a.graph, a.tensor(self.anchor, self.vocabulary, self.hidden), a.inputs.ids)
        x = a.op("Mul", words, a.graph.constant(self.hidden**0.5, np.float32))
        masks = {FULL: full_mask(a), SLIDING: sliding_mask(a, self.reach)}
        turns = {kind: self._turns(a, base) for kind, base in self.bases.items()}
        for number, kind in enumerate(self.layers):
            part = a.within(f"layers.{number}.")
            mixed = self._attended(part, self._norm(part, x, "input_layernorm"), turns[kind], masks[kind])
            x = a.op("Add", x, self._norm(part, mixed, "post_attention_layernorm"))
            grown = self._grown(part.within("mlp."), self._norm(part, x, "pre_feedforward_layernorm"))
            x = a.op("Add", x, self._norm(part, grown, "post_feedforward_layernorm"))
        return self._norm(a, x, "norm")

    def _turns(self, a: Assembly, base: float) -> tuple[str, str]:
        """Cosines and sines of every position's angles, each [positions, size / 2].

        There are as many as a run has tokens at least: the operator asks for that, whatever their positions.
        """
        powers = np.arange(0, self.attention.size, 2, dtype=np.float32) / np.float32(self.attention.size)
        angles = np.arange(max(self.positions, FULL_RUN), dtype=np.float32)[:, None] / np.float32(base) ** powers
        return a.graph.constant(np.cos(angles)), a.graph.constant(np.sin(angles))

    def _attended(self, part: Assembly, x: str, turns: tuple[str, str], mask: str) -> str:
        a, shape = part.within("self_attn."), self.attention
        widths = {
            "q": shape.heads * shape.size,
            "k": shape.groups * shape.size,
            "v": shape.groups * shape.size,
        }
        layers = (a.layer(f"{name}_proj", self.hidden, width, bias=False) for name, width in widths.items())
        queries, keys, values = a.project(x, *layers)
        queries = self._turned(a, queries, "q_norm", shape.heads, turns)
        keys = self._turned(a, keys, "k_norm", shape.groups, turns)
        mixed = shape(a, queries, keys, values, mask)
        return a.linear(mixed, "o_proj", shape.heads * shape.size, self.hidden, bias=False)

    def _turned(self, a: Assembly, rows: str, norm: str, heads: int, turns: tuple[str, str]) -> str:
        """Each head normalised and turned to its position."""
        graph, size = a.graph, self.attention.size
        apart = self._norm(a, a.op("Reshape", rows, graph.ints(-1, heads, size)), norm, size)
        flat = a.op("Reshape", apart, graph.ints(1, -1, heads * size))
        positions = a.op("Unsqueeze", a.inputs.positions, graph.ints(0))
        flat = a.op("RotaryEmbedding", flat, positions, *turns, domain=MICROSOFT, num_heads=heads)
        return a.op("Reshape", flat, graph.ints(-1, heads * size))

    def _grown(self, a: Assembly, x: str) -> str:
        layers = [a.layer(f"{name}_proj", self.hidden, self.inner, bias=False) for name in ("gate", "up")]
        gate, up = a.project(x, *layers)
        gated = a.op("Mul", a.op("FastGelu", gate, domain=MICROSOFT), up)  # GELU's tanh form
        return a.linear(gated, "down_proj", self.inner, self.hidden, bias=False)

    def _norm(self, a: Assembly, x: str, name: str, size: int | None = None) -> str:
        scale = a.graph.constant(1 + a.tensor(f"{name}.weight", size or self.hidden))
        return a.op("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=self.epsilon, stash_type=1)


def _attention(config: JsonFile) -> GroupedAttention:
    heads, groups, size = map(config.size, ("num_attention_heads", "num_key_value_heads", "head_dim"))
    scalar = config.get("query_pre_attn_scalar", float)
    if heads % groups or size % 2 or not scalar > 0:
        raise BadModelFile(f"{config.name}: the numbers of heads, or their sizes, do not go together")
    return GroupedAttention(heads, groups, size, scalar**-0.5)


def _layers(config: JsonFile) -> tuple[str, ...]:
    """Which layers slide: as listed, or, in older files, all but each sixth (or as their pattern says)."""
    count = config.size("num_hidden_layers")
    every = config.get("_sliding_window_pattern", int, config.get("sliding_window_pattern", int, 6))
    listed = config.find("layer_types", list)
    kinds = listed or [FULL if every and (index + 1) % every == 0 else SLIDING for index in range(count)]
    if len(kinds) != count or not all(kind in (FULL, SLIDING) for kind in kinds):
        raise BadModelFile(f"{config.name}: layer_types is no list of {count} kinds of attention")
    return tuple(kinds)


def _base(config: JsonFile, kind: str) -> float:
    """The rotary base of a kind of layer, under its new name or its old one."""
    parameters = config.child("rope_parameters").child(kind)
    if parameters.get("rope_type", str, "default") != "default" or config.child("rope_scaling"):
        raise UnsupportedModel("gemma3_text is supported with unscaled rotary positions only")
    old, default = ("rope_theta", 1e6) if kind == FULL else ("rope_local_base_freq", 1e4)
    return parameters.get("rope_theta", float, config.get(old, float, default))
