"""Why a style model can't be made."""

from __future__ import annotations


class TrainingError(Exception):
    """The message is one line for the person at the terminal, and says what to do about it."""


class BadLexicon(TrainingError):
    """The lexicon or the templates are not as they must be. The message names the place."""


class BadImages(TrainingError):
    """The folder of labelled images can't be learnt from."""


class TrainerUnavailable(TrainingError):
    """Training needs a package that is not installed."""
