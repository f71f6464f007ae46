"""What can be wrong with a model's files.

ModelLoadFailed (engine)
├── BadModelFile        a file is damaged, hostile, or not what it says it is
├── UnsupportedModel    the files are sound, but this is no model that the runtime knows
└── ModelUnavailable    the files can't be had: no such model, no access, no network, no room
"""

from __future__ import annotations

from maru.engine.errors import ModelLoadFailed


class BadModelFile(ModelLoadFailed):
    """A model file is damaged, hostile, or not of its kind. The message names the file, never its folder."""


class UnsupportedModel(ModelLoadFailed):
    """An architecture or a setting that the runtime does not know. The message lists what it knows."""


class ModelUnavailable(ModelLoadFailed):
    """The model's files can't be had. The message says what to do about it."""
