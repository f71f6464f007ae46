"""A long short-term memory and how it learns, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]

TOGETHER = 64
"""Windows at a time. OpenBLAS multiplies matrices this small on the calling thread; larger ones it would share out
to threads that spin while they wait for each other, which takes several times as long on a busy machine."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a network is trained. It stops after `patience` epochs that bring nothing on the validation stretch."""

    epochs: int = 30
    patience: int = 5
    hidden: int = 32
    batch: int = TOGETHER
    rate: float = 1e-3
    decay: float = 1e-3
    most_gradient: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """One layer and a linear head: `inputs` [features, 4h], `recurrent` [h, 4h], `bias` [4h], `head` [h],
    `offset` [1]. The gates are in the order input, forget, cell, output."""

    inputs: Values
    recurrent: Values
    bias: Values
    head: Values
    offset: Values

    @classmethod
    def of(cls, flat: Values, features: int, hidden: int) -> Weights:
        """Views on one vector of `count(features, hidden)` numbers."""
        shapes = _shapes(features, hidden)
        parts = np.split(flat, np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
        return cls(*(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))

    @property
    def hidden(self) -> int:
        return len(self.head)

    def answers(self, windows: Values) -> Values:
        """The network's answer to each of [n, seq_len, features]; [n]."""
        parts = [windows[start : start + TOGETHER] for start in range(0, len(windows), TOGETHER)]
        return np.concatenate([_forward(self, part)[0] for part in parts])


class Trainer(Protocol):
    """Finds weights. `tick` is told of each epoch that is over. Equal seeds give equal weights on one machine."""

    def __call__(
        self,
        train: tuple[Values, Values],
        validation: tuple[Values, Values],
        schedule: Schedule,
        tick: Callable[[], None],
    ) -> Weights: ...


@dataclass(slots=True, eq=False)
class _Step:
    """What one step of the forward pass leaves for the backward pass."""

    before: Values
    cell_before: Values
    gates: Values
    squashed: Values


def count(features: int, hidden: int) -> int:
    """How many numbers the weights are."""
    return sum(int(np.prod(shape)) for shape in _shapes(features, hidden))


def beginning(features: int, hidden: int, chance: np.random.Generator) -> Values:
    """Weights to start from: uniform within 1/√hidden, and a bias for remembering (Jozefowicz et al., 2015)."""
    flat = chance.uniform(-1, 1, count(features, hidden)) / np.sqrt(hidden)
    weights = Weights.of(flat, features, hidden)
    weights.bias[:] = 0
    weights.bias[hidden : 2 * hidden] = 1
    weights.offset[:] = 0
    return np.asarray(flat)


def gradient(weights: Weights, windows: Values, targets: Values) -> tuple[float, Values]:
    """The mean Huber loss (of width 1), and its derivative by every weight as one vector."""
    features, hidden = len(weights.inputs), weights.hidden
    flat = np.zeros(count(features, hidden), windows.dtype)
    slopes = Weights.of(flat, features, hidden)
    answers, last, steps = _forward(weights, windows)
    error = answers - targets
    pull = np.clip(error, -1, 1) / len(error)
    slopes.head[:] = last.T @ pull
    slopes.offset[:] = pull.sum()
    by_state = pull[:, None] * weights.head
    by_cell = np.zeros_like(by_state)
    for time in range(len(steps) - 1, -1, -1):
        step = steps[time]
        enter, keep, fresh, emit = np.split(step.gates, 4, axis=1)
        by_cell = by_cell + by_state * emit * (1 - step.squashed**2)
        by_gates = np.concatenate(
            (
                by_cell * fresh * enter * (1 - enter),
                by_cell * step.cell_before * keep * (1 - keep),
                by_cell * enter * (1 - fresh**2),
                by_state * step.squashed * emit * (1 - emit),
            ),
            axis=1,
        )
        slopes.inputs[:] += windows[:, time].T @ by_gates
        slopes.recurrent[:] += step.before.T @ by_gates
        slopes.bias[:] += by_gates.sum(axis=0)
        by_state = by_gates @ weights.recurrent.T
        by_cell = by_cell * keep
    return _huber(error), flat


def train(
    train: tuple[Values, Values],
    validation: tuple[Values, Values],
    schedule: Schedule,
    tick: Callable[[], None],
) -> Weights:
    """The `Trainer` that needs nothing but numpy: Adam with decoupled decay (Loshchilov and Hutter, 2019)."""
    windows, targets = train
    features = windows.shape[2]
    chance = np.random.default_rng(schedule.seed)
    flat = beginning(features, schedule.hidden, chance).astype(windows.dtype)
    weights = Weights.of(flat, features, schedule.hidden)
    mean, square = np.zeros_like(flat), np.zeros_like(flat)
    best, kept, stale, steps = np.inf, flat.copy(), 0, 0
    for _ in range(schedule.epochs):
        order = chance.permutation(len(windows))
        for part in np.array_split(order, -(-len(order) // schedule.batch)):
            slope = gradient(weights, windows[part], targets[part])[1]
            slope *= min(1.0, schedule.most_gradient / (float(np.linalg.norm(slope)) + 1e-12))
            steps += 1
            mean += 0.1 * (slope - mean)
            square += 0.001 * (slope**2 - square)
            size = np.sqrt(square / (1 - 0.999**steps)) + 1e-8
            flat -= schedule.rate * (mean / (1 - 0.9**steps) / size + schedule.decay * flat)
        tick()
        loss = _huber(weights.answers(validation[0]) - validation[1])
        best, kept, stale = (loss, flat.copy(), 0) if loss < best else (best, kept, stale + 1)
        if stale >= schedule.patience:
            break
    return Weights.of(kept, features, schedule.hidden)


def _shapes(features: int, hidden: int) -> tuple[tuple[int, ...], ...]:
    return (features, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,), (hidden,), (1,)


def _forward(weights: Weights, windows: Values) -> tuple[Values, Values, list[_Step]]:
    hidden = weights.hidden
    state = np.zeros((len(windows), hidden), windows.dtype)
    cell = np.zeros_like(state)
    entering = windows @ weights.inputs + weights.bias
    steps = []
    for time in range(windows.shape[1]):
        gates = entering[:, time] + state @ weights.recurrent
        fresh = np.tanh(gates[:, 2 * hidden : 3 * hidden])
        gates = 0.5 * np.tanh(0.5 * gates) + 0.5
        gates[:, 2 * hidden : 3 * hidden] = fresh
        before, cell_before = state, cell
        cell = gates[:, hidden : 2 * hidden] * cell + gates[:, :hidden] * fresh
        squashed = np.tanh(cell)
        state = gates[:, 3 * hidden :] * squashed
        steps.append(_Step(before, cell_before, gates, squashed))
    return state @ weights.head + weights.offset[0], state, steps


def _huber(error: Values) -> float:
    size = np.abs(error)
    return float(np.where(size <= 1, 0.5 * size**2, size - 0.5).mean())
