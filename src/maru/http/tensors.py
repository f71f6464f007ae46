"""The messages of the Open Inference Protocol v2, in JSON and with its binary tensor extension.

https://github.com/kserve/open-inference-protocol (required REST API) and Triton's binary tensor data extension:
a JSON header of `Inference-Header-Content-Length` bytes, then the raw tensors, each as long as its
`binary_data_size`. Strings (BYTES) are each preceded by their length in four bytes, little-endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from maru.http.problem import Problem
from maru.http.strict_json import loads

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]  # fmt: skip

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}

HEADER_LENGTH = "inference-header-content-length"


class Tensor(BaseModel):
    """One tensor. `data` is flat or nested, in row-major order; absent when it follows as binary."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=128)
    shape: list[int] = Field(max_length=8)
    datatype: Datatype
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None
    _raw: bytes | None = PrivateAttr(None)

    def elements(self) -> int:
        if any(size < 0 for size in self.shape):
            raise _bad(f"input {self.name}: a dimension is negative")
        return math.prod(self.shape)

    def texts(self) -> list[str]:
        """The elements of a BYTES tensor, as text."""
        if self.datatype != "BYTES":
            raise _bad(f"input {self.name} must be BYTES")
        try:
            values = list(_strings(self._raw)) if self._raw is not None else _flat(self.data or [])
            texts = [value.decode() if isinstance(value, bytes) else value for value in values]
        except (UnicodeDecodeError, struct.error):
            raise _bad(f"input {self.name} is not UTF-8 text, each element preceded by its length") from None
        if not all(isinstance(text, str) for text in texts) or len(texts) != self.elements():
            raise _bad(f"input {self.name} must hold as many texts as its shape says")
        return texts

    def array(self) -> np.ndarray[Any, Any]:
        """The elements of a numeric tensor, in its shape."""
        if self.datatype == "BYTES":
            raise _bad(f"input {self.name} must be numeric")
        dtype = np.dtype(DTYPES[self.datatype])
        try:
            if self._raw is not None:
                return np.frombuffer(self._raw, dtype).reshape(self.shape)
            return np.asarray(self.data or [], dtype).reshape(self.shape)
        except (ValueError, TypeError, OverflowError):
            raise _bad(f"input {self.name} does not fit its shape and datatype") from None


class RequestedOutput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=128)
    parameters: dict[str, Any] | None = None


class InferenceRequest(BaseModel):
    """What is sent to `/v2/models/{model}/infer`."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(None, max_length=256)
    parameters: dict[str, Any] | None = None
    inputs: list[Tensor] = Field(min_length=1, max_length=64)
    outputs: list[RequestedOutput] | None = Field(None, max_length=64)

    @classmethod
    def read(cls, data: bytes, header_length: str | None) -> InferenceRequest:
        """From a body in either form."""
        if header_length is None:
            return cls.model_validate(loads(data))
        if not header_length.isdecimal() or int(header_length) > len(data):
            raise _bad("Inference-Header-Content-Length is not the length of the JSON header")
        request = cls.model_validate(loads(data[: int(header_length)]))
        place = int(header_length)
        for tensor in request.inputs:
            size = (tensor.parameters or {}).get("binary_data_size")
            if size is None:
                continue
            if not isinstance(size, int) or size < 0 or place + size > len(data):
                raise _bad(f"input {tensor.name}: binary_data_size does not fit the body")
            tensor._raw = data[place : place + size]
            place += size
        if place != len(data):
            raise _bad("the body is longer than its tensors")
        return request

    def tensor(self, name: str) -> Tensor:
        for tensor in self.inputs:
            if tensor.name == name:
                return tensor
        raise _bad(f"input {name} is missing")

    def wants_binary(self, output: str) -> bool:
        for asked in self.outputs or ():
            if asked.name == output and asked.parameters and "binary_data" in asked.parameters:
                return asked.parameters["binary_data"] is True
        return (self.parameters or {}).get("binary_data_output") is True


class InferenceResponse(BaseModel):
    """What comes back."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Tensor]


def encode(
    request: InferenceRequest, model: str, version: str, outputs: dict[str, np.ndarray[Any, Any]]
) -> tuple[bytes, dict[str, str], str]:
    """The body, headers and media type of the response with these numeric outputs."""
    wanted = [asked.name for asked in request.outputs or ()] or list(outputs)
    described: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for name in wanted:
        if name not in outputs:
            raise _bad(f"there is no output {name}")
        array = outputs[name]
        tensor: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": _datatype(array)}
        if request.wants_binary(name):
            binary.append(array.tobytes())
            tensor["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            tensor["data"] = array.ravel()
        described.append(tensor)
    content: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": described}
    if request.id is not None:
        content["id"] = request.id
    header = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binary:
        return header, {}, "application/json"
    return b"".join((header, *binary)), {HEADER_LENGTH: str(len(header))}, "application/octet-stream"


def _datatype(array: np.ndarray[Any, Any]) -> str:
    return next(name for name, dtype in DTYPES.items() if np.dtype(dtype) == array.dtype)


def _strings(raw: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(raw):
        (length,) = struct.unpack_from("<I", raw, place)
        place += 4 + length
        if place > len(raw):
            raise struct.error("truncated")
        yield raw[place - length : place]


def _flat(data: list[Any]) -> list[Any]:
    if not any(isinstance(element, list) for element in data):
        return data
    return [element for part in data for element in (_flat(part) if isinstance(part, list) else [part])]


def _bad(message: str) -> Problem:
    return Problem(400, "INVALID_TENSOR", message)
