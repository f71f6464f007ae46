"""Walking forward through the candles: train, forecast what comes next, learn how far that could be believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from maru.services.forecast.training import graph
from maru.services.forecast.training.evaluation import Evaluation
from maru.services.forecast.training.features import FeatureSet
from maru.services.forecast.training.lstm import Schedule, Trainer, Values, Weights
from maru.services.forecast.training.record import moment
from maru.services.forecast.training.scaling import Scaling
from maru.services.forecast.training.shrinkage import shrinkage
from maru.services.forecast.training.windows import Fold, Windows


@dataclass(frozen=True, slots=True)
class FoldReport:
    """One model of the walk: how far its answers were believed, and what it was worth on its test.

    `begins` and `ends` are the first and the last bar of the test from which a forecast was made. `alone` is
    what the network's answers would have been worth, had they been believed whole.
    """

    name: str
    begins: datetime
    ends: datetime
    shrinkage: float
    evaluation: Evaluation
    alone: Evaluation


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A network, the scaling around it, and after how many epochs its training stopped."""

    scaling: Scaling
    weights: Weights
    epochs: int

    def answers(self, windows: Windows) -> Values:
        return self.weights.answers(self.scaling.inputs(windows.inputs))


class Walk:
    """The models of one training, in the order of time.

    How far a model's answers are believed is learnt from the tests of the models before it: nothing of those was
    known to the models that answered, nor chosen by them, and nothing of it is later than the model's own test.
    """

    def __init__(self, windows: Windows, features: FeatureSet, learn: Trainer, schedule: Schedule) -> None:
        self._windows = windows
        self._features = features
        self._learn = learn
        self._schedule = schedule
        self._answers: list[Values] = []
        self._targets: list[Values] = []

    def fit(self, fold: Fold, tick: Callable[[], None]) -> Fitted:
        """A network for the fold. `tick` is told of every epoch."""
        epochs = 0

        def counted() -> None:
            nonlocal epochs
            epochs += 1
            tick()

        train, validation = self._windows[fold.train], self._windows[fold.validation]
        scaling = Scaling.fit(train, self._features)
        seen = scaling.inputs(train.inputs), scaling.targets(train)
        held = scaling.inputs(validation.inputs), scaling.targets(validation)
        return Fitted(scaling, self._learn(seen, held, self._schedule, counted), epochs)

    def believed(self) -> float:
        """The shrinkage that the tests so far allow; 0 before the first."""
        return shrinkage(np.concatenate(self._answers), np.concatenate(self._targets)) if self._answers else 0.0

    def remember(self, fold: Fold, fitted: Fitted) -> None:
        """Take the fold's test for what the next models may be believed."""
        test = self._windows[fold.test]
        self._answers.append(fitted.answers(test))
        self._targets.append(fitted.scaling.targets(test))

    def measured(self, name: str, fold: Fold, fitted: Fitted, model: bytes, believed: float) -> FoldReport:
        """What the graph, as onnxruntime will serve it, is worth on the fold's test."""
        test = self._windows[fold.test]
        alone = fitted.scaling.prices(fitted.answers(test), test.last, 1.0)
        return FoldReport(
            name=name,
            begins=moment(test.time[0]),
            ends=moment(test.time[-1]),
            shrinkage=believed,
            evaluation=Evaluation.of(graph.answers(model, test.inputs), test.next, test.last),
            alone=Evaluation.of(alone, test.next, test.last),
        )
