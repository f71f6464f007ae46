"""A problem as every service knows it, before it is put into that service's own error shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.responses import Response


@dataclass(slots=True)
class Problem(Exception):
    """An answer that is an error. `code` is the machine's word for it, `message` is written for the caller.

    Nothing of the request's body, no path and no traceback may stand in `message` or `details`.
    """

    status: int
    code: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


Envelope = Callable[[Problem], Mapping[str, Any]]
"""Puts a problem into a document's own error shape."""


def detail(problem: Problem) -> dict[str, Any]:
    """FastAPI's own shape, which documents 001 and 003 use."""
    return {"detail": problem.message}


def respond(problem: Problem, envelope: Envelope, request_id: str = "") -> Response:
    """The response for a problem, in that shape."""
    if request_id:
        problem.details.setdefault("request_id", request_id)
    return Response(
        orjson.dumps(envelope(problem)),
        problem.status,
        {**problem.headers, "cache-control": "no-store"},
        "application/json",
    )
