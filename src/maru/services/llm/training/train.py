"""From text to a language model that has been measured."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maru.services.llm.training import fitting_program
from maru.services.llm.training.errors import TrainingError
from maru.services.llm.training.llama import NORM_EPSILON, ROPE_BASE, Shape, Weights
from maru.services.llm.training.text import Text
from maru.services.llm.training.vocabulary import END, LEAST, Vocabulary
from maru.services.llm.training.writing import write_gguf

SIZES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"width": 64, "layers": 2, "heads": 2, "key_heads": 1, "feed": 192, "context": 256},
    "small": {"width": 192, "layers": 5, "heads": 3, "key_heads": 1, "feed": 512, "context": 1024},
    "medium": {"width": 384, "layers": 8, "heads": 6, "key_heads": 2, "feed": 1024, "context": 1024},
}
"""2.8 million parameters are "small" with a vocabulary of 4096, 14 million "medium"."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What can be chosen. `python` is an interpreter that has torch, by default this one; `batch` is in tokens.
    Equal options and an equal text give an equal model on one machine."""

    text: Path
    size: str = "small"
    vocabulary: int = 4096
    epochs: float = 3.0
    batch: int = 4096
    rate: float = 8e-3
    seed: int = 0
    threads: int = 1
    python: Path | None = None


class Progress(Protocol):
    """Is told how much of a stage is done."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """On the held-out text. Losses are in nats a token; `unigram` is the loss of one who knows only how often each
    token occurs in what was learnt from. `characters` and `tokens` are those of the held-out text."""

    loss: float
    unigram: float
    tokens: int
    characters: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)

    @property
    def bits_a_character(self) -> float:
        """Comparable between vocabularies."""
        return self.loss / math.log(2) * self.tokens / self.characters


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """The model, and how it came to be. `log` has what was told of each step."""

    shape: Shape
    weights: Weights
    vocabulary: Vocabulary
    measured: Measured
    text: Text
    options: TrainingOptions
    tokens: int
    seconds: float
    log: tuple[dict[str, float], ...]

    def write(self, path: Path, kind: str) -> None:
        """A GGUF, its matrices kept as `kind`. It is there whole or not at all. OSError."""
        about = {
            "general.description": "Trained by `maru train llm`; it goes on with a text, and answers no questions.",
            "maru.data_sha256": self.text.sha256,
            "maru.held_out_loss": f"{self.measured.loss:.4f}",
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            write_gguf(partial, self.shape, self.weights, self.vocabulary, kind=kind, name=path.stem, about=about)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def train(options: TrainingOptions, progress: Progress) -> TrainedModel:
    """TrainingError when the options or the text don't allow it, or there is no torch."""
    if options.size not in SIZES:
        raise TrainingError(f"there is no size {options.size}; there are: {', '.join(SIZES)}")
    if options.vocabulary < LEAST or options.epochs <= 0 or options.seed < 0 or options.threads < 1:
        raise TrainingError(f"a vocabulary has at least {LEAST} tokens, and a training more than no epoch")
    if find_spec("gguf") is None:
        raise TrainingError("the package gguf is not installed, which writes the model: pip install 'maru[torch]'")
    python = options.python or Path(sys.executable)
    fitting_program.check(python)
    text = Text.read(options.text)
    progress("vocabulary", 0, 1)
    vocabulary = Vocabulary.learn(text.train, options.vocabulary)
    progress("vocabulary", 1, 1)
    shape = Shape(len(vocabulary), **SIZES[options.size])
    learnt, held_out = (_ids(vocabulary, part) for part in (text.train, text.held_out))
    if len(learnt) <= 2 * shape.context or len(held_out) < 2:
        raise TrainingError(f"{options.text} has {len(learnt):,} tokens, which is too few for the size {options.size}")
    job = {
        "sizes": shape.sizes(),
        "layers": shape.layers,
        "heads": shape.heads,
        "key_heads": shape.key_heads,
        "context": shape.context,
        "rope_base": ROPE_BASE,
        "norm_epsilon": NORM_EPSILON,
        "steps": max(1, round(options.epochs * len(learnt) / options.batch)),
        "batch": options.batch,
        "rate": options.rate,
        "seed": options.seed,
        "threads": options.threads,
    }
    began = time.monotonic()
    weights, log = fitting_program.run(python, job, learnt, held_out, progress)
    measured = Measured(
        loss=log[-1]["held_out"],
        unigram=_unigram(learnt, held_out, len(vocabulary)),
        tokens=len(held_out),
        characters=sum(map(len, text.held_out)),
    )
    seconds = time.monotonic() - began
    return TrainedModel(shape, weights, vocabulary, measured, text, options, len(learnt), seconds, log)


def _ids(vocabulary: Vocabulary, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """All texts one after the other, each with its end."""
    end = vocabulary.id(END)
    return np.concatenate([np.asarray([*vocabulary.ids(text), end], np.int32) for text in texts])


def _unigram(learnt: np.ndarray[Any, Any], held_out: np.ndarray[Any, Any], tokens: int) -> float:
    counts = np.bincount(learnt, minlength=tokens) + 1.0
    return float(-np.log(counts[held_out] / counts.sum()).mean())
