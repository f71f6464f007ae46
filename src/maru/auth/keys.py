"""API keys: made once, shown once, and checked on every request."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from maru.auth.bearer import bearer, refused
from maru.auth.keyring import Keyring, utc_now
from maru.auth.principal import Forbidden, Principal
from maru.storage.api_keys import ApiKey, ApiKeys

EVERYTHING = "*"
"""The scope that holds all others."""

MIN_PLAIN_KEY = 16

_ALPHABET = string.digits + string.ascii_letters
_ID_LENGTH = 8
_SECRET_LENGTH = 43  # 43 · log2(62) = 256.03 bits
_KEY = re.compile(rf"maru_([0-9A-Za-z]{{{_ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}}")
_SCOPE = re.compile(r"[a-z][a-z0-9:._-]{0,63}|\*")
_PLAIN_KEY = re.compile(rf"[\x21-\x7e]{{{MIN_PLAIN_KEY},512}}")


@dataclass(frozen=True, slots=True)
class Minted:
    """A new key: what was stored, and `key`, which nobody will ever see again."""

    stored: ApiKey
    key: str = field(repr=False)


def covers(held: frozenset[str], needed: frozenset[str]) -> bool:
    """Whether the scopes `held` allow all that is `needed`."""
    return EVERYTHING in held or needed <= held


def mint(
    store: ApiKeys,
    name: str,
    scopes: Iterable[str],
    *,
    by: frozenset[str],
    weight: float = 1.0,
    life: timedelta | None = None,
    now: Callable[[], datetime] = utc_now,
) -> Minted:
    """Make and store a key for the caller `name`. `by` are the scopes of who makes it: Forbidden when the key
    is to have one they lack. ValueError says what is wrong with the rest. Blocks for about a millisecond.

    Keys of one name are one caller, whose limits and results outlive the change from one key to the next.
    """
    wanted = frozenset(scopes)
    if not name.strip() or len(name) > 64 or not name.isprintable():
        raise ValueError("the name of a key is 1 to 64 printable characters")
    if not all(_SCOPE.fullmatch(scope) for scope in wanted):
        raise ValueError(f"a scope is lower-case letters, digits and :._- or {EVERYTHING!r}")
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError("the weight of a key is a number above 0")
    if life is not None and life <= timedelta(0):
        raise ValueError("the life of a key is longer than nothing")
    if not covers(by, wanted):
        raise Forbidden("a key can't be given scopes that its maker lacks")
    created = now()
    while True:
        public_id = _random(_ID_LENGTH)
        key = f"maru_{public_id}_{_random(_SECRET_LENGTH)}"
        expires = None if life is None else created + life
        stored = ApiKey(public_id, _digest(key), name, wanted, weight, created, expires)
        if store.add(stored):
            return Minted(stored, key)


class KeyAuthenticator:
    """Takes `Authorization: Bearer <key>`.

    A key is one of `plain`, which someone else manages and which has the scopes `plain_scopes`, or one that
    `mint` made. Unauthorized without a key or with a wrong one; Forbidden with one that was revoked, has
    expired, or lacks a scope that is in `needs`; CannotVerify when the keyring's database is out of reach.
    """

    def __init__(
        self,
        keyring: Keyring | None = None,
        *,
        needs: Iterable[str] = (),
        plain: Iterable[str] = (),
        plain_scopes: Iterable[str] = (EVERYTHING,),
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._keyring = keyring
        self._needs = frozenset(needs)
        self._now = now
        self._nobody = secrets.token_bytes(32)
        scopes = frozenset(plain_scopes)
        self._plain: list[tuple[bytes, Principal]] = []
        for key in plain:
            if not _PLAIN_KEY.fullmatch(key):
                raise ValueError(f"a plain API key is {MIN_PLAIN_KEY} to 512 visible ASCII characters")
            digest = _digest(key)
            self._plain.append((digest, Principal(f"env:{digest.hex()[:8]}", scopes)))

    async def __call__(self, authorization: str | None) -> Principal:
        key = bearer(authorization)
        principal = self._by_plain_key(_digest(key)) or await self._by_stored_key(key)
        if not covers(principal.scopes, self._needs):
            raise Forbidden("this key does not have the scope that is needed here")
        return principal

    def _by_plain_key(self, digest: bytes) -> Principal | None:
        found = None
        for known, principal in self._plain:  # to the end, wherever the match is
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    async def _by_stored_key(self, key: str) -> Principal:
        match = _KEY.fullmatch(key)
        if match is None or self._keyring is None:
            raise refused()
        stored = await self._keyring.find(match[1])
        # An unknown id takes the same comparison as a known one.
        same = hmac.compare_digest(self._nobody if stored is None else stored.digest, _digest(key))
        if stored is None or not same:
            raise refused()
        if stored.revoked is not None:
            raise Forbidden("this key was revoked")
        if stored.expires is not None and stored.expires <= self._now():
            raise Forbidden("this key has expired")
        self._keyring.touch(stored.public_id)
        return Principal(f"key:{stored.name}", stored.scopes, stored.weight)


def _digest(key: str) -> bytes:
    # The key is 256 random bits: there is nothing to guess that a slow hash would slow down.
    return hashlib.sha256(key.encode()).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
