"""What the embedding servers are asked, and whether what they answer is an answer."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import orjson

from bench.contenders import Contender
from bench.http1 import http_request
from bench.texts import Kind, texts

DIMENSION = 384
Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Workload:
    """`clients` that each keep one request of `size` texts in flight."""

    name: str
    kind: Kind
    clients: int
    size: int
    encoding: Literal["float", "base64"] = "float"

    def stream(self, round: int) -> str:
        return f"{self.name}/{round}"


WORKLOADS = (
    Workload("short x1, 16 clients", "short", 16, 1),
    Workload("mixed x1, 16 clients", "mixed", 16, 1),
    Workload("short x32, 4 clients", "short", 4, 32),
    Workload("mixed x32, 4 clients", "mixed", 4, 32),
    Workload("short x32 base64, 4 clients", "short", 4, 32, "base64"),
)


def vectors(body: bytes) -> Vectors:
    """The vectors in an answer, [n, dimension]."""
    found = [entry["embedding"] for entry in orjson.loads(body)["data"]]
    if isinstance(found[0], str):
        return np.stack([np.frombuffer(base64.b64decode(text), "<f4") for text in found])
    return np.asarray(found, np.float32)


class VectorCheck:
    """Every answer has `size` vectors of the right length.

    The first is read whole and its commas counted. Others with as many commas have its shape; the
    rest are read whole too.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._commas = -1

    def __call__(self, number: int, body: bytes) -> bool:
        commas = body.count(b",")
        if commas == self._commas and commas > DIMENSION:
            return True
        try:
            found = vectors(body)
        except (KeyError, ValueError, TypeError, IndexError):
            return False
        right = bool(found.shape == (self._size, DIMENSION))
        if right and not np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-3):
            return False
        self._commas = commas if right else -1
        return right


def requests(contender: Contender, port: int, workload: Workload, stream: str) -> Iterator[bytes]:
    """The workload in this contender's words."""
    source = texts(workload.kind, stream)
    host, headers = f"127.0.0.1:{port}", contender.headers()
    while True:
        asked = next(source) if workload.size == 1 else list(islice(source, workload.size))
        body = contender.body(asked)
        assert isinstance(body, dict)
        yield http_request(
            "POST",
            host,
            contender.path,
            orjson.dumps({**body, "encoding_format": workload.encoding}),
            headers,
        )
