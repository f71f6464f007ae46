"""Which style a text speaks of, by the pieces of its words: linear, a sum of weights that were learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from maru.runtimes.errors import BadModelFile
from maru.runtimes.json_file import read_json
from maru.runtimes.safetensors_file import SafetensorsFile
from maru.runtimes.weights import Weights
from maru.services.style.files import Files
from maru.services.style.matching.ngrams import ngrams

WEIGHTS, VOCABULARY = "text.safetensors", "vocabulary.json"

Evidence = np.ndarray[Any, np.dtype[np.float32]]


class TextMatcher:
    """Knows words, not meanings: a text of none that it was taught has `bias` for evidence."""

    def __init__(self, vocabulary: Sequence[str], weights: Evidence, bias: Evidence) -> None:
        """`weights` is [pieces, styles], in the order of `vocabulary`; `bias` is [styles]."""
        self._place = {piece: place for place, piece in enumerate(vocabulary)}
        self._rows = np.vstack((weights, bias))
        self.dimension = 0

    @classmethod
    def open(cls, files: Files, styles: int) -> TextMatcher:
        """BadModelFile when the files are not those of a matcher of so many styles."""
        vocabulary = read_json(files[VOCABULARY])
        if not isinstance(vocabulary, list) or not all(isinstance(piece, str) for piece in vocabulary):
            raise BadModelFile(f"{VOCABULARY} is not a list of texts")
        with SafetensorsFile(files[WEIGHTS]) as file:
            tensors = Weights(file)
            return cls(vocabulary, tensors("weights", len(vocabulary), styles), tensors("bias", styles))

    def answers(self, texts: Sequence[str]) -> tuple[Evidence, None]:
        """[texts, styles], and no embeddings. Some 30 µs a sentence."""
        rows: list[int] = []
        starts = []
        for text in texts:
            starts.append(len(rows))
            rows.append(len(self._place))  # the bias: no sum is of nothing
            rows += sorted(place for piece in ngrams(text) if (place := self._place.get(piece)) is not None)
        evidence: Evidence = np.add.reduceat(self._rows[rows], starts, axis=0)
        return evidence, None
