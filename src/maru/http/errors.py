"""Which status code each error has. No other file knows."""

from __future__ import annotations

import math

from pydantic import ValidationError

from maru.auth import limits
from maru.auth.bearer import CannotVerify
from maru.auth.principal import AuthError, Forbidden, RateLimited, Unauthorized
from maru.engine.errors import (
    DeadlineExceeded,
    DeadlineUnreachable,
    Draining,
    EngineError,
    InputError,
    InputTooLong,
    ModelNotFound,
    ModelNotReady,
    NoRoom,
    OutOfMemory,
    QueueFull,
    Refused,
)
from maru.http.problem import Problem
from maru.http.strict_json import BadJson

_REFUSED: dict[type[Refused], tuple[int, str]] = {
    QueueFull: (429, "TOO_MANY_REQUESTS"),
    DeadlineUnreachable: (429, "TOO_MANY_REQUESTS"),
    ModelNotReady: (503, "MODEL_NOT_READY"),
    NoRoom: (503, "NO_ROOM"),
    Draining: (503, "SHUTTING_DOWN"),
}

MEANINGS = {
    400: "The request is malformed.",
    401: "Credentials are missing or invalid.",
    403: "These credentials are not allowed here.",
    404: "There is no such resource.",
    405: "The resource has no such method; `Allow` names those it has.",
    408: "The request arrived too slowly.",
    413: "The request or an input is too long.",
    415: "The content type is not supported.",
    422: "The request does not match its schema.",
    429: "Too many requests; `Retry-After` says when to come back.",
    431: "The request headers are too large.",
    500: "The server failed; the request id finds the cause in its log.",
    502: "What the request names elsewhere could not be fetched.",
    503: "Not ready; `Retry-After` says when to come back.",
    504: "The deadline passed before the answer was made.",
    507: "Out of memory.",
}


def problem_of(error: Exception, invalid_status: int) -> Problem:
    """The problem that an exception is to the caller. `invalid_status` is the service's for invalid input."""
    match error:
        case Problem():
            return error
        case Refused():
            return _refused(error)
        case RateLimited():
            after = {"retry_after": max(1, math.ceil(error.reset_s))}
            return Problem(429, "RATE_LIMITED", str(error), after, limits.headers(error))
        case AuthError():
            return _unauthenticated(error)
        case BadJson():
            return Problem(400, "BAD_REQUEST", str(error))
        case ValidationError():
            return Problem(invalid_status, "INVALID_INPUT", _said(error), {"fields": _fields(error)})
        case InputTooLong():
            return Problem(413, "INPUT_TOO_LONG", str(error))
        case InputError():
            return Problem(invalid_status, "INVALID_INPUT", str(error))
        case ModelNotFound():
            return Problem(404, "MODEL_NOT_FOUND", str(error))
        case DeadlineExceeded():
            return Problem(504, "TIMEOUT", str(error))
        case OutOfMemory():
            return Problem(507, "OUT_OF_MEMORY", "the server ran out of memory for this request")
        case EngineError():
            return Problem(500, "MODEL_FAILED", "the model could not answer")
        case _:
            return Problem(500, "INTERNAL_ERROR", "internal error")


def _refused(error: Refused) -> Problem:
    status, code = _REFUSED[type(error)]
    after = max(1, math.ceil(error.retry_after_s))
    details: dict[str, object] = {"retry_after": after}
    if error.estimated_wait_s is not None:
        details["estimated_wait_time"] = round(error.estimated_wait_s, 3)
    return Problem(status, code, str(error), details, {"retry-after": str(after)})


def _unauthenticated(error: AuthError) -> Problem:
    if isinstance(error, Forbidden):
        challenge = 'Bearer error="insufficient_scope"'
        return Problem(403, "FORBIDDEN", str(error), headers={"www-authenticate": challenge})
    if isinstance(error, Unauthorized):
        challenge = f'Bearer error="{error.error}"' if error.error else "Bearer"
        return Problem(401, "UNAUTHORIZED", str(error), headers={"www-authenticate": challenge})
    after = math.ceil(error.retry_after_s) if isinstance(error, CannotVerify) else 5
    return Problem(503, "AUTH_UNAVAILABLE", str(error), headers={"retry-after": str(after)})


def _fields(error: ValidationError) -> list[dict[str, str]]:
    """Where and what, never what was sent."""
    return [
        {"loc": ".".join(str(part)[:64] for part in each["loc"][:8]), "type": each["type"], "message": each["msg"]}
        for each in error.errors(include_url=False, include_context=False, include_input=False)[:10]
    ]


def _said(error: ValidationError) -> str:
    fields = _fields(error)
    return "; ".join(": ".join(filter(None, (field["loc"], field["message"]))) for field in fields[:3])
