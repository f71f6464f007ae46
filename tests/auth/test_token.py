from __future__ import annotations

import asyncio

import pytest

from maru.auth.principal import Principal, Unauthorized
from maru.auth.supabase import SupabaseAuthenticator
from maru.auth.token import issue

from .hand_clock import HandClock

SECRET = "a-secret-of-development-of-good-length"
NOW = 1_790_000_000


@pytest.mark.parametrize("life_s", [1.0, 3600.0, 604_800.0])
def test_a_token_opens_the_door_for_as_long_as_it_says(life_s: float) -> None:
    async def scenario() -> None:
        now, clock = HandClock(NOW), HandClock(0)
        authenticate = SupabaseAuthenticator(SECRET, now=now, clock=clock)
        token = f"Bearer {issue(SECRET, 'alice', life_s, now=now)}"
        assert await authenticate(token) == Principal("user:alice")
        now.now += life_s + 10
        clock.now += life_s + 10
        with pytest.raises(Unauthorized):
            await authenticate(token)

    asyncio.run(scenario())


def test_a_token_of_another_secret_opens_nothing() -> None:
    async def scenario() -> None:
        with pytest.raises(Unauthorized):
            await SupabaseAuthenticator(SECRET)(f"Bearer {issue('x' * 40, 'alice')}")

    asyncio.run(scenario())


def test_with_a_project_the_issuer_is_needed() -> None:
    async def scenario() -> None:
        authenticate = SupabaseAuthenticator(SECRET, "http://localhost:54321")
        issuer = "http://localhost:54321/auth/v1"
        assert (await authenticate(f"Bearer {issue(SECRET, 'alice', issuer=issuer)}")).id == "user:alice"
        with pytest.raises(Unauthorized):
            await authenticate(f"Bearer {issue(SECRET, 'alice')}")

    asyncio.run(scenario())


def test_what_would_not_work_is_not_issued() -> None:
    for secret, life_s in (("short", 60.0), (SECRET, 0.0), (SECRET, -1.0), (SECRET, float("nan"))):
        with pytest.raises(ValueError):
            issue(secret, "alice", life_s)
