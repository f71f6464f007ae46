"""What the HTTP layer reports, once a request: the counterpart of `maru.engine.events` outside the engine."""

from __future__ import annotations

import re
from typing import NamedTuple

from maru.engine.types import CacheState, ModelRef, Request

UNMATCHED = "unmatched"
"""The route of a request whose path is none of ours. A raw path is never a route."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TRACEPARENT = re.compile("[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-|$)")


class HttpStarted(NamedTuple):
    """A request's head was read. Exactly one `HttpFinished` of the same service follows."""

    service: str


class HttpFinished(NamedTuple):
    """A response was sent whole, or its client left.

    `route` is the template as the service declares it ("/items/{id}/embedding", without the prefix it is
    mounted under) or `UNMATCHED`. `seconds` runs from the request's head to the response's last byte.
    `principal` is the caller's id, never a credential. `request` and `model` are what the engine was asked
    and which version answered, None if it never came to that. `error` is the machine code of a problem
    that was answered, `exception` what nobody foresaw behind a 500. `traceparent` is the header as it came.
    """

    service: str
    route: str
    method: str
    status: int
    seconds: float
    request_id: str
    principal: str
    bytes_out: int
    request: Request | None = None
    model: ModelRef | None = None
    cache: CacheState | None = None
    items: int = 0
    error: str | None = None
    exception: BaseException | None = None
    traceparent: str | None = None

    @property
    def verb(self) -> str:
        """The method, or OTHER for one that is no standard method: those are words of the client's own."""
        return self.method if self.method in _METHODS else "OTHER"

    @property
    def trace_id(self) -> str | None:
        """The trace this request is part of, where the client named one (W3C Trace Context)."""
        found = _TRACEPARENT.match(self.traceparent or "")
        return found[1] if found else None


HttpEvent = HttpStarted | HttpFinished
