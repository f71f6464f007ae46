"""Reading weights from safetensors files, which are not trusted.

The header is checked whole before anything is read from the file, in Python integers: its size, its keys, the
dtypes, and that the tensors' places follow one another from the first byte of data to the last. bfloat16,
which numpy does not know, is read too.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import ml_dtypes
import numpy as np

from maru.runtimes.errors import BadModelFile

MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 1 << 14
MAX_DIMENSIONS = 4

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where one tensor's bytes are: `start` and `stop` count from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """One file, mapped into memory and checked. Opening raises BadModelFile for anything but a sound file."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 8:
                raise self._bad("it is too short to be a safetensors file")
            self.tensors = self._read_header(file, size)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map.close()

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """A copy of one tensor, in the dtype it is stored in. KeyError when there is none of that name."""
        place = self.tensors[name]
        count = math.prod(place.shape)
        mapped = np.frombuffer(self._map, DTYPES[place.dtype], count, place.start) if count else np.empty(0)
        return mapped.astype(DTYPES[place.dtype]).reshape(place.shape)

    def _read_header(self, file: BinaryIO, size: int) -> dict[str, TensorPlace]:
        """Not through the mapping: a file that is cut off while it is looked at would end the process."""
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        if length > MAX_HEADER_BYTES or 8 + length > size:
            raise self._bad("its header is longer than a header may be, or than the file")
        header = self._parse(file.read(length))
        places = dict(self._places(header, 8 + length, size))
        end = 8 + length
        for place in sorted(places.values(), key=lambda place: (place.start, place.stop)):
            if place.start != end:
                raise self._bad("its tensors overlap or leave gaps")
            end = place.stop
        if end != size:
            raise self._bad("its tensors do not fill the file")
        return places

    def _parse(self, text: bytes) -> dict[str, Any]:
        if not text.startswith(b"{"):
            raise self._bad("it has no safetensors header")
        try:
            header = json.loads(text.decode(), object_pairs_hook=_unique)
        except (ValueError, RecursionError):
            raise self._bad("its header is not the JSON of a header") from None
        if not isinstance(header, dict) or len(header) > MAX_TENSORS:
            raise self._bad("its header is not that of a model")
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise self._bad("its metadata is not text")
        return header

    def _places(self, header: dict[str, Any], base: int, size: int) -> Iterator[tuple[str, TensorPlace]]:
        for name, entry in header.items():
            match entry:
                case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)]}:
                    pass
                case _:
                    raise self._bad("a tensor is not described as one")
            if dtype not in DTYPES:
                raise self._bad(f"a tensor's dtype is none of {', '.join(DTYPES)}")
            if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n <= size for n in shape):
                raise self._bad("a tensor's shape is impossible")
            needed = math.prod(shape) * DTYPES[dtype].itemsize
            if stop - start != needed or not 0 <= start <= stop <= size - base:
                raise self._bad("a tensor's place does not fit its shape or the file")
            yield name, TensorPlace(dtype, tuple(shape), base + start, base + stop)

    def _bad(self, what: str) -> BadModelFile:
        return BadModelFile(f"{self.name} can't be read: {what}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a key stands twice")
    return names
