"""A sentence encoder in memory: token ids in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.onnx.architecture import read_architecture
from maru.runtimes.onnx.encoder_graph import BUILDER, GRAPH, build
from maru.runtimes.onnx.graph_cache import GraphCache
from maru.runtimes.onnx.packed import FULL_RUN, pack, runs
from maru.runtimes.onnx.precision import PrecisionName
from maru.runtimes.onnx.session import Session
from maru.runtimes.text_tokenizer import TextTokenizer

Vectors = np.ndarray[Any, np.dtype[np.float32]]


class Encoder:
    """One folder's tokenizer and network. Both may be used from several threads at once."""

    def __init__(
        self, folder: EncoderFolder, precision: PrecisionName, cache: Path, *,
        max_tokens: int | None = None, digest: str | None = None,
    ) -> None:  # fmt: skip
        """Builds the graph, or takes it from `cache`. `digest` is the folder's, if it is known already."""
        architecture = read_architecture(folder.config)
        self.architecture = folder.config.get("model_type", str)
        limits = (max_tokens, folder.max_tokens, architecture.positions)
        self.max_tokens = min(limit for limit in limits if limit)
        self.tokenizer = TextTokenizer(folder, self.max_tokens, architecture.vocabulary)
        key = f"{digest or folder.digest()} {BUILDER} {precision} {self.max_tokens}"
        graph = GraphCache(cache).folder(key, lambda place: build(folder, precision, self.max_tokens, place))
        self._session = Session(graph / GRAPH, int8=precision == "int8")
        self.pooling = folder.pooling
        self.dimension = int(self._session.metadata["dimension"])
        published = architecture.matryoshka.get(self.dimension, ())
        self.dimensions = tuple(size for size in folder.dimensions or published if size < self.dimension)
        """The shorter vectors that the model was trained for: its own, cut and normalised again."""
        self.memory_bytes = int(self._session.metadata["resident_bytes"])

    def encode(self, sequences: Sequence[Sequence[int]], skip: Sequence[int] | None = None) -> Vectors:
        """One vector a sequence, in order, not normalised: [n, dimension].

        `skip` says how many ids at the start of each are left out of its pooling. A sequence's vector does
        not depend on the others.
        """
        skip = skip or [0] * len(sequences)
        vectors = np.empty((len(sequences), self.dimension), np.float32)
        for run in runs([len(ids) for ids in sequences]):
            inputs = pack([sequences[i] for i in run], [skip[i] for i in run], self.pooling)
            vectors[run] = self._session.run(inputs, unusual=len(inputs["ids"]) > FULL_RUN)[0]
        return vectors
