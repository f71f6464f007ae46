"""The project's keys: when they are fetched, how often, and what is done when they can't be."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Any

import pytest
from aiohttp import ClientSession, web

from maru.auth.bearer import CannotVerify
from maru.auth.jwks import Jwks
from maru.auth.principal import Unauthorized
from maru.auth.supabase import SupabaseAuthenticator

from . import forge
from .forge import NOW, PROJECT, USER, claims, header, jwk, sign
from .hand_clock import HandClock

ONE, TWO, THREE = jwk(forge.EC, "one"), jwk(forge.EC_STRANGER, "two"), jwk(forge.RSA, "three")


class Issuer:
    """The far end: a key set that can be changed, taken away or made slow, and a count of who asked."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.fetches = 0
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.publish(*keys)

    def publish(self, *keys: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": keys}).encode()

    async def __call__(self, _: str) -> bytes:
        self.fetches += 1
        await self.gate.wait()
        if self.down:
            raise OSError("no route")
        return self.body


async def settled() -> None:
    """Let what runs in the background run."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_nothing_is_fetched_before_a_token_needs_it(clock: HandClock) -> None:
    async def scenario() -> None:
        issuer = Issuer(ONE)
        keys = Jwks("u", issuer, clock=clock)
        await settled()
        assert issuer.fetches == 0
        assert await keys.find("one", "ES256") is not None
        assert issuer.fetches == 1

    asyncio.run(scenario())


def test_fresh_keys_are_found_without_leaving_the_event_loop(clock: HandClock) -> None:
    async def scenario() -> None:
        keys = Jwks("u", Issuer(ONE), clock=clock)
        await keys.find("one", "ES256")
        with pytest.raises(StopIteration):
            keys.find("one", "ES256").send(None)

    asyncio.run(scenario())


def test_a_key_has_one_algorithm(clock: HandClock) -> None:
    async def scenario() -> None:
        issuer = Issuer(ONE, THREE)
        keys = Jwks("u", issuer, clock=clock)
        assert await keys.find("three", "RS256") is not None
        for algorithm in ("ES256", "HS256", "RS512", "PS256", "none", ""):
            assert await keys.find("three", algorithm) is None
        clock.now += 100
        assert await keys.find("one", "RS256") is None
        assert issuer.fetches == 1  # the id is known: another algorithm is no reason to ask again

    asyncio.run(scenario())


UNUSABLE: dict[str, Any] = {
    "a symmetric key": {"kty": "oct", "kid": "bad", "alg": "HS256", "k": "AAAA"},
    "a symmetric key in disguise": {**ONE, "kid": "bad", "kty": "oct", "k": "AAAA"},
    "another algorithm": {**THREE, "kid": "bad", "alg": "RS512"},
    "HMAC on a public key": {**THREE, "kid": "bad", "alg": "HS256"},
    "none": {**THREE, "kid": "bad", "alg": "none"},
    "for encryption": {**ONE, "kid": "bad", "use": "enc"},
    "not for verifying": {**ONE, "kid": "bad", "key_ops": ["sign"]},
    "key_ops of another kind": {**ONE, "kid": "bad", "key_ops": "verify"},
    "without an id": {name: value for name, value in ONE.items() if name != "kid"},
    "id not a name": {**ONE, "kid": "../bad"},
    "id a number": {**ONE, "kid": 7},
    "a private key": {**ONE, "kid": "bad", "d": "AAAA"},
    "a point off the curve": {**ONE, "kid": "bad", "x": ONE["y"]},
    "no base64": {**ONE, "kid": "bad", "x": "!!"},
    "a curve that is not ours": {**jwk(forge.EC_384, "bad")},
    "a short RSA key": {**jwk(forge.RSA_WEAK, "bad")},
    "kty a list": {**ONE, "kid": "bad", "kty": ["EC"]},
    "kty missing": {"kid": "bad"},
    "no object": "key",
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_one_unusable_key_is_left_out_and_the_rest_serve(name: str, clock: HandClock) -> None:
    async def scenario() -> None:
        keys = Jwks("u", Issuer(UNUSABLE[name], ONE), clock=clock)
        for algorithm in ("ES256", "RS256", "EdDSA", "HS256", "RS512", "none"):
            assert await keys.find("bad", algorithm) is None
        assert await keys.find("one", "ES256") is not None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b"{}", b'{"keys":{}}', b'{"keys":null}', b"<html>", b"\xff", b"[" * 60_000),
        json.dumps({"keys": [ONE] * 65}).encode(),
        b" " * 70_000 + b'{"keys":[]}',
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_key_set_is_no_answer(body: bytes, clock: HandClock) -> None:
    async def scenario() -> None:
        issuer = Issuer(ONE)
        keys = Jwks("u", issuer, clock=clock)
        assert await keys.find("one", "ES256") is not None
        issuer.body = body
        clock.now += 500
        assert await keys.find("one", "ES256") is not None
        await settled()
        assert issuer.fetches == 2
        assert await keys.find("one", "ES256") is not None  # the last good set still serves

        fresh = Jwks("u", issuer, clock=clock)
        with pytest.raises(CannotVerify):
            await fresh.find("one", "ES256")

    asyncio.run(scenario())


def test_a_stampede_is_one_fetch(clock: HandClock) -> None:
    async def scenario() -> None:
        issuer = Issuer(ONE)
        issuer.gate.clear()
        keys = Jwks("u", issuer, clock=clock)
        waiting = [asyncio.create_task(keys.find("one", "ES256")) for _ in range(200)]
        await settled()
        waiting[0].cancel()  # who began the fetch may leave: the others still get their answer
        await settled()
        issuer.gate.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(answer is not None for answer in answers[1:]) == 199
        assert not any(isinstance(answer, BaseException) for answer in answers[1:])
        assert issuer.fetches == 1

    asyncio.run(scenario())


def test_a_flood_of_unknown_ids_asks_twice_a_minute(clock: HandClock) -> None:
    async def scenario() -> None:
        issuer = Issuer(ONE)
        keys = Jwks("u", issuer, clock=clock)
        for i in range(60_000):  # a thousand a second, for a minute
            assert await keys.find(f"unknown-{i}", "ES256") is None
            clock.now += 0.001
        assert issuer.fetches <= 2
        assert len(keys._unknown) <= 1024
        assert await keys.find("one", "ES256") is not None

    asyncio.run(scenario())


def test_a_new_key_is_found_as_soon_as_it_is_used(clock: HandClock) -> None:
    async def scenario() -> None:
        issuer = Issuer(ONE)
        keys = Jwks("u", issuer, clock=clock)
        assert await keys.find("two", "ES256") is None
        issuer.publish(ONE, TWO)
        clock.now += 31
        assert await keys.find("one", "ES256") is not None
        assert issuer.fetches == 1
        clock.now += 30
        assert await keys.find("two", "ES256") is not None
        assert issuer.fetches == 2

    asyncio.run(scenario())


def test_old_keys_are_renewed_in_the_background_and_older_ones_before_they_are_used(clock: HandClock) -> None:
    async def scenario() -> None:
        issuer = Issuer(ONE, TWO)
        keys = Jwks("u", issuer, clock=clock)
        await keys.find("one", "ES256")
        clock.now += 479
        await keys.find("one", "ES256")
        assert issuer.fetches == 1
        issuer.publish(ONE)
        clock.now += 2
        assert await keys.find("two", "ES256") is not None
        await settled()
        assert issuer.fetches == 2
        assert await keys.find("two", "ES256") is None

        issuer.publish(TWO)
        clock.now += 3600  # nobody came for an hour
        assert await keys.find("one", "ES256") is None

    asyncio.run(scenario())


def test_while_the_issuer_is_down_its_keys_serve_for_a_day(clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "maru")

    async def scenario() -> None:
        issuer = Issuer(ONE)
        keys = Jwks("u", issuer, clock=clock)
        await keys.find("one", "ES256")
        fetched = clock.now
        issuer.down = True
        while clock.now - fetched < 86_000:
            clock.now += 300
            assert await keys.find("one", "ES256") is not None
            await settled()
        clock.now = fetched + 86_401
        with pytest.raises(CannotVerify) as refusal:
            await keys.find("one", "ES256")
        assert refusal.value.retry_after_s > 0
        issuer.down = False
        clock.now += 5
        assert await keys.find("one", "ES256") is not None

    asyncio.run(scenario())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_an_issuer_that_hangs_holds_nobody_for_long(clock: HandClock) -> None:
    async def scenario() -> None:
        issuer = Issuer(ONE)
        issuer.gate.clear()
        keys = Jwks("u", issuer, clock=clock, timeout_s=0.05)
        with pytest.raises(CannotVerify):
            await keys.find("one", "ES256")
        for _ in range(100):
            with pytest.raises(CannotVerify):
                await keys.find("one", "ES256")
        assert issuer.fetches == 1  # and it is not asked again at once
        issuer.gate.set()
        clock.now += 5
        assert await keys.find("one", "ES256") is not None

    asyncio.run(scenario())


def test_an_unknown_id_while_the_issuer_is_down_is_not_called_bad(clock: HandClock) -> None:
    async def scenario() -> None:
        issuer = Issuer(ONE)
        keys = Jwks("u", issuer, clock=clock)
        await keys.find("one", "ES256")
        issuer.down = True
        clock.now += 60
        with pytest.raises(CannotVerify):
            await keys.find("two", "ES256")
        assert await keys.find("one", "ES256") is not None

    asyncio.run(scenario())


def test_closing_ends_a_fetch(clock: HandClock) -> None:
    async def scenario() -> None:
        issuer = Issuer(ONE)
        issuer.gate.clear()
        keys = Jwks("u", issuer, clock=clock)
        asking = asyncio.create_task(keys.find("one", "ES256"))
        await settled()
        await keys.aclose()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(scenario())


def token(kid: str, key: Any, now: float) -> str:
    return sign(header("ES256", kid=kid), claims(iat=int(now), exp=int(now) + 3600), key, "ES256")


def rotation() -> Iterable[tuple[int, list[dict[str, Any]], str, Any]]:
    """Two changes of key as Supabase makes them: the next key stands in the set before it is used, and the
    last one stays until its tokens have ended. Each line: from which second, the set, and who signs."""
    three = jwk(forge.EC_384, "unused"), jwk(forge.EC, "three")
    return [
        (0, [ONE], "one", forge.EC),
        (1000, [ONE, TWO], "one", forge.EC),
        (1700, [ONE, TWO], "two", forge.EC_STRANGER),
        (2500, [TWO, *three], "two", forge.EC_STRANGER),
        (3200, [TWO, *three], "three", forge.EC),
    ]


def test_through_two_rotations_no_good_token_is_refused_and_an_old_key_ends_within_ten_minutes() -> None:
    async def scenario() -> None:
        wall, clock = HandClock(NOW), HandClock(0)
        issuer = Issuer()
        authenticate = SupabaseAuthenticator(url=PROJECT, fetch=issuer, now=wall, clock=clock)
        stages = list(rotation())
        last_of_one = 0
        for second in range(0, 4200, 2):
            wall.now, clock.now = NOW + second, second
            _, published, kid, key = max(stage for stage in stages if stage[0] <= second)
            issuer.publish(*published)
            assert (await authenticate(f"Bearer {token(kid, key, wall.now)}")).id == f"user:{USER}"
            # A token made once with key one, and one made anew with it every time: stolen keys do that.
            for old in (token("one", forge.EC, NOW + 900), token("one", forge.EC, wall.now)):
                try:
                    await authenticate(f"Bearer {old}")
                    last_of_one = second
                except Unauthorized:
                    pass
            await settled()
        assert 2400 < last_of_one <= 2500 + 600
        assert issuer.fetches <= 4200 / 30

    asyncio.run(scenario())


def test_a_remembered_token_is_forgotten_with_its_key(clock: HandClock) -> None:
    async def scenario() -> None:
        issuer = Issuer(ONE)
        authenticate = SupabaseAuthenticator(url=PROJECT, fetch=issuer, now=HandClock(NOW), clock=clock)
        old, new = token("one", forge.EC, NOW), token("two", forge.EC_STRANGER, NOW)
        await authenticate(f"Bearer {old}")
        issuer.publish(TWO)
        clock.now += 31
        await authenticate(f"Bearer {old}")  # remembered, and its key is not known to be gone
        await authenticate(f"Bearer {new}")
        with pytest.raises(Unauthorized):
            await authenticate(f"Bearer {old}")

    asyncio.run(scenario())


def test_keys_come_over_real_http() -> None:
    async def scenario() -> None:
        async def serve(_: web.Request) -> web.Response:
            return web.json_response(forge.KEY_SET)

        app = web.Application()
        app.router.add_get("/auth/v1/.well-known/jwks.json", serve)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"

        async def fetch(address: str) -> bytes:
            async with ClientSession() as session, session.get(address) as answer:
                return await answer.read()

        authenticate = SupabaseAuthenticator(url=url, fetch=fetch, now=HandClock(NOW))
        good = sign(header("EdDSA", kid="ed-1"), claims(iss=f"{url}/auth/v1"), forge.ED, "EdDSA")
        assert (await authenticate(f"Bearer {good}")).id == f"user:{USER}"
        await runner.cleanup()

    asyncio.run(scenario())
