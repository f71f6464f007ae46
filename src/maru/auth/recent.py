"""A small memory with an end: so many entries, each for so long."""

from __future__ import annotations

from typing import Generic, TypeVar

from maru.engine.types import Clock

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The `size` entries put last, each for `ttl_s` seconds."""

    def __init__(self, size: int, ttl_s: float, clock: Clock) -> None:
        self._size = size
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: dict[K, tuple[float, V]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, unless it was never put, is too old, or had to make room."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry[0]:
            del self._entries[key]
            return None
        return entry[1]

    def put(self, key: K, value: V, since: float | None = None) -> None:
        """Remember `value`, counting its age from `since` (now, when not given)."""
        self._entries.pop(key, None)
        if len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = ((self._clock() if since is None else since) + self._ttl_s, value)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
