"""T-S4: API keys, from making one to its end."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import string
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maru.auth.bearer import CannotVerify
from maru.auth.keyring import Keyring
from maru.auth.keys import EVERYTHING, KeyAuthenticator, covers, mint
from maru.auth.principal import Forbidden, Principal, Unauthorized
from maru.storage.api_keys import ApiKey, ApiKeys
from maru.storage.database import connect, create

from .hand_clock import HandClock

OPERATOR = frozenset({EVERYTHING})
START = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Counting(ApiKeys):
    """A store that counts its lookups, notes their threads, and fails or waits when told to."""

    def __init__(self, url: str) -> None:
        engine = connect(url)
        create(engine)
        super().__init__(engine)
        self.lookups = 0
        self.threads: set[str] = set()
        self.down = False
        self.gate = threading.Event()
        self.gate.set()

    def find(self, public_id: str) -> ApiKey | None:
        self.lookups += 1
        self.threads.add(threading.current_thread().name)
        self.gate.wait(10)
        if self.down:
            raise OSError("disk on fire")
        return super().find(public_id)


class Moment:
    """The time of day, set by hand together with a monotonic clock."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock

    def __call__(self) -> datetime:
        return START + timedelta(seconds=self._clock.now)


@pytest.fixture
def store(tmp_path: Path) -> Counting:
    return Counting(f"sqlite:///{tmp_path}/maru.db")


@pytest.fixture
def now(clock: HandClock) -> Moment:
    return Moment(clock)


@pytest.fixture
def keyring(store: Counting, clock: HandClock, now: Moment) -> Iterator[Keyring]:
    ring = Keyring(store, clock=clock, now=now)
    yield ring
    store.gate.set()
    asyncio.run(ring.aclose())


async def refused(authenticate: KeyAuthenticator, key: str) -> type[Exception]:
    try:
        await authenticate(f"Bearer {key}")
    except (Unauthorized, Forbidden) as refusal:
        return type(refusal)
    raise AssertionError("the key was taken")


# Making keys


def test_a_key_has_256_random_bits_and_a_prefix_that_scanners_find(store: Counting) -> None:
    keys = [mint(store, "a", [], by=OPERATOR).key for _ in range(300)]
    assert all(re.fullmatch(r"maru_[0-9A-Za-z]{8}_[0-9A-Za-z]{43}", key) for key in keys)
    assert len(set(keys)) == 300
    assert 62**43 >= 2**256
    # Each place takes every letter: 300 keys of 43 places that missed one would be a chance of e^-208.
    assert set("".join(key[14:] for key in keys)) == set(string.ascii_letters + string.digits)


def test_a_key_is_shown_once_and_stands_nowhere(
    store: Counting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    minted = [mint(store, "someone", ["style"], by=OPERATOR) for _ in range(20)]

    async def use() -> None:
        ring = Keyring(store)
        for each in minted:
            await KeyAuthenticator(ring)(f"Bearer {each.key}")
            await refused(KeyAuthenticator(ring), each.key[:-1] + ("a" if each.key[-1] != "a" else "b"))
        await ring.aclose()

    asyncio.run(use())
    disk = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    shown = caplog.text + repr(minted) + repr(store.all())
    for each in minted:
        secret = each.key.rsplit("_", 1)[1]
        assert each.stored.public_id.encode() in disk
        for part in (secret, secret[:12], secret[-12:]):
            assert part.encode() not in disk
            assert part not in shown


@pytest.mark.parametrize(
    "wrong",
    [
        *({"name": name} for name in ("", "  ", "n" * 65, "a\nb", "a\x00")),
        *({"scopes": [scope]} for scope in ("A", "a b", "", "**")),
        *({"weight": weight} for weight in (0.0, -1.0, float("nan"), float("inf"))),
        {"life": timedelta(0)},
    ],
    ids=repr,
)
def test_a_key_that_makes_no_sense_is_not_made(store: Counting, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        mint(store, **{"name": "a", "scopes": ["style"], "by": OPERATOR, **wrong})
    assert store.all() == []


def test_scopes_that_the_maker_lacks_are_forbidden(store: Counting) -> None:
    for wanted in (["admin"], ["style", "admin"], [EVERYTHING]):
        with pytest.raises(Forbidden):
            mint(store, "a", wanted, by=frozenset({"style", "embedding"}))
    assert store.all() == []
    assert mint(store, "a", ["style"], by=frozenset({"style", "embedding"})).stored.scopes == {"style"}


SCOPES = st.frozensets(st.sampled_from(["style", "forecast", "embedding", "admin", "benchmark", EVERYTHING]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=SCOPES, wishes=st.lists(st.tuples(st.integers(0, 20), SCOPES), max_size=12))
def test_no_chain_of_keys_ends_in_a_scope_its_first_maker_lacked(
    store: Counting, first: frozenset[str], wishes: list[tuple[int, frozenset[str]]]
) -> None:
    """Anyone may make keys with any key they hold, and with the keys so made, as often as they like."""
    everyone = ["style", "forecast", "embedding", "admin", "benchmark"]
    held = [mint(store, "root", first, by=OPERATOR)]
    for maker, wanted in wishes:
        by = held[maker % len(held)].stored.scopes
        try:
            held.append(mint(store, "made", wanted, by=by))
        except Forbidden:
            assert not covers(by, wanted)
    for key in held:
        found = store.find(key.stored.public_id)
        assert found is not None
        for scope in everyone:
            assert not covers(found.scopes, frozenset({scope})) or covers(first, frozenset({scope}))
        assert EVERYTHING not in found.scopes or EVERYTHING in first


# Using keys


def test_a_key_says_who_its_caller_is(store: Counting, keyring: Keyring) -> None:
    key = mint(store, "가구 회사", ["style", "embedding"], by=OPERATOR, weight=2.5).key

    async def scenario() -> None:
        principal = await KeyAuthenticator(keyring, needs=["style"])(f"Bearer {key}")
        assert principal == Principal("key:가구 회사", frozenset({"style", "embedding"}), 2.5)
        assert await KeyAuthenticator(keyring)(f"bearer  {key} ") == principal

    asyncio.run(scenario())


def test_without_a_key_or_with_a_wrong_one_it_is_401(store: Counting, keyring: Keyring) -> None:
    key = mint(store, "a", [EVERYTHING], by=OPERATOR).key
    unknown = "maru_" + "0" * 8 + key[13:]
    wrong = [key[:-1] + ("a" if key[-1] != "a" else "b"), key[:14] + "0" * 43, unknown, key + "a", key[:-1]]
    wrong += [key.upper(), key.replace("maru", "Maru"), key[5:], key.replace("_", "-"), "a" * 57, f'"{key}"']

    async def scenario() -> None:
        authenticate = KeyAuthenticator(keyring)
        messages = set()
        for each in wrong:
            with pytest.raises(Unauthorized) as refusal:
                await authenticate(f"Bearer {each}")
            messages.add((str(refusal.value), refusal.value.error))
        assert messages == {("the credentials are not valid", "invalid_token")}
        with pytest.raises(Unauthorized) as refusal:
            await authenticate(None)
        assert refusal.value.error is None
        assert await authenticate(f"Bearer {key}")

    asyncio.run(scenario())


def test_malformed_headers_are_401_and_reach_no_sql(store: Counting, keyring: Keyring) -> None:
    """Several thousand headers, most of them almost right."""
    key = mint(store, "a", [EVERYTHING], by=OPERATOR).key
    chance = random.Random(7)
    letters = [chr(code) for code in (0, 1, 9, 10, 13, 32, 34, 39, 44, 59, 92, 127, 128, 233, 255)]
    letters += [*"aZ0_-", "\u200b", "\u2028", "\ud800", "\U0001f511", "ⅿ", "' OR 1=1 --", "\r\nX: y"]

    def headers() -> Iterator[str]:
        for _ in range(4000):
            text = list(f"Bearer {key}")
            for _ in range(chance.randint(1, 4)):
                place = chance.randrange(len(text))
                match chance.randrange(4):
                    case 0:
                        text.insert(place, chance.choice(letters))
                    case 1:
                        text[place] = chance.choice(letters)
                    case 2:
                        del text[place:]
                        text.append(chance.choice(letters))
                    case _:
                        text = text[place:] + text[:place]
            yield "".join(text)
        yield from (f"Bearer {key}" + "x" * 1_000_000, "Bearer " * 150_000, key, f"Bearer {key},Bearer {key}")
        yield from (f"Basic {key}", f"Basic x, Bearer {key}", f"Bearer {key} {key}", f"Bearer\u00a0{key}")
        yield from (f"Bearer maru_{'a' * 7}'_{'a' * 43}", "Bearer maru_" + "%" * 8 + "_" + "a" * 43)

    async def scenario() -> int:
        authenticate = KeyAuthenticator(keyring, plain=["a-plain-key-of-good-length"])
        refusals = 0
        for value in headers():
            if value.strip(" \t").split() == ["Bearer", key]:
                continue
            try:
                await authenticate(value)
            except Unauthorized:
                refusals += 1
            else:
                assert value.split()[-1] == key and value.split()[0].lower() == "bearer", value
        return refusals

    assert asyncio.run(scenario()) > 3500
    assert all(re.fullmatch("[0-9A-Za-z]{8}", found.public_id) for found in store.all())


def test_a_missing_scope_is_403(store: Counting, keyring: Keyring) -> None:
    key = mint(store, "a", ["style"], by=OPERATOR).key

    async def scenario() -> None:
        assert await refused(KeyAuthenticator(keyring, needs=["embedding"]), key) is Forbidden
        assert await refused(KeyAuthenticator(keyring, needs=["style", "embedding"]), key) is Forbidden
        assert await KeyAuthenticator(keyring, needs=["style"])(f"Bearer {key}")

    asyncio.run(scenario())


def test_an_expired_key_is_403_from_the_moment_it_expires(
    store: Counting, keyring: Keyring, clock: HandClock, now: Moment
) -> None:
    key = mint(store, "a", [], by=OPERATOR, life=timedelta(seconds=60), now=now).key

    async def scenario() -> None:
        authenticate = KeyAuthenticator(keyring, now=now)
        clock.now += 59.9
        assert await authenticate(f"Bearer {key}")
        clock.now += 0.1
        assert await refused(authenticate, key) is Forbidden

    asyncio.run(scenario())


def test_only_the_holder_of_a_key_learns_that_it_was_revoked(store: Counting, keyring: Keyring) -> None:
    minted = mint(store, "a", [], by=OPERATOR)
    store.revoke(minted.stored.public_id, START)

    async def scenario() -> None:
        authenticate = KeyAuthenticator(keyring)
        assert await refused(authenticate, minted.key) is Forbidden
        assert await refused(authenticate, minted.key[:14] + "0" * 43) is Unauthorized

    asyncio.run(scenario())


def test_rotation_leaves_no_gap_and_the_old_key_ends_in_every_worker_within_five_seconds(
    store: Counting, clock: HandClock, now: Moment
) -> None:
    async def scenario() -> None:
        workers = [Keyring(store, clock=clock, now=now) for _ in range(4)]
        doors = [KeyAuthenticator(worker, now=now) for worker in workers]
        old = mint(store, "client", ["style"], by=OPERATOR)
        callers = set()
        for _ in range(20):
            callers |= {(await door(f"Bearer {old.key}")).id for door in doors}
            clock.now += 0.7
        new = mint(store, "client", ["style"], by=OPERATOR)
        for _ in range(20):  # both live, and are one caller
            for key in (old.key, new.key):
                callers |= {(await door(f"Bearer {key}")).id for door in doors}
            clock.now += 0.7
        assert callers == {"key:client"}
        assert store.revoke(old.stored.public_id, now())
        revoked = clock.now
        while clock.now < revoked + 20:
            for door in doors:
                assert (await door(f"Bearer {new.key}")).id == "key:client"
                if clock.now - revoked >= 5:
                    assert await refused(door, old.key) is Forbidden
            clock.now += 0.5
        for worker in workers:
            await worker.aclose()

    asyncio.run(scenario())


# Looking keys up


def test_a_known_key_is_found_without_leaving_the_event_loop(store: Counting, keyring: Keyring) -> None:
    key = mint(store, "a", [], by=OPERATOR).key

    async def scenario() -> None:
        authenticate = KeyAuthenticator(keyring)
        await authenticate(f"Bearer {key}")
        for _ in range(100):
            with pytest.raises(StopIteration):
                authenticate(f"Bearer {key}").send(None)

    asyncio.run(scenario())
    assert store.lookups == 1
    assert all(name.startswith("maru-keys") for name in store.threads)


def test_many_requests_with_one_key_are_one_lookup(store: Counting, keyring: Keyring) -> None:
    key = mint(store, "a", [], by=OPERATOR).key

    async def scenario() -> None:
        authenticate = KeyAuthenticator(keyring)
        store.gate.clear()
        asking = [asyncio.create_task(authenticate(f"Bearer {key}")) for _ in range(100)]
        await asyncio.sleep(0)
        asking[0].cancel()
        await asyncio.sleep(0)
        store.gate.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert sum(isinstance(answer, Principal) for answer in answers) == 99

    asyncio.run(scenario())
    assert store.lookups == 1


def test_a_flood_of_invented_ids_is_bounded_and_drives_out_nobody(store: Counting, clock: HandClock) -> None:
    key = mint(store, "a", [], by=OPERATOR).key

    async def scenario() -> None:
        ring = Keyring(store, size=50, clock=clock)
        authenticate = KeyAuthenticator(ring)
        await authenticate(f"Bearer {key}")
        for i in range(500):
            assert await refused(authenticate, f"maru_{i:08}_{'a' * 43}") is Unauthorized
        before = store.lookups
        await authenticate(f"Bearer {key}")
        for i in range(495, 500):
            assert await refused(authenticate, f"maru_{i:08}_{'a' * 43}") is Unauthorized
        assert store.lookups == before
        assert len(ring._unknown) <= 50
        await ring.aclose()

    asyncio.run(scenario())


def test_a_database_that_fails_or_hangs_is_neither_yes_nor_no(
    store: Counting, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "maru")
    key = mint(store, "a", [], by=OPERATOR).key

    async def scenario() -> None:
        ring = Keyring(store, clock=clock, timeout_s=0.1)
        authenticate = KeyAuthenticator(ring)
        await authenticate(f"Bearer {key}")
        store.down = True
        await authenticate(f"Bearer {key}")  # known still
        clock.now += 3.1
        for _ in range(5):
            with pytest.raises(CannotVerify) as refusal:
                await authenticate(f"Bearer {key}")
            assert refusal.value.retry_after_s > 0
        store.down = False
        await authenticate(f"Bearer {key}")
        clock.now += 3.1
        store.gate.clear()
        with pytest.raises(CannotVerify):
            await authenticate(f"Bearer {key}")
        store.gate.set()
        await ring.aclose()

    asyncio.run(scenario())
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_an_answer_is_as_old_as_its_question(store: Counting, clock: HandClock) -> None:
    """A lookup that hung may have read the row before it was revoked: it is believed once, not kept."""
    key = mint(store, "a", [], by=OPERATOR).key

    async def scenario() -> None:
        ring = Keyring(store, clock=clock)
        authenticate = KeyAuthenticator(ring)
        store.gate.clear()
        asking = asyncio.create_task(authenticate(f"Bearer {key}"))
        await asyncio.sleep(0.01)
        clock.now += 4.0
        store.gate.set()
        await asking
        await authenticate(f"Bearer {key}")
        assert store.lookups == 2
        await ring.aclose()

    asyncio.run(scenario())


def test_the_last_use_is_noted_in_the_background_once_a_minute(store: Counting, clock: HandClock, now: Moment) -> None:
    minted = mint(store, "a", [], by=OPERATOR)

    def noted() -> datetime | None:
        found = ApiKeys.find(store, minted.stored.public_id)
        assert found is not None
        return found.last_used

    async def scenario() -> None:
        ring = Keyring(store, clock=clock, now=now)
        authenticate = KeyAuthenticator(ring)
        await refused(authenticate, minted.key[:14] + "0" * 43)
        assert noted() is None
        first = now()
        for _ in range(10):
            await authenticate(f"Bearer {minted.key}")
            clock.now += 5
        await until(lambda: noted() == first)
        clock.now += 20
        await authenticate(f"Bearer {minted.key}")
        await until(lambda: noted() == first + timedelta(seconds=70))
        await ring.aclose()
        clock.now += 70
        ring.touch(minted.stored.public_id)  # a last request while the server stops

    asyncio.run(scenario())


async def until(true: Any) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


# Keys from the environment


def test_plain_keys_are_taken_and_have_the_scopes_given() -> None:
    async def scenario() -> None:
        keys = ["first-plain-key-0001", "second!plain~key%0002", "sk-proj-0003-abcdefghij"]
        authenticate = KeyAuthenticator(plain=keys, plain_scopes=["style"], needs=["style"])
        callers = [await authenticate(f"Bearer {key}") for key in keys]
        assert len({caller.id for caller in callers}) == 3
        assert all(caller.scopes == {"style"} for caller in callers)
        assert not any(key in repr(callers) or key in repr(vars(authenticate)) for key in keys)
        for wrong in ("first-plain-key-0002", "first-plain-key-000", "first-plain-key-00011", ",".join(keys)):
            assert await refused(authenticate, wrong) is Unauthorized
        other = KeyAuthenticator(plain=keys, plain_scopes=["style"], needs=["admin"])
        assert await refused(other, keys[0]) is Forbidden

    asyncio.run(scenario())


@pytest.mark.parametrize("key", ["", "fifteen-letters", "with a space in the middle", "한글로쓴열쇠" * 4])
def test_a_plain_key_that_could_not_be_sent_or_is_too_short_stops_the_start(key: str) -> None:
    with pytest.raises(ValueError, match="plain API key") as refusal:
        KeyAuthenticator(plain=[key])
    assert not key or key not in str(refusal.value)


def test_plain_and_stored_keys_live_side_by_side(store: Counting, keyring: Keyring) -> None:
    key = mint(store, "a", [], by=OPERATOR).key

    async def scenario() -> None:
        authenticate = KeyAuthenticator(keyring, plain=["plain-key-plain-key"])
        assert (await authenticate("Bearer plain-key-plain-key")).id.startswith("env:")
        assert (await authenticate(f"Bearer {key}")).id == "key:a"
        assert await refused(KeyAuthenticator(), key) is Unauthorized

    asyncio.run(scenario())


def test_a_digest_that_was_tampered_with_lets_nobody_in(store: Counting, keyring: Keyring) -> None:
    minted = mint(store, "a", [], by=OPERATOR)
    store.add(replace(minted.stored, public_id="zzzzzzzz", digest=b""))

    async def scenario() -> None:
        assert await refused(KeyAuthenticator(keyring), "maru_zzzzzzzz_" + "a" * 43) is Unauthorized

    asyncio.run(scenario())
