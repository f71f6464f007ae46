"""Who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose credentials were checked. `id` is stable, and names the tenant for fair shares, limits
    and the cache; `weight` is its share of a busy model beside other callers."""

    id: str
    scopes: frozenset[str] = frozenset()
    weight: float = 1.0


ANONYMOUS = Principal("anonymous")


class AuthError(Exception):
    """The caller is not who they say, or may not do this. The message is for the caller and tells no secret."""


class Unauthorized(AuthError):
    """No credentials, or bad ones. `error` is RFC 6750's word: None when no credentials were sent."""

    def __init__(self, message: str, error: str | None = "invalid_token") -> None:
        super().__init__(message)
        self.error = error


class Forbidden(AuthError):
    """Known, but not allowed here: revoked, expired, or without the scope."""


class RateLimited(AuthError):
    """The caller's rate is spent. `reset_s` seconds until the next request will be taken."""

    def __init__(self, limit: int, window_s: int, reset_s: float) -> None:
        super().__init__(f"rate limit of {limit} requests per {window_s} s exceeded")
        self.limit = limit
        self.window_s = window_s
        self.reset_s = reset_s


class Authenticator(Protocol):
    """Turns the value of the Authorization header (None when absent) into a principal, or raises AuthError."""

    async def __call__(self, authorization: str | None) -> Principal: ...
