"""T-S3: which tokens are taken. Each forged token differs from a good one in the one thing its name says, and
is signed with the right key unless the signature is that thing: so it is that check that refuses it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import jwt
import pytest
from jwt.algorithms import get_default_algorithms

from maru.auth import jwt as jwt_reader
from maru.auth import supabase
from maru.auth.bearer import CannotVerify
from maru.auth.principal import Principal, Unauthorized
from maru.auth.supabase import Policy, SupabaseAuthenticator

from . import forge
from .forge import FORGED, GOOD, NOW, PROJECT, SECRET, USER, claims, header, sign
from .hand_clock import HandClock


async def fetch(url: str) -> bytes:
    assert url == f"{PROJECT}/auth/v1/.well-known/jwks.json"
    return json.dumps(forge.KEY_SET).encode()


def authenticator(**changes: Any) -> SupabaseAuthenticator:
    given = {"secret": SECRET, "url": PROJECT, "fetch": fetch, "now": HandClock(NOW)}
    return SupabaseAuthenticator(**{**given, **changes})


def ask(token: str, **changes: Any) -> Principal:
    async def scenario() -> Principal:
        return await authenticator(**changes)(f"Bearer {token}")

    return asyncio.run(scenario())


def refusal(token: str, **changes: Any) -> Unauthorized:
    with pytest.raises(Unauthorized) as refused:
        ask(token, **changes)
    return refused.value


@pytest.mark.parametrize("name", GOOD)
def test_good_tokens_are_taken(name: str) -> None:
    assert ask(GOOD[name]) == Principal(f"user:{USER}")


@pytest.mark.parametrize("name", FORGED)
def test_forged_tokens_are_refused_in_the_same_words(name: str) -> None:
    refused = refusal(FORGED[name])
    assert (str(refused), refused.error) == ("the credentials are not valid", "invalid_token")


def test_the_table_is_long_enough_and_says_no_case_twice() -> None:
    assert len(FORGED) >= 60
    assert len(set(FORGED.values())) == len(FORGED)


def test_after_every_forgery_good_tokens_are_still_taken() -> None:
    async def scenario() -> None:
        authenticate = authenticator()
        for forged in FORGED.values():
            with pytest.raises(Unauthorized):
                await authenticate(f"Bearer {forged}")
        for good in GOOD.values():
            assert await authenticate(f"Bearer {good}") == Principal(f"user:{USER}")

    asyncio.run(scenario())


class Everything(set[str]):
    """A set that holds whatever is asked for."""

    def __contains__(self, _: object) -> bool:
        return True


async def key_by_header(_: SupabaseAuthenticator, alg: str, kid: str | None) -> Any:
    """How a verifier chooses that believes the header: any key, by any algorithm."""
    key = {"ec-1": forge.pem(forge.EC), "rsa-1": forge.pem(forge.RSA), "oct-1": forge.OCT}[kid or ""]
    algorithm = get_default_algorithms()[alg]
    return algorithm, algorithm.prepare_key(key) if alg != "HS256" else key


CHECKS: dict[str, tuple[object, str, object, list[str]]] = {
    "aud": (
        Policy,
        "_is_for_us",
        lambda *_: True,
        [name for name in FORGED if name.startswith("aud ") and "twice" not in name],
    ),
    "times": (
        Policy,
        "_is_now",
        lambda *_: True,
        [name for name in FORGED if name.startswith(("nbf ", "iat ")) or "life of years" in name]
        + ["exp past", "exp long past", "exp negative"],
    ),
    "is_anonymous": (Policy, "_is_known", lambda *_: True, [name for name in FORGED if "anonymous" in name]),
    "typ": (supabase, "_TYPES", Everything(), ["typ of a refresh token", "typ of a proof", "typ empty"]),
    "headers": (
        supabase,
        "_HEADER_NAMES",
        {"alg", "typ", "kid", "jku", "x5u", "x5c", "crit", "exp", "b64", "zip", "cty"},
        ["jku", "x5u", "x5c", "crit", "crit empty", "crit b64", "b64 false", "zip", "cty"],
    ),
    "kid": (
        supabase,
        "_is_key_id",
        lambda _: True,
        [name for name in FORGED if name.startswith("kid ")],
    ),
    "alg": (
        SupabaseAuthenticator,
        "_key",
        key_by_header,
        [
            "HS256 with the EC key's PEM",
            "HS256 with the RSA key's PEM",
            "HS256 with the oct key of the set",
            "PS256 with the RSA key",
            "RS512 with the RSA key",
        ],
    ),
    "twins": (jwt_reader, "_without_twins", dict, ["aud given twice", "twins further in", "alg given twice"]),
}


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_alone_is_what_refuses(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutants: with that check gone each of its forgeries is taken, so nothing else would stop them."""
    place, name, mutant, rows = CHECKS[check]
    for row in rows:
        refusal(FORGED[row])
    monkeypatch.setattr(place, name, mutant)
    assert rows
    for row in rows:
        assert ask(FORGED[row]).id == f"user:{USER}", row


def test_a_project_without_a_secret_takes_no_hs256_even_with_a_symmetric_key_in_its_set() -> None:
    """Supabase's own scripts put the secret into the key set: no header may call for it there."""
    token = sign(header(kid="oct-1"), claims(), forge.OCT)
    refusal(token, secret=None)
    assert ask(GOOD["ES256"], secret=None).id == f"user:{USER}"


def test_a_project_without_a_url_takes_no_other_algorithm_and_asks_nothing_of_iss() -> None:
    alone: dict[str, Any] = {"url": None, "fetch": None}
    for name in ("ES256", "RS256", "EdDSA"):
        refusal(GOOD[name], **alone)
    assert ask(sign(header(), claims(iss="http://localhost:54321/auth/v1")), **alone).id == f"user:{USER}"
    assert ask(sign(header(), claims(iss=...)), **alone).id == f"user:{USER}"
    refusal(FORGED["role anon"], **alone)


def test_an_issuer_of_another_name_can_be_given() -> None:
    other = "https://auth.example.com/auth/v1"
    assert ask(sign(header(), claims(iss=other)), issuer=other).id == f"user:{USER}"
    refusal(GOOD["as Supabase makes them"], issuer=other)


def test_a_slash_after_the_url_changes_nothing() -> None:
    assert ask(GOOD["ES256"], url=PROJECT + "/").id == f"user:{USER}"


def test_anonymous_users_are_taken_where_they_are_welcome() -> None:
    assert ask(FORGED["an anonymous user"], anonymous=True).id == f"user:{USER}"
    refusal(FORGED["is_anonymous a string"], anonymous=True)


def test_the_longest_life_can_be_set() -> None:
    assert ask(FORGED["a life of years"], max_life_s=10**9).id == f"user:{USER}"
    refusal(GOOD["a life of a week"], max_life_s=3600.0)


def test_scopes_are_those_given() -> None:
    assert ask(GOOD["RS256"], scopes=frozenset({"embedding"})).scopes == {"embedding"}


@pytest.mark.parametrize("secret", ["", "short", "s" * 31])
def test_a_short_secret_stops_the_start(secret: str) -> None:
    with pytest.raises(ValueError, match="SUPABASE_JWT_SECRET must have 32 bytes"):
        SupabaseAuthenticator(secret)


@pytest.mark.parametrize("given", [{}, {"url": PROJECT}, {"fetch": fetch}])
def test_what_can_not_be_checked_stops_the_start(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SupabaseAuthenticator(**given)


def test_a_leeway_of_over_thirty_seconds_stops_the_start() -> None:
    with pytest.raises(ValueError, match="leeway"):
        SupabaseAuthenticator(SECRET, leeway_s=31)


def test_a_remembered_token_ends_when_it_ends() -> None:
    async def scenario() -> None:
        now, clock = HandClock(NOW), HandClock(0)
        authenticate = authenticator(now=now, clock=clock)
        token = f"Bearer {sign(header(), claims(exp=NOW + 20))}"
        for passed in range(30):
            now.now, clock.now = NOW + passed, passed
            assert (await authenticate(token)).id == f"user:{USER}"
        now.now = NOW + 30
        with pytest.raises(Unauthorized):
            await authenticate(token)

    asyncio.run(scenario())


def test_a_remembered_token_is_taken_without_leaving_the_event_loop() -> None:
    authenticate = authenticator()
    asyncio.run(_first(authenticate, GOOD["ES256"]))
    with pytest.raises(StopIteration) as done:
        authenticate(f"Bearer {GOOD['ES256']}").send(None)
    assert done.value.value == Principal(f"user:{USER}")


def test_a_token_is_remembered_whole() -> None:
    """Two tokens that share all but the end are two tokens: others have remembered a prefix."""

    async def scenario() -> None:
        authenticate = authenticator()
        good = GOOD["as Supabase makes them"]
        await authenticate(f"Bearer {good}")
        for end in range(len(good) - 60, len(good)):
            other = good[:end] + ("A" if good[end] != "A" else "B") + good[end + 1 :]
            with pytest.raises(Unauthorized):
                await authenticate(f"Bearer {other}")

    asyncio.run(scenario())


def test_many_users_take_bounded_memory() -> None:
    async def scenario() -> None:
        authenticate = authenticator()
        for i in range(6000):
            token = jwt.encode(claims(sub=f"user-{i}"), SECRET, "HS256")
            assert (await authenticate(f"Bearer {token}")).id == f"user:user-{i}"
        assert len(authenticate._verified) <= 4096

    asyncio.run(scenario())


def test_nothing_of_a_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in list(FORGED)[:20]:
        refusal(FORGED[name])

    async def down(_: str) -> bytes:
        raise OSError(f"can't reach {PROJECT}")

    with pytest.raises(CannotVerify):
        ask(GOOD["ES256"], fetch=down)
    for text in (USER, "eyJ", PROJECT, SECRET):
        assert text not in caplog.text


async def _first(authenticate: SupabaseAuthenticator, token: str) -> None:
    await authenticate(f"Bearer {token}")
