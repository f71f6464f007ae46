from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from maru.storage.api_keys import ApiKey, ApiKeys
from maru.storage.database import connect, create

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def key(public_id: str = "abcdefgh", **changes: object) -> ApiKey:
    fields = {
        "digest": bytes(32),
        "name": "가구 회사",
        "scopes": frozenset({"style", "embedding"}),
        "weight": 2.0,
        "created": NOW,
        "expires": NOW + timedelta(days=1),
    }
    return ApiKey(public_id=public_id, **{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> ApiKeys:
    engine = connect(f"sqlite:///{tmp_path}/maru.db")
    create(engine)
    return ApiKeys(engine)


def test_a_key_comes_back_as_it_was(store: ApiKeys) -> None:
    assert store.add(key())
    assert store.find("abcdefgh") == key()
    assert store.all() == [key()]


def test_a_taken_id_is_told_and_changes_nothing(store: ApiKeys) -> None:
    assert store.add(key())
    assert not store.add(key(name="someone else"))
    assert store.all() == [key()]


@pytest.mark.parametrize("public_id", ["' OR 1=1 --", "a' UNION SELECT * FROM api_keys --", "%", "", "\x00"])
def test_an_id_is_never_sql(store: ApiKeys, public_id: str) -> None:
    store.add(key())
    assert store.find(public_id) is None
    assert not store.revoke(public_id, NOW)
    store.touch(public_id, NOW)
    assert store.all() == [key()]


def test_revoking_is_for_good(store: ApiKeys) -> None:
    store.add(key())
    assert store.revoke("abcdefgh", NOW)
    assert not store.revoke("abcdefgh", NOW + timedelta(hours=1))
    assert store.find("abcdefgh") == key(revoked=NOW)


def test_the_last_use_is_noted_once_a_minute(store: ApiKeys) -> None:
    store.add(key())
    for second in range(0, 130, 10):
        store.touch("abcdefgh", NOW + timedelta(seconds=second))
        noted = store.find("abcdefgh")
        assert noted is not None and noted.last_used == NOW + timedelta(seconds=second // 60 * 60)


def test_keys_are_listed_oldest_first(store: ApiKeys) -> None:
    for i, public_id in enumerate(("cccccccc", "aaaaaaaa", "bbbbbbbb")):
        store.add(key(public_id, created=NOW + timedelta(seconds=i)))
    assert [listed.public_id for listed in store.all()] == ["cccccccc", "aaaaaaaa", "bbbbbbbb"]


def test_threads_write_and_read_side_by_side(store: ApiKeys) -> None:
    faults: list[BaseException] = []

    def work(part: int) -> None:
        try:
            for i in range(15):
                public_id = f"{part:04}{i:04}"
                assert store.add(key(public_id))
                assert store.find(public_id) is not None
                assert store.revoke(public_id, NOW)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(store.all()) == 60


def test_the_digest_is_not_shown() -> None:
    assert "digest" not in repr(key(digest=b"\x99" * 32))
