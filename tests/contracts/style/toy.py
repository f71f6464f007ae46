"""A bundle that finds what a test tells it to: as slow as it is asked to be, and failing where it is asked to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from maru.services.style.image.decoding import DecodedImage
from maru.services.style.reading import Reading, readings

STYLES = ("모던", "클래식", "미니멀")
DIMENSION = 4


@dataclass
class Toy:
    """Evidence of a style for each time that it is named. `texts_s` and `image_s` are what reading takes."""

    texts_s: float = 0.0
    image_s: float = 0.0
    version: str = "v1.2.0"
    stand_in: bool = True
    quality: str = "a toy for tests"
    styles: tuple[str, ...] = STYLES
    digest: str = "toy"
    memory_bytes: int = 1000
    given: list[int] = field(default_factory=list)

    def read_texts(self, texts: Sequence[str]) -> list[Reading]:
        self.given.append(len(texts))
        time.sleep(self.texts_s)
        for text in texts:
            if "고장" in text:
                raise RuntimeError(f"broken by {text}")
            if "기억" in text:
                raise MemoryError
        evidence = np.array([[4.0 * text.count(style) - 3.0 for style in self.styles] for text in texts])
        return readings(self.styles, evidence)

    def read_images(self, images: Sequence[DecodedImage]) -> list[Reading]:
        time.sleep(self.image_s)
        lightness = np.array([image.pixels.mean() / 255 for image in images])
        evidence = np.stack([lightness, 1 - lightness, lightness * 0], axis=1)
        vector = np.full(DIMENSION, DIMENSION**-0.5, np.float32)
        return readings(self.styles, evidence, [vector] * len(images))
