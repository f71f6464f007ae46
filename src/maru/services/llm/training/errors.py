"""Why a language model can't be trained."""

from __future__ import annotations


class TrainingError(Exception):
    """The message is one line for the person at the terminal, and says what to do about it."""
