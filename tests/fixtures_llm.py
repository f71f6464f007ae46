"""Small generation models, made on the spot without torch: `from tests.fixtures_llm import ...`.

    random_gguf(path)                    random weights, 60 ms: says any bytes, and goes on until it is stopped
    random_folder(folder)                the same model for transformers: equal `seed` and `size`, equal weights
    reciting_gguf(path, "one two three") whatever it is asked, it says these words, then it ends (or begins again)
    reciting_folder(folder, words)       that for transformers

A reciter's answer is known beforehand, at any temperature. What to assert: see `Reciter`. Sizes: SMALL (0.1 million
parameters), MIDDLE (5 million, 0.5 ms a token on one core), SLOW (32 million, 4 ms a token, and a second or two
for a prompt of 2,000 tokens), for whatever has to be interrupted. `ignore_eos` makes reciters that end go on, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maru.services.llm.training.llama import EMBEDDING, HEAD, Shape, Values
from maru.services.llm.training.vocabulary import CHATML, END, LEAST, SPECIAL, Vocabulary
from maru.services.llm.training.writing import write_folder, write_gguf

SMALL = Shape(LEAST, width=64, layers=2, heads=4, key_heads=2, feed=128, context=512, tied=False)
MIDDLE = Shape(LEAST, width=256, layers=7, heads=8, key_heads=4, feed=704, context=2048, tied=False)
SLOW = Shape(LEAST, width=512, layers=11, heads=8, key_heads=4, feed=1408, context=4096, tied=False)

LEARNT = "The cat sat on the mat, and the dog ran to the man who had the hat. " * 4
"""What the vocabulary of random models is learnt from, so that it has some tokens that are words."""


def random_gguf(
    path: Path, *, seed: int = 0, size: Shape = SMALL, context: int | None = None, kind: str = "F32",
    template: str = CHATML,
) -> Path:  # fmt: skip
    """A GGUF with random weights, its matrices as `kind` says: F32, F16, BF16, Q8_0, Q4_0."""
    shape, weights, vocabulary = _random(seed, size, context, template)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(path, shape, weights, vocabulary, kind=kind)
    return path


def random_folder(
    folder: Path, *, seed: int = 0, size: Shape = SMALL, context: int | None = None, template: str = CHATML
) -> Path:
    """The same as a folder of safetensors."""
    write_folder(folder, *_random(seed, size, context, template))
    return folder


def _random(seed: int, size: Shape, context: int | None, template: str) -> tuple[Shape, dict[str, Values], Vocabulary]:
    vocabulary = Vocabulary.learn([LEARNT], LEAST + 40, template)
    shape = replace(size, vocabulary=len(vocabulary), context=context or size.context)
    return shape, _weights(shape, seed), vocabulary


def _weights(shape: Shape, seed: int) -> dict[str, Values]:
    """Random, and sharp enough that the two likeliest tokens are not nearly equally likely. The likeliest is never one
    that ends the answer."""
    rng = np.random.default_rng(seed)
    found: dict[str, Values] = {}
    for name, of in shape.sizes().items():
        if len(of) == 1:
            found[name] = rng.uniform(0.8, 1.2, of).astype(np.float32)
        else:
            sharp = 3.0 if name == HEAD else 1.0
            found[name] = rng.standard_normal(of, np.float32) * np.float32(sharp / of[1] ** 0.5)
    if HEAD in found:
        found[HEAD][: len(SPECIAL)] = 0.0
    return found


@dataclass(frozen=True)
class Reciter:
    """A model whose answer is known.

    To any prompt that doesn't end within `words`, the answer is `words`, and then, if it `ends`, finish "stop" after
    `tokens` + 1 tokens (the last is the end), or `words` again and again. A prompt that ends with one of the words is
    gone on from there.
    """

    path: Path
    words: str
    tokens: int
    ends: bool


def reciting_gguf(
    path: Path, words: str, *, ends: bool = True, size: Shape = SMALL, context: int | None = None, split: str = "",
    template: str = CHATML,
) -> Reciter:  # fmt: skip
    """Each word of `words` is one token and has to be there once. `split` follows them, a character whose bytes are
    tokens of their own (an emoji), so that it comes in pieces."""
    shape, weights, vocabulary, tokens = _reciting(words, split, ends, size, context, template)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(path, shape, weights, vocabulary, kind="F32")
    return Reciter(path, words + split, tokens, ends)


def reciting_folder(
    folder: Path, words: str, *, ends: bool = True, size: Shape = SMALL, context: int | None = None, split: str = "",
    template: str = CHATML,
) -> Reciter:  # fmt: skip
    """The same as a folder of safetensors."""
    shape, weights, vocabulary, tokens = _reciting(words, split, ends, size, context, template)
    write_folder(folder, shape, weights, vocabulary)
    return Reciter(folder, words + split, tokens, ends)


def _reciting(
    words: str, split: str, ends: bool, size: Shape, context: int | None, template: str
) -> tuple[Shape, dict[str, Values], Vocabulary, int]:
    vocabulary = Vocabulary.learn([words] * 2, LEAST + 20 * len(words), template)
    said = vocabulary.ids(words + split)
    if len(set(said)) < len(said):
        raise ValueError("a reciter's words differ, and so do the bytes of what is split")
    shape = replace(size, vocabulary=len(vocabulary), context=context or size.context, tied=False)
    weights = _weights(shape, seed=len(said))
    for name in weights:  # nothing but the embedding reaches the head
        if name.endswith((".o_proj.weight", ".down_proj.weight")):
            weights[name] = np.zeros_like(weights[name])
        elif len(weights[name].shape) == 1:
            weights[name] = np.ones_like(weights[name])
    followed = dict(zip(said, [*said[1:], vocabulary.id(END) if ends else said[0]], strict=True))
    signs = np.sign(np.random.default_rng(1).standard_normal((shape.vocabulary, shape.width)))
    embedding = signs.astype(np.float32)
    embedding[[token for token in range(shape.vocabulary) if token not in followed]] = embedding[0]
    head = np.zeros_like(embedding)
    head[said[0]] += embedding[0]
    for token, following in followed.items():
        head[following] += embedding[token]
    weights[EMBEDDING], weights[HEAD] = embedding, head
    return shape, weights, vocabulary, len(said)
