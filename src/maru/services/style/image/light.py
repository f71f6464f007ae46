"""How light, how full of contrast and how colourful a picture is: one number each, in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from maru.services.style.image.lab import TO_XYZ

LINEAR = np.array([v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255])
LUMINANCE = (LINEAR[:, None] * TO_XYZ[1]).astype(np.float32)
"""What a value of a channel adds to the relative luminance Y."""


@dataclass(frozen=True, slots=True)
class Light:
    """brightness   the mean of L*/100, CIE 1976 lightness (CIE 15): 0 black, 1 white
    contrast     the standard deviation of L*/100, by which RMS contrast is defined (Peli, 1990), over 0.5, the
                 greatest that there can be: half of the picture black and half of it white is 1
    saturation   the mean of HSV saturation weighted with value, the sum of max - min over the sum of max of the
                 channels: 0 grey, 1 pure colours. Unweighted, the noise of dark pixels would count as colour.
    """

    brightness: float
    contrast: float
    saturation: float


def light(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Light:
    """Of sRGB pixels, [height, width, 3]."""
    flat = pixels.reshape(-1, 3)
    luminance = sum(LUMINANCE[:, channel][flat[:, channel]] for channel in range(3))
    lightness = np.where(luminance > 216 / 24389, 1.16 * np.cbrt(luminance) - 0.16, luminance * 9.032963)
    highest, lowest = flat.max(axis=1), flat.min(axis=1)
    total = int(highest.sum(dtype=np.int64))
    spread = total - int(lowest.sum(dtype=np.int64))
    return Light(
        brightness=_share(lightness.mean(dtype=np.float64)),
        contrast=_share(lightness.std(dtype=np.float64) / 0.5),
        saturation=_share(spread / total if total else 0.0),
    )


def _share(value: Any) -> float:
    return round(min(1.0, max(0.0, float(value))), 4)
