"""The trainers by name."""

from __future__ import annotations

from importlib.util import find_spec

from maru.services.forecast.training import lstm
from maru.services.forecast.training.errors import TrainerUnavailable, TrainingError
from maru.services.forecast.training.lstm import Trainer

NAMES = ("numpy", "torch")


def trainer(name: str) -> Trainer:
    """TrainingError for an unknown one, TrainerUnavailable when its package is not installed."""
    if name == "numpy":
        return lstm.train
    if name != "torch":
        raise TrainingError(f"there is no trainer {name}; there are: {', '.join(NAMES)}")
    if find_spec("torch") is None:
        raise TrainerUnavailable("torch is not installed: pip install torch, or train with --trainer numpy")
    from maru.services.forecast.training import torch_lstm

    return torch_lstm.train
