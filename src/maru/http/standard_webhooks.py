"""Signed webhooks, as the Standard Webhooks specification has them, and MLflow with headers of its own.

What is signed is `id.timestamp.body` with HMAC-SHA256, so that nobody can change or make one without the key,
nor send an old one again later than the tolerance.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass

TOLERANCE_S = 300.0
"""How far the clock of who signed may be from ours."""

_PREFIX = "whsec_"


class BadSignature(Exception):
    """Not signed with this key, or not lately. What exactly is wrong is told to nobody."""


@dataclass(frozen=True, slots=True)
class Headers:
    """The names of the three headers, in lower case."""

    id: str
    timestamp: str
    signature: str

    def names(self) -> tuple[str, str, str]:
        return self.id, self.timestamp, self.signature


STANDARD = Headers("webhook-id", "webhook-timestamp", "webhook-signature")
MLFLOW = Headers("x-mlflow-delivery-id", "x-mlflow-timestamp", "x-mlflow-signature")


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: what follows `whsec_` is base64; any other secret is its own UTF-8.

    ValueError, which does not show the secret, when what follows is not base64.
    """
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("what follows whsec_ in a webhook secret must be base64") from None


def sign(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """The value of the signature header. `timestamp` is in Unix seconds."""
    return _signature(key, id, str(timestamp), body)


def verify(
    key: bytes,
    body: bytes,
    *,
    id: str | None,
    timestamp: str | None,
    signature: str | None,
    now: float,
    tolerance_s: float = TOLERANCE_S,
) -> None:
    """Raise BadSignature unless one of the signatures, which stand in one header with spaces between them, is that
    of `body` under `key`, made within `tolerance_s` of `now` (Unix seconds). Takes the same time for any signature."""
    if not id or not signature or timestamp is None or len(timestamp) > 12 or not timestamp.isascii():
        raise BadSignature
    if not timestamp.isdecimal() or abs(now - int(timestamp)) > tolerance_s:
        raise BadSignature
    expected = _signature(key, id, timestamp, body).encode()
    matches = [hmac.compare_digest(expected, given.encode()) for given in signature.split(" ")]
    if not any(matches):
        raise BadSignature


def _signature(key: bytes, id: str, timestamp: str, body: bytes) -> str:
    digest = hmac.digest(key, f"{id}.{timestamp}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(digest).decode()
