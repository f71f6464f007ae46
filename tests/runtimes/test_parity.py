"""The vectors are those of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maru.engine.model import Prepared
from maru.engine.types import Limits
from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.onnx.precision import PrecisionName
from maru.runtimes.sentence_encoder import Encoder
from maru.services.embedding.model import Embedding, SentenceEncoder, Text

from .conftest import Recorded

Vectors = np.ndarray[Any, Any]


def cosines(made: Vectors, expected: Vectors) -> Vectors:
    lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(expected, axis=1)
    result: Vectors = (made * expected).sum(axis=1) / lengths
    return result


def test_the_default_models_tokens(minilm: EncoderFolder, minilm_reference: Recorded, built: Path) -> None:
    tokenizer = Encoder(minilm, "int8", built).tokenizer
    cut = [tokenizer.cut(ids) for ids in tokenizer.encode(minilm_reference.texts)]
    assert cut == minilm_reference.ids
    lengths = [len(ids) for ids in cut]
    assert len(cut) >= 500 and min(lengths) <= 6 and lengths.count(256) >= 5


@pytest.mark.parametrize(
    ("precision", "least", "mean", "every"),
    [("fp32", 0.9999, 0.9999, 1), ("fp16", 0.9999, 0.9999, 5), ("int8", 0.98, 0.995, 1)],
)
def test_the_default_model(
    precision: PrecisionName,
    least: float,
    mean: float,
    every: int,
    minilm: EncoderFolder,
    minilm_reference: Recorded,
    built: Path,
) -> None:
    made = Encoder(minilm, precision, built).encode(minilm_reference.ids[::every])
    found = cosines(made, minilm_reference.vectors[::every])
    assert found.min() >= least and found.mean() >= mean


class Tiny:
    """One of the small models, with what sentence-transformers made of its texts in several cases."""

    def __init__(self, folder: Path, precision: PrecisionName, cache: Path) -> None:
        stored = json.loads((folder / "reference.json").read_text())
        self.texts: list[str] = stored["texts"]
        self.ids: dict[str, list[list[int]]] = stored["ids"]
        self.cases: dict[str, dict[str, Any]] = stored["cases"]
        self.expected: dict[str, Vectors] = dict(np.load(folder / "reference.npz"))
        spec = SentenceEncoder.spec(
            "tiny", folder, precision=precision, max_seq_length=None, cache=cache, limits=Limits()
        )
        model = spec.load()
        assert isinstance(model, SentenceEncoder)
        self.model = model

    def ready(self, case: str, normalize: bool = True) -> list[Any]:
        task, size = self.cases[case].get("prompt_name"), self.cases[case].get("truncate_dim")
        prepared = self.model.prepare([Text(text, task, size, normalize) for text in self.texts])
        return [item.value for item in prepared if isinstance(item, Prepared)]

    def vectors(self, case: str, normalize: bool) -> Vectors:
        outputs = self.model.predict(self.ready(case, normalize))
        made = [output.vector for output in outputs if isinstance(output, Embedding)]
        assert len(made) == len(self.texts)
        return np.stack(made)


@pytest.mark.parametrize("name", ["gemma", "grouped", "roberta"])
def test_small_models_tokens(name: str, tiny_models: Path, built: Path) -> None:
    """Prompts before them, and cut to the window, some of them."""
    tiny = Tiny(tiny_models / name, "fp32", built)
    for case, expected in tiny.ids.items():
        made = [tokens.ids for tokens in tiny.ready(case)]
        assert made == expected, case
        assert max(map(len, made)) == 96
    assert min(map(len, tiny.ids["plain"])) < 20


@pytest.mark.parametrize("name", ["gemma", "grouped", "roberta"])
def test_small_models_in_fp32(name: str, tiny_models: Path, built: Path) -> None:
    """Prompts, shorter vectors, texts longer than the sliding window, and cut: each to the last digits."""
    tiny = Tiny(tiny_models / name, "fp32", built)
    assert len(tiny.cases) >= (1 if name == "roberta" else 4)
    for case, expected in tiny.expected.items():
        made = tiny.vectors(case, normalize=name != "roberta")
        assert cosines(made, expected).min() >= 0.9999, case
        np.testing.assert_allclose(made, expected, atol=2e-4, err_msg=case)


@pytest.mark.parametrize("name", ["gemma", "grouped", "roberta"])
def test_small_models_in_int8(name: str, tiny_models: Path, built: Path) -> None:
    tiny = Tiny(tiny_models / name, "int8", built)
    for case, expected in tiny.expected.items():
        found = cosines(tiny.vectors(case, normalize=True), expected)
        assert found.mean() >= 0.99 and found.min() >= 0.98, case


@pytest.mark.parametrize(("name", "least"), [("gemma", 0.9995), ("grouped", 0.9999), ("roberta", 0.9999)])
def test_small_models_in_16_bits(name: str, least: float, tiny_models: Path, built: Path) -> None:
    """bfloat16 for the Gemmas, of which one is stored so and loses nothing; float16 for the other."""
    tiny = Tiny(tiny_models / name, "fp16", built)
    for case, expected in tiny.expected.items():
        found = cosines(tiny.vectors(case, normalize=True), expected)
        assert found.min() >= least and found.mean() >= 0.9999, case
