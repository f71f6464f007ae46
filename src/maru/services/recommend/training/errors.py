"""Why a recommender can't be trained."""

from __future__ import annotations


class TrainingError(Exception):
    """The message is one line for the person at the terminal, and says what to do about it."""


class BadEvents(TrainingError):
    """A file holds no table of events. The message names file, row and column, never a value."""


class TooFewEvents(TrainingError):
    """The events are sound, but too few to learn from and to measure on."""


class RayUnavailable(TrainingError):
    """Ray is asked for and not installed."""
