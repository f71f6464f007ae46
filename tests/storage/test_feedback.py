from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from maru.storage.database import connect, create
from maru.storage.feedback import FeedbackEvent, FeedbackStore

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def click(n: int, **changes: object) -> FeedbackEvent:
    return FeedbackEvent(**{"session": 7, "aid": n, "ts": 1_659_304_800 + n, "type": "clicks", **changes})  # type: ignore[arg-type]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/maru.db"


def opened(url: str, most: int = 1000) -> FeedbackStore:
    engine = connect(url)
    create(engine)
    return FeedbackStore(engine, most)


def held(store: FeedbackStore, size: int = 50_000) -> list[FeedbackEvent]:
    return [event for page in store.pages(size) for event in page]


def test_events_come_back_as_they_were_after_a_restart(url: str) -> None:
    events = [click(1, variant="candidate"), click(2, type="orders"), click(3, aid=-(2**53), session=2**53 - 1)]
    assert {event.aid for event in opened(url).add(events, NOW)} == {1, 2, -(2**53)}
    assert sorted(held(opened(url)), key=lambda event: event.ts) == events


def test_what_is_sent_again_is_stored_once(url: str) -> None:
    store = opened(url)
    assert len(store.add([click(1), click(2)], NOW)) == 2
    assert store.add([click(2), click(3), click(3)], NOW) == [click(3)]
    assert store.add([click(1), click(2), click(3)], NOW) == []
    assert store.count() == 3


@pytest.mark.parametrize("change", [{"session": 8}, {"aid": 9}, {"ts": 1}, {"type": "carts"}])
def test_without_an_id_an_event_is_its_content(url: str, change: dict[str, object]) -> None:
    store = opened(url)
    store.add([click(1)], NOW)
    assert len(store.add([click(1, **change)], NOW)) == 1
    assert store.add([click(1, variant="candidate")], NOW) == []


def test_an_id_is_an_events_name(url: str) -> None:
    store = opened(url)
    first = click(1, id="e-1")
    assert store.add([first, click(1, id="e-2"), click(1)], NOW) != []
    assert store.count() == 3, "the same content under two ids, and under none, are three events"
    assert store.add([click(5, id="e-1")], NOW) == []
    assert click(5) not in held(store)


def test_the_oldest_are_forgotten(url: str) -> None:
    store = opened(url, most=100)
    for first in range(0, 1000, 50):
        store.add([click(n) for n in range(first, first + 50)], NOW)
        assert store.count() <= 100
    assert {event.aid for event in held(store)} == set(range(900, 1000))
    assert len(store.add([click(n) for n in range(2000, 2500)], NOW)) == 500
    assert store.count() == 100


def test_pages_hold_everything_once(url: str) -> None:
    store = opened(url)
    store.add([click(n) for n in range(95)], NOW)
    assert [len(page) for page in store.pages(20)] == [20, 20, 20, 20, 15]
    assert len({event.aid for event in held(store, 7)}) == 95
    assert list(opened(url + "2").pages()) == []


def test_nothing_is_an_answer_to_nothing(url: str) -> None:
    assert opened(url).add([], NOW) == []


def test_many_writers_with_the_same_events_store_each_once(url: str) -> None:
    """Each thread has an engine of its own, as a process has."""
    stores = [opened(url) for _ in range(4)]
    added: list[int] = []
    faults: list[BaseException] = []

    def work(store: FeedbackStore, turn: int) -> None:
        try:
            for first in range(0, 200, 20):
                events = [click(n) for n in range(first, first + 20)]
                added.append(len(store.add(events[::-1] if turn % 2 else events, NOW)))
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(store, turn)) for turn, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert sum(added) == 200 == stores[0].count()


def _add_and_tell(url: str, told: multiprocessing.connection.Connection) -> None:
    store = opened(url)
    for n in range(10**6):
        store.add([click(n)], NOW)
        told.send(n)


def test_what_was_acknowledged_survives_a_kill(url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    heard, told = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_add_and_tell, args=(url, told))
    process.start()
    while heard.recv() < 20:
        pass
    process.kill()
    process.join()
    last = 20
    while heard.poll():
        try:
            last = heard.recv()
        except EOFError:
            break
    assert {event.aid for event in held(opened(url, 10**6))} >= set(range(last + 1))
    file = url.removeprefix("sqlite:///")
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_two_events_of_different_sessions_never_share_a_key() -> None:
    keys = {click(n, session=s, type=t).key() for n in range(50) for s in range(50) for t in ("clicks", "carts")}
    assert len(keys) == 50 * 50 * 2


def test_the_table_for_the_next_training(url: str, tmp_path: Path) -> None:
    store = opened(url)
    store.add([click(2, type="orders"), click(1)], NOW)
    assert store.write_csv(tmp_path / "events.csv") == 2
    head, *rows = (tmp_path / "events.csv").read_text().splitlines()
    assert head == "session,aid,ts,type"
    assert sorted(rows) == ["7,1,1659304801,clicks", "7,2,1659304802,orders"]
