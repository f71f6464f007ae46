"""Dominant colours, of pictures whose colours are known."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.style.image.colors import NEAR, dominant_colors
from maru.services.style.image.lab import lab

from .pictures import noise


def striped(*stripes: tuple[str, int], grain: float = 0.0) -> np.ndarray:
    """Rows of colours; with grain, each pixel is a little off."""
    rows = [np.full((height, 100, 3), [*bytes.fromhex(color[1:])], np.int16) for color, height in stripes]
    pixels = np.concatenate(rows)
    chance = np.random.default_rng(0)
    return np.clip(pixels + chance.normal(0, grain, pixels.shape), 0, 255).astype(np.uint8)


def rgb(color: str) -> np.ndarray:
    return np.array([[*bytes.fromhex(color[1:])]])


def difference(one: str, other: str) -> float:
    return float(np.linalg.norm(lab(rgb(one)) - lab(rgb(other))))


def mean_error(pixels: np.ndarray, palette: np.ndarray) -> float:
    """Mean ΔE (1976) to the nearest colour of a palette in Lab."""
    points = lab(pixels.reshape(-1, 3))
    return float(np.sqrt(((points[:, None] - palette) ** 2).sum(axis=2)).min(axis=1).mean())


def test_flat_colors_are_found_as_they_are_most_area_first():
    found = dominant_colors(striped(("#2C3E50", 20), ("#ECF0F1", 50), ("#E74C3C", 30)), 3)
    assert [color.hex for color in found] == ["#ECF0F1", "#E74C3C", "#2C3E50"]
    assert [color.share for color in found] == pytest.approx([0.5, 0.3, 0.2])


def test_grain_does_not_matter():
    found = dominant_colors(striped(("#2C3E50", 20), ("#C0B090", 50), ("#E74C3C", 30), grain=8), 3)
    for color, wanted, share in zip(found, ("#C0B090", "#E74C3C", "#2C3E50"), (0.5, 0.3, 0.2), strict=True):
        assert difference(color.hex, wanted) < 2 and color.share == pytest.approx(share, abs=0.02)


def test_a_small_spot_of_another_color_is_among_more_colors():
    stripes = (("#F0F0F0", 60), ("#808080", 34), ("#D02020", 6))
    assert "#D02020" in [color.hex for color in dominant_colors(striped(*stripes), 3)]


def test_what_is_nearly_one_color_is_one():
    found = dominant_colors(striped(("#808080", 40), ("#868686", 40), ("#202020", 15), ("#E0E0E0", 5)), 3)
    assert len(found) == 3
    assert found[0].share == pytest.approx(0.8) and difference(found[0].hex, "#838383") < 2
    for number, one in enumerate(found):
        assert all(difference(one.hex, other.hex) >= NEAR - 0.5 for other in found[:number])


@pytest.mark.parametrize("count", [1, 3, 5])
def test_fewer_colors_than_asked_for(count):
    assert [color.hex for color in dominant_colors(striped(("#123456", 10)), count)] == ["#123456"]
    (only,) = dominant_colors(np.full((1, 1, 3), 255, np.uint8), count)
    assert (only.hex, only.share) == ("#FFFFFF", 1.0)


def test_equal_pixels_give_equal_colors_wherever_they_are():
    pixels = np.asarray(noise(256, 160, seed=3))
    shuffled = np.random.default_rng(1).permutation(pixels.reshape(-1, 3)).reshape(pixels.shape)
    first = dominant_colors(pixels, 5)
    assert first == dominant_colors(pixels.copy(), 5) == dominant_colors(shuffled, 5)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("count", [3, 5])
def test_no_worse_than_k_means_of_scikit_learn(seed, count):
    """Which tries five starts on every pixel, and takes a hundred times as long."""
    from sklearn.cluster import KMeans

    pixels = np.asarray(noise(64, 48, seed))
    peer = KMeans(count, n_init=5, random_state=0).fit(lab(pixels.reshape(-1, 3))).cluster_centers_
    found = np.concatenate([lab(rgb(color.hex)) for color in dominant_colors(pixels, count)])
    assert len(found) == count
    assert mean_error(pixels, found) <= mean_error(pixels, peer) * 1.01


def test_shares_are_of_the_whole_picture():
    for seed in range(3):
        assert sum(color.share for color in dominant_colors(np.asarray(noise(200, 100, seed)), 3)) == pytest.approx(
            1, abs=1e-3
        )
