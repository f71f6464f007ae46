"""The embedding model: texts in, vectors out."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maru.engine.errors import InputError, InputTooLong, ModelFailed
from maru.engine.model import Model, ModelSpec, Prepared
from maru.engine.types import Limits, ModelRef
from maru.runtimes.encoder_folder import EncoderFolder
from maru.runtimes.onnx.encoder_graph import BUILDER
from maru.runtimes.onnx.precision import PrecisionName
from maru.runtimes.prompts import Prompts
from maru.runtimes.sentence_encoder import Encoder, Vectors

Precision = PrecisionName

QUICK_TEXTS = 16
QUICK_CHARACTERS = 1_000
"""Of ASCII: tokenised in under a millisecond."""
WIDEST = 3
"""How many of those another character may cost."""
TINY = 1e-12


class Text(NamedTuple):
    """What is to be embedded, and how.

    `content` is text, or the token ids that the model is to see as they are. `task` names a prompt of the
    model, `dimensions` a shorter vector that it was trained for. Without `truncate`, a text longer than the
    model's window is refused.
    """

    content: str | tuple[int, ...]
    task: str | None = None
    dimensions: int | None = None
    normalize: bool = True
    truncate: bool = True


class Embedding(NamedTuple):
    """A vector, read-only float32, and how many tokens it stands for."""

    vector: Vectors
    tokens: int


class Tokens(NamedTuple):
    """A text made ready: its ids, how many at the start are not pooled, and the vector that is wanted."""

    ids: list[int]
    skip: int
    size: int
    normalize: bool


class SentenceEncoder(Model):
    """A sentence encoder of `maru.runtimes` as a model of the engine. Its unit of cost is the token."""

    def __init__(self, folder: EncoderFolder, encoder: Encoder, precision: Precision) -> None:
        self._encoder = encoder
        self._tokenizer = encoder.tokenizer
        self._prompts = Prompts(folder, encoder.tokenizer)
        self._sizes = {size for size in encoder.dimensions if size < encoder.dimension} | {encoder.dimension}
        self.memory_bytes = encoder.memory_bytes
        self.metadata = {
            "dimension": encoder.dimension,
            "dimensions": sorted(self._sizes),
            "max_seq_length": encoder.max_tokens,
            "tasks": self._prompts.tasks,
            "precision": precision,
            "architecture": encoder.architecture,
            "pooling": encoder.pooling,
            "platform": "onnxruntime_cpu",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [-1, encoder.dimension]}],
        }

    @classmethod
    def spec(
        cls,
        name: str,
        folder: Path,
        *,
        precision: Precision,
        max_seq_length: int | None,
        cache: Path,
        limits: Limits,
    ) -> ModelSpec:
        """How the model in `folder` is served under `name`. Reads its files for their digest.

        `cache` is where built graphs are kept.
        """
        files = EncoderFolder.read(folder)
        digest = files.digest()

        def load() -> Model:
            encoder = Encoder(files, precision, cache, max_tokens=max_seq_length, digest=digest)
            return cls(files, encoder, precision)

        computed = f"{digest} {BUILDER} {precision} {max_seq_length}"
        served = hashlib.sha256(computed.encode()).hexdigest()
        expected = files.weights.stat().st_size // {"int8": 4, "fp16": 2, "fp32": 1}[precision]
        ref = ModelRef(name, served[:12], served)
        return ModelSpec(ref, load, limits, EmbeddingCodec(), memory_bytes=expected)

    def quick(self, inputs: Sequence[Text]) -> bool:
        if len(inputs) > QUICK_TEXTS:
            return False
        cost = 0
        for text in inputs:
            content = text.content
            plain = not isinstance(content, str) or content.isascii()
            cost += len(content) * (1 if plain else WIDEST)
        return cost <= QUICK_CHARACTERS

    def prepare(self, inputs: Sequence[Text]) -> list[Prepared | Exception]:
        """The tokens of each text. What can't be embedded gives an InputError that says why."""
        given = [self._given(text) for text in inputs]
        encoded = iter(self._encode([words for words in given if isinstance(words, str)]))
        found = [next(encoded) if isinstance(words, str) else words for words in given]
        return [
            ids if isinstance(ids, InputError) else self._ready(text, ids)
            for text, ids in zip(inputs, found, strict=True)
        ]

    def predict(self, batch: Sequence[Tokens]) -> list[Embedding | Exception]:
        """One vector a text, in order, whatever else is in the batch."""
        vectors = self._encoder.encode([item.ids for item in batch], [item.skip for item in batch])
        alike: dict[tuple[int, bool], list[int]] = {}
        for place, item in enumerate(batch):
            alike.setdefault((item.size, item.normalize), []).append(place)
        outputs: list[Embedding | Exception] = [ModelFailed("the vector is not finite")] * len(batch)
        for (size, normalize), places in alike.items():
            chosen = vectors[places, :size]
            if normalize:
                lengths = np.sqrt(np.einsum("ij,ij->i", chosen, chosen, dtype=np.float64))
                with np.errstate(invalid="ignore"):  # of what overflowed, which is found below
                    chosen /= np.maximum(lengths, TINY)[:, None]
            chosen.flags.writeable = False
            finite = np.asarray(np.isfinite(chosen).all(axis=1))
            for row, place in enumerate(places):
                if finite[row]:
                    outputs[place] = Embedding(chosen[row], len(batch[place].ids))
        return outputs

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, special tokens and all, without a prompt and not cut."""
        found = self._encode(texts)
        for ids in found:
            if isinstance(ids, InputError):
                raise ids
        return [ids for ids in found if not isinstance(ids, InputError)]

    def warm(self) -> None:
        ready = [item.value for item in self.prepare([Text("warm")]) if isinstance(item, Prepared)]
        self.predict(ready)

    def _given(self, text: Text) -> str | list[int] | InputError:
        """What is to be tokenised, or ids that are given as they are, or what is wrong with the text."""
        try:
            prompt = self._prompts.of(text.task)
        except InputError as error:
            return error
        if text.dimensions is not None and text.dimensions not in self._sizes:
            return InputError(f"dimensions must be one of: {', '.join(map(str, sorted(self._sizes)))}")
        if isinstance(text.content, str):
            return prompt.words + text.content if text.content.strip() else InputError("the text is empty")
        if text.task is not None and prompt.words:
            return InputError("token ids are embedded as they are; a task needs text")
        if not self._tokenizer.knows(text.content):
            return InputError("the token ids are none, or not all in the model's vocabulary")
        return list(text.content)

    def _encode(self, texts: Sequence[str]) -> list[list[int] | InputError]:
        try:
            return [*self._tokenizer.encode(texts)]
        except ValueError as error:
            if len(texts) == 1:
                return [InputError(str(error))]
            return [ids for text in texts for ids in self._encode([text])]

    def _ready(self, text: Text, ids: list[int]) -> Prepared | InputError:
        length, window = len(ids), self._tokenizer.max_tokens
        if length > window:
            if not text.truncate:
                return InputTooLong(f"the text has {length} tokens, and the model takes {window}")
            ids = self._tokenizer.cut(ids)
        if not ids or (self._tokenizer.strays and not self._tokenizer.knows(ids)):
            return InputError("the text has no tokens, or one that the model has no embedding for")
        skip = self._prompts.of(text.task).skip if isinstance(text.content, str) else 0
        size = text.dimensions or self._encoder.dimension
        return Prepared(Tokens(ids, min(skip, len(ids) - 1), size, text.normalize), len(ids))


class EmbeddingCodec:
    """An Embedding as bytes: a mark, the token count, and the vector in little-endian float32."""

    _head = struct.Struct("<4sI")
    _mark = b"emb1"

    def encode(self, output: Embedding) -> bytes:
        return self._head.pack(self._mark, output.tokens) + output.vector.astype("<f4", copy=False).tobytes()

    def decode(self, data: bytes) -> Embedding:
        """ValueError for anything that `encode` did not make."""
        start = self._head.size
        if len(data) <= start or len(data) % 4 or data[:4] != self._mark:
            raise ValueError("not an embedding")
        return Embedding(np.frombuffer(data, "<f4", offset=start), self._head.unpack_from(data)[1])


def canonical(text: Text) -> bytes:
    """The same bytes for the same text with the same options, and for no other."""
    if isinstance(text.content, str):
        kind, content = b"t", text.content.encode("utf-8", "surrogatepass")
    else:
        kind, content = b"i", np.asarray(text.content, np.int64).tobytes()
    task = b"" if text.task is None else text.task.encode("utf-8", "surrogatepass")
    task_size = -1 if text.task is None else len(task)
    size = -1 if text.dimensions is None else text.dimensions
    return kind + _OPTIONS.pack(task_size, size, text.normalize, text.truncate) + task + content


_OPTIONS = struct.Struct("<iq??")
