"""What every authenticator does first: read the Authorization header."""

from __future__ import annotations

import re

from maru.auth.principal import AuthError, Unauthorized

MAX_CREDENTIAL_BYTES = 8192

_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([\x21-\x7e]+)")


class CannotVerify(AuthError):
    """The credentials could not be checked, because what they are checked against can't be reached. They may
    be good: the same request may be sent again after `retry_after_s`."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("credentials cannot be checked at the moment")
        self.retry_after_s = retry_after_s


def refused() -> Unauthorized:
    """The one answer to every bad credential: why it is bad is told to nobody."""
    return Unauthorized("the credentials are not valid")


def bearer(authorization: str | None) -> str:
    """The credential of an Authorization header: 1 to 8,192 visible ASCII characters after `Bearer`."""
    if not authorization:
        raise Unauthorized("credentials are required: Authorization: Bearer <credential>", error=None)
    if len(authorization) > len("Bearer ") + MAX_CREDENTIAL_BYTES:
        raise refused()
    match = _BEARER.fullmatch(authorization.strip(" \t"))
    if match is None:
        raise refused()
    return match[1]
