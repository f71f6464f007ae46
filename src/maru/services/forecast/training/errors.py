"""Why a forecaster can't be trained."""

from __future__ import annotations


class TrainingError(Exception):
    """The message is one line for the person at the terminal, and says what to do about it."""


class BadCandles(TrainingError):
    """The CSV is no table of candles. The message names the line and the column, never a value."""


class TooFewCandles(TrainingError):
    """The candles are sound, but there are not enough of them in a row."""


class TrainerUnavailable(TrainingError):
    """A trainer needs a package that is not installed."""
