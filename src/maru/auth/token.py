"""Tokens for development, shaped like those of Supabase Auth."""

from __future__ import annotations

import time
import uuid

import jwt

from maru.auth.supabase import MIN_SECRET_BYTES
from maru.engine.types import Clock


def issue(
    secret: str,
    sub: str,
    life_s: float = 3600.0,
    *,
    issuer: str | None = None,
    email: str = "",
    now: Clock = time.time,
) -> str:
    """An access token for the user `sub`, signed by HS256 with `secret` and good for `life_s` seconds.

    Give `issuer` where SUPABASE_URL is set: its `/auth/v1`. The token is as good as one of Supabase's own:
    whoever holds the secret can be anyone.
    """
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"SUPABASE_JWT_SECRET must have {MIN_SECRET_BYTES} bytes at least")
    if not life_s > 0:
        raise ValueError("the life of a token is longer than nothing")
    begins = int(now())
    claims = {
        "aud": "authenticated",
        "exp": begins + int(life_s),
        "iat": begins,
        "sub": sub,
        "email": email,
        "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {},
        "role": "authenticated",
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": begins}],
        "session_id": str(uuid.uuid4()),
        "is_anonymous": False,
    }
    if issuer is not None:
        claims["iss"] = issuer
    return jwt.encode(claims, secret, algorithm="HS256")
