"""A model's weights, by name and expected shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from maru.runtimes.errors import BadModelFile
from maru.runtimes.safetensors_file import SafetensorsFile

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})

Array = np.ndarray[Any, np.dtype[np.float32]]


class Weights:
    """The tensors of one file, less the prefix that some checkpoints put before every name."""

    def __init__(self, file: SafetensorsFile, anchor: str = "") -> None:
        """`anchor` is the name of a tensor that must be there: what stands before it is the prefix."""
        self._file = file
        self._prefix = ""
        if anchor:
            found = [name for name in file.tensors if name == anchor or name.endswith(f".{anchor}")]
            if len(found) != 1:
                raise BadModelFile(f"{file.name} is not of this architecture: it has no {anchor}")
            self._prefix = found[0].removesuffix(anchor)

    def __call__(self, name: str, *shape: int | None) -> Array:
        """A copy of one tensor as float32; a size of None may be any.

        BadModelFile when it is missing, of another shape, no float, or has a value that is no number.
        """
        place = self._file.tensors.get(self._prefix + name)
        if place is None:
            raise BadModelFile(f"{self._file.name} has no {name}")
        as_said = len(place.shape) == len(shape) and all(
            asked in (None, size) for size, asked in zip(place.shape, shape, strict=True)
        )
        if not as_said or place.dtype not in FLOATS:
            raise BadModelFile(f"{self._file.name}: {name} is not what config.json says")
        values = self._file.read(self._prefix + name).astype(np.float32, copy=False)
        if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
            raise BadModelFile(f"{self._file.name}: {name} holds a value that is not a number")
        return values
