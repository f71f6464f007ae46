"""The style model: texts and pictures in, the styles found in them out."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson

from maru.engine.computing import typed
from maru.engine.errors import InputError
from maru.engine.model import Model, ModelSpec, Prepared
from maru.engine.types import Limits, ModelRef, Result
from maru.services.style.image.analysis import Analysis, analyse
from maru.services.style.image.decoding import DecodedImage, ImageUnreadable, decode
from maru.services.style.reading import Match, Reading

NAME = "style"

QUICK_TEXTS = 12
QUICK_CHARACTERS = 300
"""All together."""
INLINE_S = 0.001
"""What so many may take to be read on the event loop."""
PROBE = "따뜻한 느낌의 원목 의자와 낮은 탁자, a warm mid-century armchair with light oak legs and linen"

PICTURE_COST = 20.0
"""In texts: what a picture costs where the model is small. Only decides how long it is expected to take."""


class Texts(NamedTuple):
    """Texts that are given to the model together."""

    texts: tuple[str, ...]


class Picture(NamedTuple):
    """The bytes of an image file, and their SHA-256."""

    data: bytes
    digest: bytes

    @classmethod
    def of(cls, data: bytes) -> Picture:
        """Takes milliseconds for a large one: for a thread."""
        return cls(data, hashlib.sha256(data).digest())


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What was found in a picture. Seconds are those of the computation; not kept with a cached result."""

    reading: Reading
    analysis: Analysis
    decode_s: float = 0.0
    colors_s: float = 0.0
    model_s: float = 0.0


Inputs = Texts | Picture
Output = list[Reading | Exception] | Seen


class Bundle(Protocol):
    """What finds styles: `maru.services.style.bundle.StyleBundle`. Called from several threads at once."""

    @property
    def version(self) -> str: ...

    @property
    def stand_in(self) -> bool: ...

    @property
    def quality(self) -> str: ...

    @property
    def styles(self) -> tuple[str, ...]: ...

    @property
    def digest(self) -> str: ...

    @property
    def memory_bytes(self) -> int: ...

    def read_texts(self, texts: Sequence[str]) -> list[Reading]: ...

    def read_images(self, images: Sequence[DecodedImage]) -> list[Reading]: ...


class UnreadableImage(InputError):
    """The bytes are no image that is taken; the message says why, for the caller."""


class _View(NamedTuple):
    """A picture that is decoded and measured, and not yet read."""

    image: DecodedImage
    analysis: Analysis
    decode_s: float
    colors_s: float


class StyleReader(Model):
    """A bundle as a model of the engine. One input is what one slot computes: some texts, or one picture.

    Pictures are decoded and measured in `prepare`, in a thread. A bundle that reads a few texts in under a millisecond
    does so on the event loop; whatever else such a bundle is asked, it reads in `prepare` too.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.memory_bytes = bundle.memory_bytes
        self.stand_in = bundle.stand_in
        self.quality = bundle.quality
        self.styles = bundle.styles
        self.metadata = {
            "platform": "onnxruntime_cpu",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "score", "datatype": "FP32", "shape": [-1]},
                {"name": "confidence", "datatype": "FP32", "shape": [-1]},
                {"name": "style", "datatype": "INT32", "shape": [-1]},
            ],
            "parameters": {"styles": list(bundle.styles), "stand_in": bundle.stand_in, "quality": bundle.quality},
        }

    @classmethod
    def spec(cls, folder: Path, open_bundle: Callable[[Path], Bundle], limits: Limits) -> ModelSpec:
        """How the bundle in `folder` is served. Reads its files; raises what `open_bundle` does."""
        bundle = open_bundle(folder)
        ref = ModelRef(NAME, bundle.version, bundle.digest)
        return ModelSpec(ref, lambda: cls(bundle), limits, StyleCodec(), memory_bytes=bundle.memory_bytes, pinned=True)

    def quick(self, inputs: Sequence[Inputs]) -> bool:
        return all(isinstance(each, Texts) and (not self.inline or _few(each)) for each in inputs)

    def prepare(self, inputs: Sequence[Inputs]) -> list[Prepared | Exception]:
        return [self._prepared(each) for each in inputs]

    def predict(self, batch: Sequence[Texts | _View | Output]) -> list[Output]:
        return [self._read(each) if isinstance(each, Texts | _View) else each for each in batch]

    def warm(self) -> None:
        probe = Texts((PROBE[: QUICK_CHARACTERS // QUICK_TEXTS],) * QUICK_TEXTS)
        _, cold_s = _timed(lambda: self._read(probe))
        if cold_s < 100 * INLINE_S:
            self.inline = min(_timed(lambda: self._read(probe))[1] for _ in range(20)) < INLINE_S

    def _prepared(self, given: Inputs) -> Prepared | Exception:
        if isinstance(given, Texts):
            waits = not self.inline or _few(given)
            return Prepared(given if waits else self._read(given), len(given.texts))
        try:
            image, decode_s = _timed(lambda: decode(given.data))
        except ImageUnreadable as error:
            return UnreadableImage(str(error))
        analysis, colors_s = _timed(lambda: analyse(image))
        view = _View(image, analysis, decode_s, colors_s)
        return Prepared(self._read(view) if self.inline else view, PICTURE_COST)

    def _read(self, given: Texts | _View) -> Output:
        if isinstance(given, Texts):
            return self._read_texts(given.texts)
        (reading,), model_s = _timed(lambda: self._bundle.read_images([given.image]))
        return Seen(reading, given.analysis, given.decode_s, given.colors_s, model_s)

    def _read_texts(self, texts: Sequence[str]) -> list[Reading | Exception]:
        """Texts that can't be read together are halved, until the one that is at fault stands alone."""
        try:
            return [*self._bundle.read_texts(texts)]
        except Exception:
            if len(texts) == 1:
                raise
        middle = len(texts) // 2
        return [*self._read_half(texts[:middle]), *self._read_half(texts[middle:])]

    def _read_half(self, texts: Sequence[str]) -> list[Reading | Exception]:
        try:
            return self._read_texts(texts)
        except Exception as error:
            return [typed(error)]


class StyleCodec:
    """What was found as bytes, so that it can be cached: a mark, and JSON. Texts among which one failed are nothing."""

    _mark = b"sty1"

    def encode(self, output: Output) -> bytes:
        if isinstance(output, Seen):
            told: list[Any] = [[_flat(output.reading)], asdict(output.analysis)]
        elif any(isinstance(reading, Exception) for reading in output):
            return b""
        else:
            told = [[_flat(reading) for reading in output if isinstance(reading, Reading)], None]
        return self._mark + orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY)

    def decode(self, data: bytes) -> Output:
        """ValueError for anything that `encode` did not make."""
        if data[:4] != self._mark:
            raise ValueError("not a style")
        try:
            found, measured = orjson.loads(data[4:])
            readings: list[Reading | Exception] = [_reading(*each) for each in found]
            if measured is None:
                return readings
            return Seen(_reading(*found[0]), Analysis(**{**measured, **_tuples(measured)}))
        except (TypeError, IndexError, AttributeError) as error:
            raise ValueError("not a style") from error


def canonical(given: Inputs) -> bytes:
    """The same bytes for the same texts or picture, and for no other."""
    if isinstance(given, Picture):
        return b"p" + given.digest
    encoded = [text.encode("utf-8", "surrogatepass") for text in given.texts]
    return b"".join([b"t", *(struct.pack("<I", len(text)) + text for text in encoded)])


def in_batches(texts: Sequence[str], size: int) -> list[Texts]:
    """The texts in order, `size` to a batch at the most."""
    return [Texts(tuple(texts[start : start + size])) for start in range(0, len(texts), size)]


def readings_of(batches: Sequence[Texts], result: Result) -> list[Reading | Exception]:
    """One for each text of the batches, or the error in its place."""
    found: list[Reading | Exception] = []
    for batch, output in zip(batches, result.outputs, strict=True):
        found += [output] * len(batch.texts) if isinstance(output, Exception) else output
    return found


def cost(given: Inputs) -> float:
    """What is expected of it before it is seen, in texts."""
    return float(len(given.texts)) if isinstance(given, Texts) else PICTURE_COST


def _few(given: Texts) -> bool:
    return len(given.texts) <= QUICK_TEXTS and sum(map(len, given.texts)) <= QUICK_CHARACTERS


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def _tuples(measured: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) for name, value in measured.items() if isinstance(value, list)}


def _flat(reading: Reading) -> list[Any]:
    matches = [(match.style, match.score, match.confidence) for match in reading.matches]
    return [reading.style, reading.score, reading.confidence, matches, reading.embedding]


def _reading(style: str, score: float, confidence: float, matches: Any, embedding: Any) -> Reading:
    vector = None if embedding is None else np.asarray(embedding, np.float32)
    return Reading(style, score, confidence, tuple(Match(*match) for match in matches), vector)
