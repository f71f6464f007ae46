"""A style model in a folder: its files, what it says of itself, and how it reads texts and images.

`bundle.json` says of which kind the two readers are. The starter's are a text matcher and palettes, the production
model's are the two towers of a SigLIP2. Whichever they are, what they answer becomes log-odds by the calibration in
the manifest, and `maru.services.style.reading` says what is made of those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maru.runtimes.errors import BadModelFile, UnsupportedModel
from maru.runtimes.json_file import JsonFile
from maru.services.style.calibration import Calibration
from maru.services.style.files import Files
from maru.services.style.image.decoding import DecodedImage
from maru.services.style.matching.matcher import TextMatcher
from maru.services.style.palettes import PaletteMatcher
from maru.services.style.reading import Reading, Vector, readings
from maru.services.style.siglip import ImageTower, TextTower

MANIFEST = "bundle.json"
FORMAT = 1

Answers = tuple[np.ndarray[Any, np.dtype[np.float32]], list[Vector] | None]


class TextReader(Protocol):
    """Answers texts: [texts, styles], and an embedding a text where it has them. `dimension` is theirs, or 0."""

    dimension: int

    def answers(self, texts: Sequence[str]) -> Answers: ...


class ImageReader(Protocol):
    """The same for images."""

    dimension: int

    def answers(self, images: Sequence[DecodedImage]) -> Answers: ...


class StyleBundle:
    """One style model in memory. Its methods may be called from several threads, and are for workers.

    `stand_in` is whether its readings are no more than a stand-in for those of a model that understands, and `quality`
    is a sentence for people about what they are worth. `digest` is the SHA-256 of the manifest, which has those of
    all other files.
    """

    def __init__(self, files: Files, manifest: JsonFile, digest: str) -> None:
        self.version = manifest.get("version", str)
        self.quality = manifest.get("quality", str)
        self.stand_in = manifest.get("stand_in", bool)
        self.styles = _styles(manifest)
        self.digest = digest
        self.memory_bytes = 2 * files.bytes  # at the most: weights may be widened, and words are kept in a table
        self._texts = _text_reader(files, manifest, self.styles)
        self._images = _image_reader(files, manifest, self.styles)
        self._text_scale, self._text_cap = _scale(manifest.child("text"), self.styles)
        self._image_scale, self._image_cap = _scale(manifest.child("image"), self.styles)
        self.text_dimension, self.image_dimension = self._texts.dimension, self._images.dimension
        """Of the embeddings; 0 where there are none."""

    @classmethod
    def open(cls, folder: Path) -> StyleBundle:
        """Every file is held against its checksum before it is read. BadModelFile says which is wrong, and
        UnsupportedModel what this version of Maru does not know."""
        manifest = JsonFile.read(folder / MANIFEST)
        if manifest.find("format", int) != FORMAT:
            raise UnsupportedModel(f"{MANIFEST} is not of format {FORMAT}")
        return cls(Files(folder, manifest), manifest, hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest())

    def read_texts(self, texts: Sequence[str]) -> list[Reading]:
        """One a text, in order, whatever the others are."""
        if not texts:
            return []
        answers, embeddings = self._texts.answers(texts)
        return readings(self.styles, self._text_scale(answers), embeddings, self._text_cap)

    def read_images(self, images: Sequence[DecodedImage]) -> list[Reading]:
        """One an image, in order, whatever the others are."""
        if not images:
            return []
        answers, embeddings = self._images.answers(images)
        return readings(self.styles, self._image_scale(answers), embeddings, self._image_cap)

    def text_answers(self, texts: Sequence[str]) -> Answers:
        """What the reader says before calibration: [texts, styles]. For training."""
        return self._texts.answers(texts)

    def image_answers(self, images: Sequence[DecodedImage]) -> Answers:
        """The same of images."""
        return self._images.answers(images)


def _styles(manifest: JsonFile) -> tuple[str, ...]:
    listed = manifest.get("styles", list)
    if not all(isinstance(style, str) and 0 < len(style) <= 64 for style in listed) or len(set(listed)) < 2:
        raise BadModelFile(f"{MANIFEST}: styles is not a list of two names or more")
    return tuple(listed)


def _text_reader(files: Files, manifest: JsonFile, styles: Sequence[str]) -> TextReader:
    written = manifest.child("text")
    match written.get("kind", str):
        case "ngrams":
            return TextMatcher.open(files, len(styles))
        case "siglip":
            return TextTower.open(files, written, manifest.child("labels"), len(styles))
    raise UnsupportedModel("a bundle's text reader is one of: ngrams, siglip")


def _image_reader(files: Files, manifest: JsonFile, styles: Sequence[str]) -> ImageReader:
    written = manifest.child("image")
    match written.get("kind", str):
        case "palettes":
            return PaletteMatcher.open(files, styles)
        case "siglip":
            return ImageTower.open(files, written, manifest.child("labels"), len(styles))
    raise UnsupportedModel("a bundle's image reader is one of: palettes, siglip")


def _scale(written: JsonFile, styles: Sequence[str]) -> tuple[Calibration, float]:
    cap = written.get("cap", float, 1.0)
    try:
        calibration = Calibration.read(written.get("calibration", dict), len(styles))
    except ValueError as error:
        raise BadModelFile(f"{written.name}: {error}") from None
    if not 0 < cap <= 1:
        raise BadModelFile(f"{written.name}: cap is not above 0 and up to 1")
    return calibration, cap
