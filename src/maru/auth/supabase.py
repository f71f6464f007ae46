"""Users of a Supabase project, by the access tokens that Supabase Auth gives them."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass
from typing import Any

from jwt import PyJWK
from jwt.algorithms import Algorithm, get_default_algorithms

from maru.auth.bearer import bearer, refused
from maru.auth.jwks import KEY_ID, Fetch, Jwks
from maru.auth.jwt import Jwt, Malformed, parse
from maru.auth.principal import Principal
from maru.auth.recent import Recent
from maru.engine.types import Clock

MIN_SECRET_BYTES = 32
MAX_LEEWAY_S = 30.0
A_WEEK_S = 604_800.0

_HEADER_NAMES = {"alg", "typ", "kid"}
_TYPES = {"jwt", "at+jwt"}
_SUBJECT = re.compile(r"[\x21-\x7e]{1,255}")
_REMEMBERED_S = 60.0
_REMEMBERED = 4096

_Verified = tuple[Principal, float, int]
"""A principal, when its token ends, and by which version of the keys that is known."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is asked of the claims of one issuer's tokens. `issuer` None asks nothing of `iss`."""

    issuer: str | None
    audience: str = "authenticated"
    role: str = "authenticated"
    leeway_s: float = 10.0
    max_life_s: float = A_WEEK_S
    anonymous: bool = False

    def subject(self, claims: dict[str, Any], now: float) -> str | None:
        """Whose token this is, or None when a claim is not as it must be."""
        sub = claims.get("sub")
        if not (isinstance(sub, str) and _SUBJECT.fullmatch(sub)):
            return None
        sound = (
            claims.get("role") == self.role
            and self._is_for_us(claims.get("aud"))
            and (self.issuer is None or claims.get("iss") == self.issuer)
            and self._is_now(claims, now)
            and self._is_known(claims.get("is_anonymous", False))
        )
        return sub if sound else None

    def _is_known(self, anonymous: object) -> bool:
        return anonymous is False or (self.anonymous and anonymous is True)

    def _is_for_us(self, audience: object) -> bool:
        if isinstance(audience, list):
            return all(isinstance(one, str) for one in audience) and self.audience in audience
        return audience == self.audience

    def _is_now(self, claims: dict[str, Any], now: float) -> bool:
        times = {name: claims[name] for name in ("exp", "iat", "nbf") if name in claims}
        if "exp" not in times or not all(_is_number(value) for value in times.values()):
            return False
        issued = times.get("iat", now)
        begun = max(issued, times.get("nbf", issued)) <= now + self.leeway_s
        over = now >= times["exp"] + self.leeway_s
        return bool(begun and not over and times["exp"] - issued <= self.max_life_s)


class SupabaseAuthenticator:
    """Takes `Authorization: Bearer <access token of a signed-in user>`; the principal is `user:<sub>`.

    With `secret` (SUPABASE_JWT_SECRET, 32 bytes at least) tokens signed by HS256 are taken, and with `url`
    (SUPABASE_URL) and `fetch` those signed by the project's ES256, RS256 and EdDSA keys, which are fetched
    from the project. A key has one algorithm, and no token chooses another.

    What a token must have is what Supabase's own always have: `typ` JWT, `sub`, `exp`, `aud` and `role`
    "authenticated" (the anon and service keys are tokens too, and are refused), `is_anonymous` not true, and,
    when `url` is given, `iss` equal to `{url}/auth/v1` or to `issuer`, for projects that call themselves by
    another name than the one they are reached by. `iat` and `nbf` are checked when they are there. Supabase
    promises no `jti` and lets a project choose up to a week of life, so neither `jti` nor less is asked.

    Anything else is Unauthorized, in the same words for every cause; CannotVerify says that the project's
    keys can't be had. A verified token is remembered for a minute or until it expires.
    """

    def __init__(
        self,
        secret: str | None = None,
        url: str | None = None,
        fetch: Fetch | None = None,
        *,
        issuer: str | None = None,
        leeway_s: float = 10.0,
        max_life_s: float = A_WEEK_S,
        anonymous: bool = False,
        scopes: frozenset[str] = frozenset(),
        now: Clock = time.time,
        clock: Clock = time.monotonic,
    ) -> None:
        if secret is None and fetch is None:
            raise ValueError("SUPABASE_JWT_SECRET or SUPABASE_URL must be set")
        if secret is not None and len(secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"SUPABASE_JWT_SECRET must have {MIN_SECRET_BYTES} bytes at least")
        if not 0 <= leeway_s <= MAX_LEEWAY_S:
            raise ValueError(f"the leeway is 0 to {MAX_LEEWAY_S:g} seconds")
        project = None if url is None else f"{url.rstrip('/')}/auth/v1"
        if fetch is not None and project is None:
            raise ValueError("SUPABASE_URL must be set for the project's keys to be fetched")
        self._policy = Policy(issuer or project, leeway_s=leeway_s, max_life_s=max_life_s, anonymous=anonymous)
        self._secret = None if secret is None else secret.encode()
        self._jwks = None
        if fetch is not None:
            self._jwks = Jwks(f"{project}/.well-known/jwks.json", fetch, clock=clock)
        self._hs256 = get_default_algorithms()["HS256"]
        self._scopes = scopes
        self._now = now
        self._verified: Recent[bytes, _Verified] = Recent(_REMEMBERED, _REMEMBERED_S, clock)

    async def __call__(self, authorization: str | None) -> Principal:
        token = bearer(authorization)
        # The whole token's digest: a part of it as the name would let one token pass for another.
        name = hashlib.sha256(token.encode()).digest()
        remembered = self._verified.get(name)
        if remembered is not None and remembered[2] == self._version:
            principal, ends, _ = remembered
            if self._now() < ends:
                return principal
            raise refused()
        try:
            principal, ends = await self._verify(parse(token))
        except Malformed:
            raise refused() from None
        self._verified.put(name, (principal, ends, self._version))
        return principal

    async def aclose(self) -> None:
        """Give up fetching keys."""
        if self._jwks is not None:
            await self._jwks.aclose()

    @property
    def _version(self) -> int:
        return 0 if self._jwks is None else self._jwks.version

    async def _verify(self, token: Jwt) -> tuple[Principal, float]:
        """Who the token speaks for, and when it ends."""
        header = token.header
        typ, alg, kid = header.get("typ"), header.get("alg"), header.get("kid")
        # No other header means anything to us; those that bring a key or must be understood are traps.
        if not header.keys() <= _HEADER_NAMES or not (isinstance(typ, str) and typ.lower() in _TYPES):
            raise refused()
        if not isinstance(alg, str) or not ("kid" not in header or _is_key_id(kid)):
            raise refused()
        sub = self._policy.subject(token.claims, self._now())
        if sub is None:
            raise refused()
        key = await self._key(alg, kid)
        if key is None or not key[0].verify(token.signed, key[1], token.signature):
            raise refused()
        return Principal(f"user:{sub}", self._scopes), token.claims["exp"] + self._policy.leeway_s

    async def _key(self, alg: str, kid: str | None) -> tuple[Algorithm, Any] | None:
        if alg == "HS256":
            return None if self._secret is None else (self._hs256, self._secret)
        if self._jwks is None or kid is None:
            return None
        key: PyJWK | None = await self._jwks.find(kid, alg)
        return None if key is None else (key.Algorithm, key.key)


def _is_number(value: object) -> bool:
    # By comparison: an integer of a thousand digits is too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _is_key_id(kid: object) -> bool:
    return isinstance(kid, str) and KEY_ID.fullmatch(kid) is not None
