"""The two towers of a SigLIP2, as ONNX graphs: texts and images to vectors that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers

from maru.runtimes.errors import BadModelFile
from maru.runtimes.json_file import JsonFile
from maru.runtimes.onnx.session import Session
from maru.runtimes.safetensors_file import SafetensorsFile
from maru.runtimes.weights import Weights
from maru.services.style.files import Files
from maru.services.style.image.decoding import DecodedImage

TEXT_GRAPH, IMAGE_GRAPH = "text.onnx", "image.onnx"
TEXT_DATA, IMAGE_DATA = "text.bin", "image.bin"
TOKENIZER, LABELS = "tokenizer.json", "labels.safetensors"

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A vector of length 1 for each style, and how the model makes a logit of a cosine."""

    vectors: Vectors
    scale: float
    bias: float

    @classmethod
    def open(cls, files: Files, written: JsonFile, styles: int) -> Labels:
        with SafetensorsFile(files[LABELS]) as file:
            vectors = Weights(file)("labels", styles, None)
        return cls(vectors, written.get("scale", float), written.get("bias", float))

    def answers(self, vectors: Vectors) -> Vectors:
        """SigLIP's own logits, [inputs, styles]."""
        logits: Vectors = vectors @ self.vectors.T * self.scale + self.bias
        return logits


class TextTower:
    """Texts, cut to the model's window, to vectors of length 1. The whole window is always computed, as the model
    was trained: its padding is looked at, too."""

    def __init__(self, session: Session, tokenizer: Tokenizer, labels: Labels) -> None:
        """The tokenizer pads and cuts to the window."""
        self._session, self._tokenizer, self._labels = session, tokenizer, labels
        self.dimension = labels.vectors.shape[1]

    @classmethod
    def open(cls, files: Files, written: JsonFile, labels: JsonFile, styles: int) -> TextTower:
        """BadModelFile."""
        files[TEXT_DATA]
        session = Session(files[TEXT_GRAPH], int8=written.get("precision", str, "fp32") == "int8")
        return cls(session, windowed(files[TOKENIZER], written), Labels.open(files, labels, styles))

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[texts, dimension]."""
        return embed_texts(self._session, self._tokenizer, texts)

    def answers(self, texts: Sequence[str]) -> tuple[Vectors, list[Vectors]]:
        vectors = self.embed(texts)
        return self._labels.answers(vectors), [*vectors]


class ImageTower:
    """Images, squeezed into the model's square, to vectors of length 1."""

    def __init__(self, session: Session, look: Look, labels: Labels) -> None:
        self._session, self._look, self._labels = session, look, labels
        self.dimension = labels.vectors.shape[1]

    @classmethod
    def open(cls, files: Files, written: JsonFile, labels: JsonFile, styles: int) -> ImageTower:
        """BadModelFile."""
        files[IMAGE_DATA]
        session = Session(files[IMAGE_GRAPH], int8=written.get("precision", str, "fp32") == "int8")
        return cls(session, Look.read(written), Labels.open(files, labels, styles))

    def embed(self, images: Sequence[DecodedImage]) -> Vectors:
        """[images, dimension]. One at a time: together they would be no faster on a core."""
        seen = [self._session.run({"pixels": self._look(image)[None]})[0] for image in images]
        return np.concatenate(seen)

    def answers(self, images: Sequence[DecodedImage]) -> tuple[Vectors, list[Vectors]]:
        vectors = self.embed(images)
        return self._labels.answers(vectors), [*vectors]


@dataclass(frozen=True, slots=True)
class Look:
    """How an image is made ready: resized to a square of `size`, from 0..1 less `mean` over `std` a channel."""

    size: int
    resample: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def read(cls, written: JsonFile) -> Look:
        """BadModelFile."""
        size, resample = written.size("size"), written.get("resample", str)
        mean, std = (_three(written, name) for name in ("mean", "std"))
        if resample not in RESAMPLING or size > 1024 or min(std) <= 0:
            raise BadModelFile(f"{written.name}: images can't be made ready that way")
        return cls(size, resample, mean, std)

    def __call__(self, image: DecodedImage) -> Vectors:
        """[3, size, size]."""
        squeezed = Image.fromarray(image.pixels).resize((self.size, self.size), RESAMPLING[self.resample])
        values = np.asarray(squeezed, np.float32) / np.float32(255)
        scaled = (values - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(2, 0, 1), np.float32)


def windowed(file: Path, written: JsonFile) -> Tokenizer:
    """A tokenizer as SigLIP2 uses it: lower case, cut and padded to its window. BadModelFile."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:
        raise BadModelFile(f"{TOKENIZER} is no tokenizer") from None
    before = [tokenizer.normalizer] if tokenizer.normalizer else []
    tokenizer.normalizer = Normalizers([Lowercase(), *before])
    window, side = written.size("window"), written.get("padding_side", str, "right")
    tokenizer.enable_truncation(window)
    tokenizer.enable_padding(length=window, pad_id=written.get("pad_id", int), direction=side)
    return tokenizer


def embed_texts(session: Session, tokenizer: Tokenizer, texts: Sequence[str]) -> Vectors:
    """ValueError when a text is not Unicode."""
    try:
        encoded = tokenizer.encode_batch_fast(texts)
    except TypeError:
        raise ValueError("the text is not valid Unicode") from None
    vectors: Vectors = session.run({"ids": np.array([found.ids for found in encoded], np.int64)})[0]
    return vectors


def _three(written: JsonFile, name: str) -> tuple[float, float, float]:
    found = written.get(name, list)
    if len(found) != 3 or not all(isinstance(value, int | float) for value in found):
        raise BadModelFile(f"{written.name}: {name} is not three numbers")
    return float(found[0]), float(found[1]), float(found[2])
