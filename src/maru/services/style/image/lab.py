"""sRGB to CIE Lab and back (IEC 61966-2-1 and CIE 15, white point D65, 2° observer)."""

from __future__ import annotations

from typing import Any

import numpy as np

Colors = np.ndarray[Any, np.dtype[np.float32]]

TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ.sum(axis=1)
RELATIVE = (TO_XYZ / WHITE[:, None]).astype(np.float32)
BACK = np.linalg.inv(TO_XYZ / WHITE[:, None])
EDGE = 6 / 29


def lab(rgb: np.ndarray[Any, Any]) -> Colors:
    """Of sRGB in 0..255, [n, 3]: L* in 0..100, a*, b*."""
    share = rgb.astype(np.float32) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return _lab(linear @ RELATIVE.T)


def srgb(colors: Colors) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The nearest colours that a screen has, [n, 3]."""
    lightness, a, b = colors.astype(np.float64).T
    middle = (lightness + 16) / 116
    f = np.stack((middle + a / 500, middle, middle - b / 200), axis=1)
    xyz = np.where(f > EDGE, f**3, 3 * EDGE**2 * (f - 4 / 29))
    linear = np.clip(xyz @ BACK.T, 0, 1)
    share = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    rounded: np.ndarray[Any, np.dtype[np.uint8]] = np.rint(share * 255).astype(np.uint8)
    return rounded


def _lab(xyz: Colors) -> Colors:
    f = np.where(xyz > EDGE**3, np.cbrt(xyz), xyz / (3 * EDGE**2) + 4 / 29)
    x, y, z = f.T
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=1).astype(np.float32)
