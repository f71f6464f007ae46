"""The vectors of sessions that were recommended for."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from maru.engine.types import Clock

Vector = np.ndarray[Any, np.dtype[np.float32]]

KEPT_S = 24 * 3600.0
MOST = 100_000
"""Of a kilobyte each."""


class Embedding(NamedTuple):
    """A vector, and the version of the model in whose space it lies."""

    vector: Vector
    version: str


class Sessions:
    """Each session's latest vector, for `kept_s` seconds; at most `most`, and those not seen for longest go first."""

    def __init__(self, clock: Clock, most: int = MOST, kept_s: float = KEPT_S) -> None:
        self._clock = clock
        self._most = most
        self._kept_s = kept_s
        self._seen: OrderedDict[int, tuple[float, bytes, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def put(self, session_id: int, vector: Vector, version: str) -> None:
        """Remember it from now on, in place of what was known before."""
        now = self._clock()
        self._seen.pop(session_id, None)
        self._seen[session_id] = (now + self._kept_s, vector.tobytes(), version)
        while self._seen and (len(self._seen) > self._most or self._first_ends() <= now):
            self._seen.popitem(last=False)

    def get(self, session_id: int) -> Embedding | None:
        found = self._seen.get(session_id)
        if found is None or found[0] <= self._clock():
            return None
        return Embedding(np.frombuffer(found[1], np.float32), found[2])

    def _first_ends(self) -> float:
        return next(iter(self._seen.values()))[0]
