"""CIE Lab, held against published values."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.style.image.lab import lab, srgb

KNOWN = {
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.73, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (119, 119, 119): (50.03, 0.0, 0.0),
}


@pytest.mark.parametrize(("rgb", "wanted"), KNOWN.items())
def test_known_colors(rgb, wanted):
    assert lab(np.array([rgb]))[0].tolist() == pytest.approx(wanted, abs=0.03)


def test_there_and_back():
    steps = np.arange(0, 256, 15)
    colors = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    assert (srgb(lab(colors)) == colors).all()
