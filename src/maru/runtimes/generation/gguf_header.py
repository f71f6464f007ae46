"""Reading the header of a GGUF file, which is not trusted.

Native code sees a file only when its header has been read here to the end, in Python integers: every count, length,
type, size and place, and that the tensors' places follow one another, as llama.cpp writes them, within the file.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from maru.runtimes.errors import BadModelFile, UnsupportedModel

MAX_FIELDS = 1 << 16
MAX_TENSORS = 1 << 14
MAX_DIMENSIONS = 4
MAX_STRING_BYTES = 1 << 20
MAX_STRINGS = 1 << 21
"""How many texts all lists of a file may hold together: a large vocabulary with its merges has 800,000."""
MAX_NAME_BYTES = 128
MAX_ALIGNMENT = 4096
KEPT_ELEMENTS = 4096
"""Lists up to this length are kept. Of longer ones, vocabularies, the length alone is."""

_SCALARS = {
    0: struct.Struct("<B"), 1: struct.Struct("<b"), 2: struct.Struct("<H"), 3: struct.Struct("<h"),
    4: struct.Struct("<I"), 5: struct.Struct("<i"), 6: struct.Struct("<f"), 7: struct.Struct("<?"),
    10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d"),
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_DTYPES = {int(kind): (kind.name, *GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType}


@dataclass(frozen=True, slots=True)
class List:
    """A list in the header: its values, or None in place of the values when there are many."""

    length: int
    values: tuple[Any, ...] | None


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: how it is stored, its shape, and how many bytes it takes."""

    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What stands in a file's header."""

    fields: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> GgufHeader:
        """BadModelFile for anything but a sound file; UnsupportedModel for a version that is not 2 or 3."""
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe must not hold us up
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size < 24:
                    raise BadModelFile(f"{path.name} can't be read: it is too short to be a GGUF file")
                return _Reader(path.name, file, status.st_size).header()
        except OSError:
            raise BadModelFile(f"{path.name} is missing or can't be read") from None


class _Reader:
    """Goes through the header once, from the first byte on. Not through a mapping: a file that is cut off meanwhile
    would end the process."""

    def __init__(self, name: str, file: BinaryIO, size: int) -> None:
        self._name = name
        self._file = file
        self._size = size
        self._at = 0
        self._strings = 0

    def header(self) -> GgufHeader:
        if self._take(4) != b"GGUF":
            raise self._bad("it does not begin as a GGUF file does")
        version = self._number(_U32)
        if version not in (2, 3):
            raise UnsupportedModel(f"{self._name} is a GGUF file of a version other than 2 and 3, or big-endian")
        tensors, fields = self._number(_U64), self._number(_U64)
        if tensors > MAX_TENSORS or fields > MAX_FIELDS:
            raise self._bad("it claims more entries than a model has")
        found: dict[str, Any] = {}
        for _ in range(fields):
            key = self._text()
            if key in found:
                raise self._bad("a field stands twice")
            found[key] = self._value(self._number(_U32))
        return GgufHeader(found, self._tensors(tensors, found.get("general.alignment", 32)))

    def _tensors(self, count: int, alignment: Any) -> dict[str, Tensor]:
        if type(alignment) is not int or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise self._bad("its alignment is no small power of two")
        found: dict[str, Tensor] = {}
        expected = 0
        for _ in range(count):
            name = self._text(MAX_NAME_BYTES)
            if name in found:
                raise self._bad("a tensor stands twice")
            dimensions = self._number(_U32)
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                raise self._bad("a tensor has an impossible number of dimensions")
            shape = tuple(self._number(_U64) for _ in range(dimensions))
            tensor = self._tensor(shape, self._number(_U32))
            if self._number(_U64) != expected:
                raise self._bad("its tensors overlap or leave gaps")
            expected += -(-tensor.size // alignment) * alignment
            found[name] = tensor
        start = -(-self._at // alignment) * alignment
        last = next(reversed(found.values()), None)
        padding = -last.size % alignment if last else 0
        if start + expected - padding > self._size:
            raise self._bad("it ends before its tensors do")
        return found

    def _tensor(self, shape: tuple[int, ...], kind: int) -> Tensor:
        if kind not in _DTYPES:
            raise self._bad("a tensor's type is none that is known")
        dtype, block, bytes_per_block = _DTYPES[kind]
        if not all(1 <= length < 2**31 for length in shape) or shape[0] % block:
            raise self._bad("a tensor's shape is impossible")
        return Tensor(dtype, shape, math.prod(shape) // block * bytes_per_block)

    def _value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._list(self._number(_U32), self._number(_U64))
        raise self._bad("a field's type is none that is known")

    def _list(self, kind: int, length: int) -> List:
        if kind == _STRING:
            self._strings += length
            if self._strings > MAX_STRINGS:
                raise self._bad("its lists are too long")
            if length <= KEPT_ELEMENTS:
                return List(length, tuple(self._text() for _ in range(length)))
            self._pass(length)
            return List(length, None)
        if kind not in _SCALARS:
            raise self._bad("a list's type is none that is known")
        scalar = _SCALARS[kind]
        if length <= KEPT_ELEMENTS:
            return List(length, tuple(self._number(scalar) for _ in range(length)))
        self._skip(length * scalar.size)
        return List(length, None)

    def _pass(self, texts: int) -> None:
        """Go past texts as `_text` would, in half the time: there may be a million."""
        read, unpack, at = self._file.read, _U64.unpack, self._at
        for _ in range(texts):
            if at + 8 > self._size:
                raise self._bad("it ends within its header")
            (length,) = unpack(read(8))
            at += 8 + length
            if length > MAX_STRING_BYTES or at > self._size:
                raise self._bad("a text is too long")
            read(length)
        self._at = at

    def _text(self, most: int = MAX_STRING_BYTES) -> str:
        return self._take(self._length(most)).decode(errors="replace")

    def _length(self, most: int) -> int:
        length: int = self._number(_U64)
        if length > most:
            raise self._bad("a text is too long")
        return length

    def _number(self, form: struct.Struct) -> Any:
        return form.unpack(self._take(form.size))[0]

    def _take(self, size: int) -> bytes:
        self._go(size)
        data = self._file.read(size)
        if len(data) < size:
            raise self._bad("it became shorter")
        return data

    def _skip(self, size: int) -> None:
        self._go(size)
        self._file.seek(self._at)

    def _go(self, size: int) -> None:
        self._at += size
        if self._at > self._size:
            raise self._bad("it ends within its header")

    def _bad(self, what: str) -> BadModelFile:
        return BadModelFile(f"{self._name} can't be read: {what}")
