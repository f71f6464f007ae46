"""The network: its gradient beside finite differences, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.forecast.training.lstm import Schedule, Weights, beginning, count, gradient, train

FEATURES, HIDDEN, STEPS = 3, 4, 5


@pytest.fixture
def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, windows and targets; some misses are beyond the bend of the loss, some within."""
    chance = np.random.default_rng(7)
    flat = beginning(FEATURES, HIDDEN, chance) + chance.normal(0, 0.3, count(FEATURES, HIDDEN))
    return flat, chance.normal(0, 1, (9, STEPS, FEATURES)), chance.normal(0, 2, 9)


def test_the_gradient_is_the_slope_of_the_loss(problem):
    flat, windows, targets = problem
    slope = gradient(Weights.of(flat, FEATURES, HIDDEN), windows, targets)[1]
    step = 1e-6
    for place in range(len(flat)):
        losses = []
        for way in (step, -step):
            moved = flat.copy()
            moved[place] += way
            losses.append(gradient(Weights.of(moved, FEATURES, HIDDEN), windows, targets)[0])
        assert slope[place] == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-8), place
    assert (np.abs(slope) > 1e-6).all()


def test_the_loss_is_hubers(problem):
    flat, windows, targets = problem
    weights = Weights.of(flat, FEATURES, HIDDEN)
    misses = np.abs(weights.answers(windows) - targets)
    assert misses.min() < 1 < misses.max()
    wanted = np.mean([0.5 * miss**2 if miss <= 1 else miss - 0.5 for miss in misses])
    assert gradient(weights, windows, targets)[0] == pytest.approx(wanted)


def made(windows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The answer lies three bars back: a network without a memory can't give it."""
    inputs = np.random.default_rng(seed).normal(0, 1, (windows, 6, 2)).astype(np.float32)
    return inputs, np.tanh(inputs[:, 2, 0])


def test_it_remembers():
    epochs = []
    schedule = Schedule(epochs=40, patience=40, hidden=8, batch=64, rate=1e-2)
    weights = train(made(2000, 0), made(500, 1), schedule, lambda: epochs.append(1))
    inputs, wanted = made(500, 2)
    assert len(epochs) == 40
    assert ((weights.answers(inputs) - wanted) ** 2).mean() < 0.05 * wanted.var()


def test_equal_seeds_give_equal_weights():
    first, again, other = (
        train(made(300, 0), made(100, 1), Schedule(epochs=2, hidden=4, seed=seed), lambda: None) for seed in (3, 3, 4)
    )
    assert (first.inputs == again.inputs).all() and (first.head == again.head).all()
    assert (first.inputs != other.inputs).any()


def test_it_stops_when_nothing_more_is_learnt_and_keeps_the_best():
    """What the validation stretch wants is the opposite: every epoch makes it worse."""
    epochs = []
    inputs, targets = made(600, 0)
    schedule = Schedule(epochs=50, patience=3, hidden=8, rate=1e-2)
    weights = train((inputs, targets), (inputs, -targets), schedule, lambda: epochs.append(1))
    assert 4 <= len(epochs) < 15
    patient = Schedule(epochs=50, patience=50, hidden=8, rate=1e-2)
    other = train((inputs, targets), (inputs, targets), patient, lambda: None)
    assert np.abs(weights.answers(inputs)).mean() < 0.5 * np.abs(other.answers(inputs)).mean()


def test_answers_do_not_depend_on_how_many_are_asked():
    chance = np.random.default_rng(0)
    weights = Weights.of(beginning(2, 8, chance), 2, 8)
    inputs = chance.normal(0, 1, (5000, 4, 2))
    np.testing.assert_allclose(weights.answers(inputs)[4090:4100], weights.answers(inputs[4090:4100]), rtol=1e-12)
