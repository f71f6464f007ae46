"""What a training found, for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from maru.services.forecast.training.evaluation import Evaluation
from maru.services.forecast.training.train import TrainedForecaster
from maru.services.forecast.training.walk import FoldReport

NONE = "–"

ROWS: tuple[tuple[str, Callable[[FoldReport], str]], ...] = (
    ("from", lambda fold: f"{fold.begins:%Y-%m-%d}"),
    ("to", lambda fold: f"{fold.ends:%Y-%m-%d}"),
    ("windows", lambda fold: f"{fold.evaluation.windows:,}"),
    ("shrinkage", lambda fold: f"{fold.shrinkage:.3f}"),
    ("MASE", lambda fold: f"{fold.evaluation.mase:.4f}"),
    ("MASE unshrunk", lambda fold: f"{fold.alone.mase:.4f}"),
    ("RMSE skill", lambda fold: f"{fold.evaluation.rmse_skill:+.4f}"),
    ("MAE", lambda fold: f"{fold.evaluation.mae:,.6g}"),
    ("MAE of the last close", lambda fold: f"{fold.evaluation.persistence_mae:,.6g}"),
    ("directions right", lambda fold: _directions(fold.evaluation)),
    ("95% interval", lambda fold: _interval(fold.evaluation)),
    ("Diebold-Mariano", lambda fold: _statistic(fold.evaluation)),
    ("p", lambda fold: _chance(fold.evaluation)),
)
LEGEND = (
    "Everything is beside the forecast that the close stays as it is. MASE: mean absolute error over that forecast's, "
    "below 1 is better. Shrinkage: the share of the network's answer in the forecast, 0 is the last close. "
    "RMSE skill: above 0 is better. Diebold-Mariano: below 0 is better."
)


def table(trained: TrainedForecaster) -> Table:
    """For a terminal."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("")
    for name in _names(trained):
        shown.add_column(name, justify="right", style="bold" if name == trained.holdout.name else "")
    for label, cells in _rows(trained):
        shown.add_row(label, *cells)
    return shown


def markdown(trained: TrainedForecaster) -> str:
    """For a file beside the model."""
    names = _names(trained)
    lines = ["| |" + "|".join(f" {name} " for name in names) + "|", "|---|" + "---:|" * len(names)]
    lines += [f"| {label} | " + " | ".join(cells) + " |" for label, cells in _rows(trained)]
    return "\n".join(["# Training report", "", *lines, "", LEGEND, "", *trained.notes, verdict(trained), ""])


def verdict(trained: TrainedForecaster) -> str:
    """The one sentence that counts."""
    evaluation, believed = trained.holdout.evaluation, trained.holdout.shrinkage
    if believed == 0:
        return (
            "What the network had answered in the folds before could not be told from noise: the model forecasts the "
            "last close. More candles may change that."
        )
    off = abs(1 - evaluation.mase)
    if evaluation.mase > 1:
        return f"On the holdout the forecasts are {off:.2%} worse than the last close."
    test = evaluation.diebold_mariano
    doubt = "" if test and test.p_value < 0.05 else ", which may be chance"
    return f"On the holdout the forecasts are {off:.2%} better than the last close{doubt}."


def _names(trained: TrainedForecaster) -> list[str]:
    return [fold.name for fold in trained.folds]


def _rows(trained: TrainedForecaster) -> Sequence[tuple[str, list[str]]]:
    return [(label, [cell(fold) for fold in trained.folds]) for label, cell in ROWS]


def _directions(evaluation: Evaluation) -> str:
    found = evaluation.directions
    return f"{found.accuracy:.3f}" if found else NONE


def _interval(evaluation: Evaluation) -> str:
    found = evaluation.directions
    return f"{found.low:.3f}–{found.high:.3f}" if found else NONE


def _statistic(evaluation: Evaluation) -> str:
    found = evaluation.diebold_mariano
    return f"{found.statistic:+.2f}" if found else NONE


def _chance(evaluation: Evaluation) -> str:
    found = evaluation.diebold_mariano
    return f"{found.p_value:.3f}" if found else NONE
