from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from maru.storage.callbacks import Callback, Outbox
from maru.storage.database import connect, create

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def callback(id: str, host: str = "a.example:80", due: datetime = NOW) -> Callback:
    return Callback(id, f"http://{host}/hook?token=비밀", host, b'{"close": 1}\x00\xff', NOW, due)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/maru.db"


@pytest.fixture
def outbox(url: str) -> Outbox:
    engine = connect(url)
    create(engine)
    return Outbox(engine, most=100)


def claim(outbox: Outbox, now: datetime = NOW, **options: object) -> list[str]:
    given = {"lease_s": 30.0, "most": 10, "per_host": 4, **options}
    return [claimed.id for claimed in outbox.claim(now, **given)]  # type: ignore[arg-type]


def test_a_callback_comes_back_as_it_was(outbox: Outbox) -> None:
    assert outbox.add([callback("1")]) == 1
    assert outbox.all() == [callback("1")]


def test_who_claims_has_it_alone_until_the_lease_ends(outbox: Outbox) -> None:
    outbox.add([callback("1")])
    (claimed,) = outbox.claim(NOW, lease_s=30, most=10, per_host=4)
    assert (claimed.attempts, claimed.due) == (1, NOW + 30 * SECOND)
    assert claim(outbox) == claim(outbox, NOW + 29 * SECOND) == []
    assert claim(outbox, NOW + 30 * SECOND) == ["1"]
    assert outbox.all()[0].attempts == 2


def test_what_is_not_due_yet_waits(outbox: Outbox) -> None:
    outbox.add([callback("later", due=NOW + SECOND), callback("now")])
    assert claim(outbox) == ["now"]
    assert claim(outbox, NOW + SECOND) == ["later"]


def test_putting_off_finishing_and_giving_back(outbox: Outbox) -> None:
    outbox.add([callback("1"), callback("2"), callback("3")])
    assert sorted(claim(outbox)) == ["1", "2", "3"]
    outbox.put_off("1", NOW + 5 * SECOND)
    outbox.finish("2")
    outbox.release(["3"], NOW)
    assert claim(outbox) == ["3"]
    assert claim(outbox, NOW + 5 * SECOND) == ["1"]
    assert [left.id for left in outbox.all()] == ["3", "1"]


def test_a_host_with_many_does_not_hold_up_another(outbox: Outbox) -> None:
    outbox.add([callback(f"many-{n}", due=NOW - 60 * SECOND) for n in range(50)])
    outbox.add([callback("one", "b.example:443"), callback("two", "c.example:80")])
    claimed = claim(outbox, most=5)
    assert len(claimed) == 5 and {"one", "two"} <= set(claimed)
    assert len(claim(outbox, per_host=2, most=50)) == 2
    assert claim(outbox, without={"a.example:80"}) == []


def test_it_holds_so_many_and_no_more(outbox: Outbox) -> None:
    assert outbox.add([callback(f"{n}") for n in range(90)]) == 90
    assert outbox.add([callback(f"more-{n}") for n in range(20)]) == 10
    assert outbox.add([callback("full")]) == 0
    outbox.finish("0")
    assert outbox.add([callback("again")]) == 1
    assert {"more-9", "again"} <= {held.id for held in outbox.all()}


def test_several_processes_share_it_and_none_takes_what_another_has(outbox: Outbox, url: str) -> None:
    """Each thread has an engine of its own, as a process has."""
    outbox.add([callback(f"{n}", f"h{n % 7}.example:80") for n in range(100)])
    taken: list[str] = []
    faults: list[BaseException] = []

    def work() -> None:
        try:
            own = Outbox(connect(url))
            while claimed := claim(own, most=3):
                taken.extend(claimed)
                own.finish(claimed[0])
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert sorted(taken) == sorted(f"{n}" for n in range(100))


def test_what_is_sent_is_not_shown() -> None:
    assert "비밀" not in repr(callback("1")) and "close" not in repr(callback("1"))
