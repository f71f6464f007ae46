"""The architecture that is trained: Llama, in sizes that a laptop can train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Values = np.ndarray[Any, np.dtype[np.float32]]
Weights = Mapping[str, Values]
"""By the names that transformers' LlamaForCausalLM gives them."""

EMBEDDING, LAST_NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
NORM_EPSILON = 1e-5
ROPE_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes. `width` and `feed` are multiples of 32, which is what a quantised block takes.

    `tied`: the embedding is the head, too.
    """

    vocabulary: int
    width: int = 256
    layers: int = 5
    heads: int = 8
    key_heads: int = 4
    feed: int = 704
    context: int = 1024
    tied: bool = True

    def __post_init__(self) -> None:
        if self.width % 32 or self.feed % 32 or self.width % self.heads or self.heads % self.key_heads:
            raise ValueError("width and feed are multiples of 32, width of the heads, the heads of the key heads")

    @property
    def head(self) -> int:
        """Numbers of one head."""
        return self.width // self.heads

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Every weight and its shape; a matrix is [out, in]."""
        keys = self.key_heads * self.head
        found: dict[str, tuple[int, ...]] = {EMBEDDING: (self.vocabulary, self.width), LAST_NORM: (self.width,)}
        for layer in range(self.layers):
            start = f"model.layers.{layer}"
            found |= {
                f"{start}.input_layernorm.weight": (self.width,),
                f"{start}.self_attn.q_proj.weight": (self.width, self.width),
                f"{start}.self_attn.k_proj.weight": (keys, self.width),
                f"{start}.self_attn.v_proj.weight": (keys, self.width),
                f"{start}.self_attn.o_proj.weight": (self.width, self.width),
                f"{start}.post_attention_layernorm.weight": (self.width,),
                f"{start}.mlp.gate_proj.weight": (self.feed, self.width),
                f"{start}.mlp.up_proj.weight": (self.feed, self.width),
                f"{start}.mlp.down_proj.weight": (self.width, self.feed),
            }
        return found if self.tied else {**found, HEAD: (self.vocabulary, self.width)}

    @property
    def parameters(self) -> int:
        return sum(int(np.prod(size)) for size in self.sizes().values())
