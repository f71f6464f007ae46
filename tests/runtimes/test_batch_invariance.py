"""A text's vector is its own: the same whatever else is in the batch, and wherever it stands in it."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.onnx import packed
from maru.runtimes.onnx.precision import PrecisionName
from maru.runtimes.sentence_encoder import Encoder

from .conftest import Recorded

LEAST = 1e-5


def normalized(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    result: np.ndarray[Any, Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return result


def largest_difference(encoder: Encoder, sequences: list[list[int]], batches: int) -> float:
    """Between each sequence alone and in random batches, at random places, beside copies of itself."""
    alone = normalized(np.concatenate([encoder.encode([ids]) for ids in sequences]))
    chance = random.Random(7)
    worst = 0.0
    for _ in range(batches):
        chosen = [chance.randrange(len(sequences)) for _ in range(chance.randint(2, 32))]
        together = normalized(encoder.encode([sequences[place] for place in chosen]))
        worst = max(worst, float(np.abs(together - alone[chosen]).max()))
    return worst


@pytest.fixture(params=["as it is", "in one run"])
def grouping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs as they are formed; and whole batches in one, where short texts are padded most."""
    if request.param == "in one run":
        everything: Callable[[list[int]], list[list[int]]] = lambda lengths: [list(range(len(lengths)))]  # noqa: E731
        monkeypatch.setattr("maru.runtimes.sentence_encoder.runs", everything)


@pytest.mark.usefixtures("grouping")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_default_model(
    precision: PrecisionName, minilm: EncoderFolder, minilm_reference: Recorded, built: Path
) -> None:
    encoder = Encoder(minilm, precision, built)
    by_length = sorted(minilm_reference.ids, key=len)
    sequences = [[101], *by_length[:: len(by_length) // 30], by_length[-1]]
    assert largest_difference(encoder, sequences, 6) <= LEAST


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", ["gemma", "grouped", "roberta"])
def test_small_models(name: str, precision: PrecisionName, tiny_models: Path, built: Path) -> None:
    encoder = Encoder(EncoderFolder.read(tiny_models / name), precision, built)
    chance = random.Random(1)
    sequences = [
        [chance.randrange(5, 2000) for _ in range(length)] for length in (1, 2, 3, 7, 16, 17, 18, 33, 64, 95, 96)
    ]
    assert largest_difference(encoder, sequences, 30) <= LEAST


def test_several_threads_at_once(minilm: EncoderFolder, minilm_reference: Recorded, built: Path) -> None:
    encoder = Encoder(minilm, "int8", built)
    sequences = [ids for ids in minilm_reference.ids if len(ids) < 40][:64]
    expected = encoder.encode(sequences)
    with ThreadPoolExecutor(6) as threads:
        for found in threads.map(lambda _: encoder.encode(sequences), range(12)):
            np.testing.assert_allclose(found, expected, atol=LEAST)


def test_vectors_of_a_batch_are_in_its_order(minilm: EncoderFolder, minilm_reference: Recorded, built: Path) -> None:
    """Runs are formed by length: what they give is put back where it belongs."""
    encoder = Encoder(minilm, "int8", built)
    sequences = minilm_reference.ids[100:140]
    assert len(packed.runs([len(ids) for ids in sequences])) > 1
    found = normalized(encoder.encode(sequences)) @ minilm_reference.vectors[100:140].T
    assert (found.argmax(axis=1) == np.arange(40)).all()
