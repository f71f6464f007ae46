"""All connections of one server, and what each of them may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection, and all of them together, may take. Times are seconds."""

    first_byte_s: float = 5.0
    head_s: float = 5.0
    idle_s: float = 5.0
    write_timeout_s: float = 5.0
    linger_s: float = 2.0
    max_header_bytes: int = 16 * 1024
    max_connections: int = 1000


class Departing(Protocol):
    """A connection that can be asked to close."""

    def finish(self) -> None: ...


class Crowd:
    """The connections of one server. Under pressure those without a request make room for new ones."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.waiting: dict[Departing, None] = {}
        """Connections without a request in progress, those that have waited longest first."""
        self.parting = False
        """Whether each connection is to be closed with its next response."""

    def make_room(self) -> bool:
        """Close the connection that has waited longest for its client's next request, if there is one."""
        longest = next(iter(self.waiting), None)
        if longest is None:
            return False
        longest.finish()
        return True
