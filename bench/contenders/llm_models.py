"""The models that generation is measured with: random weights, for what they say doesn't matter, only how soon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.contenders import BENCH, MODELS
from maru.services.llm.training.llama import HEAD, Shape, Values
from maru.services.llm.training.vocabulary import LEAST, Vocabulary
from maru.services.llm.training.writing import write_folder, write_gguf

SIZES = {
    "large": Shape(8192, width=768, layers=14, heads=12, key_heads=4, feed=2048, context=4096, tied=False),
    "small": Shape(8192, width=256, layers=4, heads=8, key_heads=4, feed=768, context=4096, tied=False),
}
"""101 million parameters, and 7 million, of which the most are the vocabulary's."""


@dataclass(frozen=True, slots=True)
class Model:
    """`large-q4-0` is a GGUF, `large` the folder of safetensors with the same weights."""

    size: str
    kind: str = "Q4_0"

    @property
    def name(self) -> str:
        """As Maru calls it, too."""
        return f"{self.size}-{self.kind.lower().replace('_', '-')}"

    @property
    def folder(self) -> Path:
        """Where only this GGUF is."""
        return MODELS / "llm" / self.name

    @property
    def gguf(self) -> Path:
        return self.folder / f"{self.name}.gguf"

    @property
    def safetensors(self) -> Path:
        return MODELS / "llm" / self.size

    def make(self) -> None:
        """Write what isn't there."""
        if self.gguf.exists() and (self.safetensors / "config.json").exists():
            return
        print(f"{self.name}: writing", flush=True)
        vocabulary = _vocabulary()
        shape = SIZES[self.size]
        weights = _weights(shape)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.gguf.with_suffix(".partial")
        write_gguf(partial, shape, weights, vocabulary, kind=self.kind, name=self.name)
        partial.rename(self.gguf)
        write_folder(self.safetensors, shape, weights, vocabulary)


def _vocabulary() -> Vocabulary:
    """Of the words that prompts are made of: each is one token, and those that are left over are twins of them."""
    words = (BENCH / "words.txt").read_text().split()
    found = Vocabulary.learn([" ".join(words)] * 2, 8192)
    if len(found) < 8192:
        found.tokenizer.add_tokens([f" {word}{number}" for number in range(10) for word in words][: 8192 - len(found)])
    return found


def _weights(shape: Shape) -> dict[str, Values]:
    """Random. Tokens that end an answer, or are part of a character, are never the likeliest: each token is text."""
    rng = np.random.default_rng(0)
    found: dict[str, Values] = {}
    for name, size in shape.sizes().items():
        if len(size) == 1:
            found[name] = np.ones(size, np.float32)
        else:
            sharp = 3.0 if name == HEAD else 1.0
            found[name] = rng.standard_normal(size, np.float32) * np.float32(sharp / size[1] ** 0.5)
    found[HEAD][:LEAST] = 0.0
    return found
