"""From a CSV of candles to a forecaster that has been measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from maru.services.forecast.training import graph
from maru.services.forecast.training.bundle import Bundle
from maru.services.forecast.training.data import Candles
from maru.services.forecast.training.errors import TrainingError
from maru.services.forecast.training.features import FEATURE_SETS
from maru.services.forecast.training.lstm import Schedule
from maru.services.forecast.training.record import metadata, moment
from maru.services.forecast.training.trainers import trainer
from maru.services.forecast.training.walk import Fitted, FoldReport, Walk
from maru.services.forecast.training.windows import Fold, Windows, walk_forward


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What can be chosen. Equal options and an equal file give an equal model on one machine."""

    csv: Path
    features: str = "btc18"
    trainer: str = "numpy"
    seq_len: int = 12
    epochs: int = 30
    seed: int = 0


class Progress(Protocol):
    """Is told how many epochs of a stage are done, and, when it is over, that all are: it may stop before."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class TrainedForecaster(Bundle):
    """The forecaster, which is the one that was measured on the holdout: it was not trained again afterwards.

    `folds` are in the order of time, the holdout last. `notes` are what a person should know of the data.
    """

    folds: tuple[FoldReport, ...]
    notes: tuple[str, ...]

    @property
    def holdout(self) -> FoldReport:
        return self.folds[-1]


class _Epochs:
    """Tells of those of one stage."""

    def __init__(self, progress: Progress, stage: str, total: int) -> None:
        self._progress = progress
        self._stage = stage
        self._total = total
        self._done = 0
        progress(stage, 0, total)

    def __call__(self) -> None:
        self._done += 1
        self._progress(self._stage, self._done, self._total)

    def over(self) -> None:
        self._progress(self._stage, self._total, self._total)


def train(options: TrainingOptions, progress: Progress) -> TrainedForecaster:
    """Train on each fold of a walk forward, measure each on what came after, and keep the last.

    The first is a rehearsal: it only says how far the second may be believed. TrainingError when the options or
    the file don't allow a training.
    """
    learn = trainer(options.trainer)
    features = FEATURE_SETS.get(options.features)
    if features is None:
        raise TrainingError(f"there is no feature set {options.features}; there are: {', '.join(FEATURE_SETS)}")
    if options.seq_len < 1 or options.epochs < 1 or options.seed < 0:
        raise TrainingError("a window and a training take at least one step, and a seed is not below zero")
    candles = Candles.read(options.csv)
    windows = Windows.cut(candles, features, options.seq_len)
    schedule = Schedule(epochs=options.epochs, seed=options.seed)
    folds = list(walk_forward(len(windows)))
    _check(windows, folds)
    walk = Walk(windows, features, learn, schedule)
    reports = []
    for number, fold in enumerate(folds):
        name = "rehearsal" if number == 0 else "holdout" if number == len(folds) - 1 else f"fold {number}"
        epochs = _Epochs(progress, name, schedule.epochs)
        fitted = walk.fit(fold, epochs)
        epochs.over()
        believed = walk.believed()
        described = metadata(candles, windows, fold, fitted.scaling, believed)
        model = graph.build(fitted.scaling, fitted.weights, believed, options.seq_len, **_labels(described))
        if number > 0:
            reports.append(walk.measured(name, fold, fitted, model, believed))
        walk.remember(fold, fitted)
    return TrainedForecaster(
        onnx=model,
        metadata=described,
        metrics=_metrics(reports),
        params=_params(options, schedule, fitted),
        folds=tuple(reports),
        notes=_notes(candles),
    )


def _check(windows: Windows, folds: list[Fold]) -> None:
    for fold in folds:
        for part in (fold.train, fold.validation, fold.test):
            if not windows[part].returns.any():
                when = moment(windows.time[part][0])
                raise TrainingError(f"the close never moves from {when:%Y-%m-%d %H:%M} UTC on: nothing to forecast")


def _labels(described: dict[str, Any]) -> dict[str, str]:
    """What the graph says of itself wherever it is found."""
    names = ("feature_set", "features", "close_index", "interval", "data_sha256")
    return {name: json.dumps(described[name]) for name in names}


def _metrics(reports: list[FoldReport]) -> dict[str, float]:
    """The holdout's figures, and what each fold's model was worth."""
    *folds, holdout = reports
    found = {f"holdout_{name}": value for name, value in holdout.evaluation.metrics().items()}
    found["holdout_unshrunk_mase"] = holdout.alone.mase
    found["shrinkage"] = holdout.shrinkage
    for report in folds:
        found[f"{report.name.replace(' ', '_')}_mase"] = report.evaluation.mase
    return found


def _params(options: TrainingOptions, schedule: Schedule, fitted: Fitted) -> dict[str, str | int | float]:
    chosen = {field.name: getattr(schedule, field.name) for field in fields(schedule)}
    return {
        "features": options.features,
        "trainer": options.trainer,
        "seq_len": options.seq_len,
        "epochs_run": fitted.epochs,
        **chosen,
    }


def _notes(candles: Candles) -> tuple[str, ...]:
    gaps = len(candles.runs()) - 1
    return (*candles.notes, *([f"the candles have {gaps} gaps, which no window spans"] if gaps else []))
