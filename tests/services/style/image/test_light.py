"""Brightness, contrast and saturation of pictures where they are known."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from maru.services.style.image.lab import lab
from maru.services.style.image.light import Light, light

from .pictures import noise


def filled(*colors: tuple[int, int, int]) -> np.ndarray:
    """As much of each."""
    return np.stack([np.full((20, 20, 3), color, np.uint8) for color in colors]).reshape(-1, 20, 3)


@pytest.mark.parametrize(
    ("colors", "wanted"),
    [
        ([(0, 0, 0)], Light(0, 0, 0)),
        ([(255, 255, 255)], Light(1, 0, 0)),
        ([(0, 0, 0), (255, 255, 255)], Light(0.5, 1, 0)),
        ([(255, 0, 0)], Light(0.5324, 0, 1)),
        ([(119, 119, 119)], Light(0.5003, 0, 0)),
        ([(200, 100, 100)], Light(0.5436, 0, 0.5)),
    ],
)
def test_known_pictures(colors, wanted):
    found = light(filled(*colors))
    assert (found.brightness, found.contrast, found.saturation) == pytest.approx(
        (wanted.brightness, wanted.contrast, wanted.saturation), abs=6e-4
    )


def test_dark_noise_is_no_color():
    """Its HSV saturation is 1 in a third of the pixels."""
    pixels = filled((240, 240, 240), (240, 240, 240), (3, 0, 0))
    assert light(pixels).saturation < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_by_the_definitions_pixel_by_pixel(seed):
    pixels = np.asarray(noise(40, 30, seed))
    lightness = lab(pixels.reshape(-1, 3))[:, 0] / 100
    hsv = np.array([colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in pixels.reshape(-1, 3)])
    found = light(pixels)
    assert found.brightness == pytest.approx(float(lightness.mean()), abs=1e-4)
    assert found.contrast == pytest.approx(float(lightness.std() / 0.5), abs=1e-4)
    assert found.saturation == pytest.approx(float((hsv[:, 1] * hsv[:, 2]).sum() / hsv[:, 2].sum()), abs=1e-4)
