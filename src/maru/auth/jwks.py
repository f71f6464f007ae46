"""An issuer's public keys, fetched when they are needed and kept when the issuer is away."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from maru.auth.bearer import CannotVerify
from maru.auth.recent import Recent
from maru.engine.types import Clock

log = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[bytes]]
"""The bytes behind a URL, or an exception."""

KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

_ALGORITHMS = {("EC", "P-256"): "ES256", ("RSA", None): "RS256", ("OKP", "Ed25519"): "EdDSA"}
"""The one algorithm of each kind of key. A key with another, or a secret (`oct`), is none of ours."""

_MAX_BYTES = 65_536
_MAX_KEYS = 64
_MIN_RSA_BITS = 2048


class Jwks:
    """The verification keys behind one URL.

    After `fresh_s` the next use has them fetched in the background, and after `old_s` it waits for that; so a
    key that the issuer removed is used for `old_s` at most. A key id that is not among them has them fetched
    at once, but not within `pause_s` of the last time, and by one fetch however many tokens bear it. While
    the issuer does not answer the keys are used for `stale_s`.
    """

    def __init__(
        self,
        url: str,
        fetch: Fetch,
        *,
        fresh_s: float = 480.0,
        old_s: float = 540.0,
        stale_s: float = 86_400.0,
        pause_s: float = 30.0,
        timeout_s: float = 5.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.version = 0
        """Changes whenever the keys do."""
        self._url = url
        self._fetch = fetch
        self._fresh_s = fresh_s
        self._old_s = old_s
        self._stale_s = stale_s
        self._pause_s = pause_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._keys: dict[tuple[str, str], PyJWK] = {}
        self._seen: frozenset[tuple[str, str, str]] = frozenset()
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        self._failing = False
        self._unknown: Recent[str, bool] = Recent(1024, 2 * pause_s, clock)
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str, algorithm: str) -> PyJWK | None:
        """The key of that id, if it is one for `algorithm`. CannotVerify when that can't be known now."""
        age = self._clock() - self._fetched_at
        if age > self._stale_s:
            self._keys = {}
            await self._refresh(self._timeout_s)
            if self._fetched_at == -math.inf or self._clock() - self._fetched_at > self._stale_s:
                raise CannotVerify(retry_after_s=self._timeout_s)
        elif age > self._old_s and not self._failing:
            await self._refresh(self._pause_s)
        elif age > self._fresh_s:
            self._start(self._pause_s)
        if self._knows(kid):
            return self._keys.get((kid, algorithm))
        if self._unknown.get(kid):
            return None
        await self._refresh(self._pause_s)
        if not self._knows(kid):
            if self._failing:
                raise CannotVerify(retry_after_s=self._pause_s)
            self._unknown.put(kid, True)
        return self._keys.get((kid, algorithm))

    async def aclose(self) -> None:
        """Give up a fetch that is still under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _knows(self, kid: str) -> bool:
        return any((kid, algorithm) in self._keys for algorithm in _ALGORITHMS.values())

    async def _refresh(self, pause_s: float) -> None:
        self._start(pause_s)
        if self._fetching is not None:
            await asyncio.shield(self._fetching)

    def _start(self, pause_s: float) -> None:
        """Begin a fetch, unless one is under way or the last was begun less than `pause_s` ago."""
        now = self._clock()
        if self._fetching is None and now - self._tried_at >= pause_s:
            self._tried_at = now
            self._fetching = asyncio.create_task(self._load())

    async def _load(self) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._fetch(self._url)
            keys = _parse(body)
        except Exception as error:
            if not self._failing:
                log.warning("the token issuer's keys can't be fetched (%s)", type(error).__name__)
            self._failing = True
        else:
            if self._failing:
                log.info("the token issuer's keys can be fetched again")
            self._failing = False
            self._fetched_at = began
            self._replace(keys)
        finally:
            self._fetching = None

    def _replace(self, keys: dict[tuple[str, str], tuple[PyJWK, str]]) -> None:
        seen = frozenset((*name, material) for name, (_, material) in keys.items())
        self._keys = {name: key for name, (key, _) in keys.items()}
        if seen != self._seen:
            self._seen = seen
            self.version += 1
            self._unknown.clear()


def _parse(body: bytes) -> dict[tuple[str, str], tuple[PyJWK, str]]:
    """By id and algorithm, each usable key and the text it was made from. ValueError if it is no key set."""
    if len(body) > _MAX_BYTES:
        raise ValueError("the key set is too large")
    document = json.loads(body)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > _MAX_KEYS:
        raise ValueError("this is not a key set")
    keys: dict[tuple[str, str], tuple[PyJWK, str]] = {}
    for entry in entries:
        if isinstance(entry, dict) and (key := _usable(entry)) is not None:
            keys.setdefault((entry["kid"], key.algorithm_name), (key, json.dumps(entry, sort_keys=True)))
    return keys


def _usable(entry: dict[str, Any]) -> PyJWK | None:
    kty, crv, kid = entry.get("kty"), entry.get("crv"), entry.get("kid")
    if not (isinstance(kty, str) and (crv is None or isinstance(crv, str))):
        return None
    algorithm = _ALGORITHMS.get((kty, crv))
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not (isinstance(operations, list) and "verify" in operations):
        return None
    if not (isinstance(kid, str) and KEY_ID.fullmatch(kid)) or "d" in entry:
        return None
    try:
        key = PyJWK(entry, algorithm)
    except (PyJWTError, ValueError, TypeError):
        return None
    return key if getattr(key.key, "key_size", _MIN_RSA_BITS) >= _MIN_RSA_BITS or kty != "RSA" else None
