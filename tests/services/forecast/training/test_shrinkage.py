"""How far answers are believed."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.forecast.training.shrinkage import shrinkage


def answers(seed: int, n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Answers, and noise with heavy tails."""
    chance = np.random.default_rng(seed)
    return chance.normal(0, 0.3, n), chance.standard_t(3, n)


def test_noise_is_not_believed():
    """One in forty is, by chance, and little."""
    believed = np.array([shrinkage(*answers(seed)) for seed in range(400)])
    assert 0 < (believed > 0).sum() < 20
    assert believed.max() < 0.5


@pytest.mark.parametrize("slope", [0.4, 0.7, 1.0])
def test_what_is_true_is_believed_as_far_as_it_goes(slope):
    said, noise = answers(1, 100_000)
    assert shrinkage(said, slope * said + noise) == pytest.approx(slope, abs=0.03)


def test_never_more_than_whole_and_never_the_opposite():
    said, noise = answers(2)
    assert shrinkage(said, 5 * said + noise) == 1
    assert shrinkage(said, -5 * said + noise) == 0
    assert shrinkage(said, said) == pytest.approx(1)


def test_one_crash_does_not_decide():
    said, noise = answers(3)
    targets = 0.8 * said + 0.3 * noise
    calm = shrinkage(said, targets)
    targets[np.argmax(said)] = -200
    assert shrinkage(said, targets) == pytest.approx(calm, abs=0.05) and calm > 0.6


def test_a_doubtful_truth_is_believed_less():
    said, noise = answers(4, 300)
    few = shrinkage(said, said + noise)
    many, loud = answers(4, 100_000)
    assert few < shrinkage(many, many + loud)


def test_silence():
    assert shrinkage(np.zeros(10), np.ones(10)) == 0
    assert shrinkage(np.array([]), np.array([])) == 0
