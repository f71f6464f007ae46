"""Two kinds of credentials at one door."""

from __future__ import annotations

from maru.auth.principal import Authenticator, Principal


class TokenOrKey:
    """Access tokens (JSON Web Tokens) go to one authenticator, all other credentials to the one for API keys."""

    def __init__(self, token: Authenticator, key: Authenticator) -> None:
        self._token = token
        self._key = key

    async def __call__(self, authorization: str | None) -> Principal:
        credential = (authorization or "").rpartition(" ")[2]
        # A token's first part is the base64 of a JSON object, and it has three parts.
        is_token = not authorization or (credential.startswith("eyJ") and credential.count(".") == 2)
        return await (self._token if is_token else self._key)(authorization)
