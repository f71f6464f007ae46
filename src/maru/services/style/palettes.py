"""A guess at an image's style by its colours and its light, where there is no model of images.

It sees what is measured and nothing else: no furniture, no shapes, no materials. A white photograph of anything is
minimal to it. That is why its confidence is capped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maru.runtimes.errors import BadModelFile
from maru.runtimes.json_file import JsonFile
from maru.services.style.files import Files
from maru.services.style.image.colors import dominant_colors
from maru.services.style.image.decoding import DecodedImage
from maru.services.style.image.lab import Colors, lab
from maru.services.style.image.light import light

PALETTES = "palettes.json"
COLORS = 5
LIGHT = 25.0
"""How many ΔE a whole step of brightness, contrast or saturation is worth."""
NEUTRAL, SPREAD = 16.0, 5.0
"""The distance, in ΔE, at which an image speaks neither for a style nor against it; and of one step of log-odds."""
BITS = 2

Vector = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """`colors` in Lab, the `shares` of a room that they take, which sum to 1, and its light: brightness, contrast,
    saturation."""

    colors: Colors
    shares: Vector
    light: Vector

    @classmethod
    def read(cls, written: JsonFile) -> Palette:
        """BadModelFile."""
        colors = written.get("colors", dict)
        try:
            rgb = [bytes.fromhex(name.removeprefix("#")) for name in colors]
            shares = np.array([float(share) for share in colors.values()], np.float32)
            points = lab(np.array([[*code] for code in rgb]).reshape(len(rgb), 3))
        except (ValueError, TypeError, AttributeError):
            raise BadModelFile(f"{written.name}: colors are not #RRGGBB with a share each") from None
        if not len(shares) or not (np.isfinite(shares).all() and (shares > 0).all()):
            raise BadModelFile(f"{written.name}: there are no colors, or one of no share")
        measures = [written.get(name, float) for name in ("brightness", "contrast", "saturation")]
        return cls(points, shares / shares.sum(), np.array(measures, np.float32))

    def distance(self, other: Palette) -> float:
        """How unlike the two are, in ΔE: how far each colour of one is from the nearest of the other, both ways, and
        how far the light is."""
        between = np.sqrt(((self.colors[:, None] - other.colors) ** 2).sum(axis=2))
        colors = (self.shares @ between.min(axis=1) + other.shares @ between.min(axis=0)) / 2
        return float(colors + LIGHT * np.abs(self.light - other.light).mean())


class PaletteMatcher:
    """The palettes of some styles, by which images are told apart."""

    def __init__(self, palettes: Sequence[Palette]) -> None:
        self._palettes = palettes
        self.dimension = 1 << 3 * BITS

    @classmethod
    def open(cls, files: Files, styles: Sequence[str]) -> PaletteMatcher:
        """BadModelFile when a style has no palette."""
        written = JsonFile.read(files[PALETTES])
        return cls([Palette.read(written.child(style)) for style in styles])

    def answers(self, images: Sequence[DecodedImage]) -> tuple[Vector, list[Vector]]:
        """Each style's answer to each image, [images, styles]; and of each image the square roots of how often its
        colours are in each of 64 boxes, a vector of length 1 by which images of like colours are found."""
        measured = [_measured(image) for image in images]
        distances = [[palette.distance(found) for palette in self._palettes] for found in measured]
        return ((NEUTRAL - np.array(distances)) / SPREAD).astype(np.float32), [_boxes(image) for image in images]


def checked(written: Mapping[str, Any], styles: Sequence[str]) -> None:
    """BadModelFile when this could not be opened as the palettes of these styles."""
    for style in styles:
        Palette.read(JsonFile("palettes", written).child(style))


def _measured(image: DecodedImage) -> Palette:
    colors = dominant_colors(image.small, COLORS)
    rgb = np.array([[*bytes.fromhex(color.hex[1:])] for color in colors])
    shares = np.array([color.share for color in colors], np.float32)
    found = light(image.small)
    measures = np.array([found.brightness, found.contrast, found.saturation], np.float32)
    return Palette(lab(rgb), shares / shares.sum(), measures)


def _boxes(image: DecodedImage) -> Vector:
    red, green, blue = (image.small.reshape(-1, 3) >> (8 - BITS)).astype(np.int32).T
    counts = np.bincount((red << 2 * BITS) | (green << BITS) | blue, minlength=1 << 3 * BITS)
    roots: Vector = np.sqrt(counts / counts.sum()).astype(np.float32)
    return roots
