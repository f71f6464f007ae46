from __future__ import annotations

import gc
import logging
import signal
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from maru.storage.database import connect
from maru.storage.measurements import InferenceRow, MachineRow, Measurements, Row
from maru.storage.metrics_writer import MetricsWriter
from maru.storage.migrate import migrate
from maru.storage.timescale import prepare

from .postgres import PostgresServer

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def opened(url: str) -> Measurements:
    engine = connect(url)
    migrate(engine)
    return Measurements(engine, prepare(engine))


def sample(n: int) -> MachineRow:
    return MachineRow(NOON + timedelta(microseconds=n), "b1", cpu_percent=float(n % 100))


def held(store: Measurements) -> list[datetime]:
    return [row.time for row in store.samples("b1", most=10**6)]


class Faulty:
    """Measurements whose commits fail as they are told: before they are made, or after, unheard of."""

    def __init__(self, store: Measurements) -> None:
        self.store = store
        self.faults: list[Exception] = []
        self.unheard: list[Exception] = []
        self.calls = 0

    def write(self, rows: Sequence[Row], writer: str, batch: int, now: datetime) -> bool:
        self.calls += 1
        if self.faults:
            raise self.faults.pop()
        new = self.store.write(rows, writer, batch, now)
        if self.unheard:
            raise self.unheard.pop()
        return new

    def forget(self, now: datetime) -> None:
        pass


def broken() -> Exception:
    from sqlalchemy.exc import OperationalError

    return OperationalError("INSERT", {}, Exception("the server closed the connection"))


def test_what_is_added_is_stored_without_being_asked_for(url: str) -> None:
    store = opened(url)
    with MetricsWriter(store, every_s=0.05) as writer:
        writer.add(sample(1), sample(2))
        writer.add(InferenceRow(NOON, "tiny", 1, 2, 3.0, 0.1, 0.5))
        until = time.monotonic() + 10
        while writer.written < 3:
            assert time.monotonic() < until
            time.sleep(0.01)
    assert held(store) == [sample(1).time, sample(2).time]
    assert len(store.inferences("tiny")) == 1


def test_the_rest_is_stored_at_the_end(url: str) -> None:
    store = opened(url)
    with MetricsWriter(store, every_s=60.0) as writer:
        writer.add(*map(sample, range(12_345)))
    assert len(held(store)) == 12_345
    assert (writer.written, writer.lost) == (12_345, 0)


def test_five_thousand_a_second_without_loss_and_nobody_waits(url: str) -> None:
    """As fast as can be: what is added in a second, 5,000 at a time, is stored; adding takes no time."""
    store = opened(url)
    slowest = 0.0
    with MetricsWriter(store) as writer:
        began = time.monotonic()
        gc.disable()  # which would look through everything that all tests have made
        for first in range(0, 20_000, 10):
            before = time.thread_time()
            writer.add(*map(sample, range(first, first + 10)))
            slowest = max(slowest, time.thread_time() - before)
        gc.enable()
        assert writer.flush(timeout_s=60)
        took = time.monotonic() - began
    assert sorted(held(store)) == [sample(n).time for n in range(20_000)]
    assert writer.lost == 0
    assert slowest < 0.05, "adding never writes"
    assert took < 60


def test_a_flush_waits_for_what_was_added_before_it(url: str) -> None:
    store = opened(url)
    with MetricsWriter(store, every_s=60.0) as writer:
        writer.add(*map(sample, range(100)))
        assert writer.flush()
        assert len(held(store)) == 100
        assert writer.flush(), "of nothing"


def test_a_commit_that_was_not_heard_of_is_not_made_twice(url: str) -> None:
    store = opened(url)
    faulty = Faulty(store)
    faulty.unheard = [broken(), broken()]
    faulty.faults = [broken()]
    with MetricsWriter(faulty, every_s=0.02) as writer:  # type: ignore[arg-type]
        writer.add(*map(sample, range(50)))
        assert writer.flush(20)
        assert len(held(store)) == 50
    assert faulty.calls == 4 and writer.written == 50 and writer.lost == 0


def test_while_the_database_is_away_rows_wait_and_the_oldest_go_first(tmp_path: object) -> None:
    store = opened(f"sqlite:///{tmp_path}/maru.db")
    faulty = Faulty(store)
    faulty.faults = [broken() for _ in range(3)]
    writer = MetricsWriter(faulty, most=100, every_s=0.05)  # type: ignore[arg-type]
    with writer:
        for n in range(500):
            writer.add(sample(n))
        assert writer.flush(20)
    times = held(store)
    assert len(times) + writer.lost == 500 and 100 <= len(times) < 500
    assert times[-100:] == [sample(n).time for n in range(400, 500)]


def test_what_the_database_refuses_is_counted_and_does_not_stand_in_the_way(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(url)
    with MetricsWriter(store, every_s=0.02) as writer, caplog.at_level(logging.ERROR):
        writer.add(InferenceRow(NOON, "tiny", 2**70, 1, None, None, 1.0))
        assert writer.flush(10)
        writer.add(sample(1))
        assert writer.flush(10)
    assert (writer.lost, writer.written) == (1, 1)
    assert len(held(store)) == 1
    assert "1 rows of metrics were refused" in caplog.text


def test_many_threads_add_at_once(url: str) -> None:
    store = opened(url)
    with MetricsWriter(store, every_s=0.01) as writer:
        threads = [
            threading.Thread(target=lambda first=first: [writer.add(sample(n)) for n in range(first, first + 500)])
            for first in range(0, 2000, 500)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(held(store)) == [sample(n).time for n in range(2000)]


def test_a_flush_and_an_end_give_up_on_a_database_that_stays_away(caplog: pytest.LogCaptureFixture) -> None:
    class Away:
        def write(self, *_: object) -> bool:
            raise broken()

        def forget(self, now: datetime) -> None:
            pass

    writer = MetricsWriter(Away(), every_s=0.02)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        writer.__enter__()
        writer.add(sample(1))
        assert not writer.flush(timeout_s=0.3)
        writer.close(timeout_s=0.3)
    assert writer.lost == 1
    assert caplog.text.count("can't be stored") == 1, "told once, not at every try"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
def test_a_restart_of_postgresql_loses_no_row_and_doubles_none(number: int) -> None:
    with PostgresServer() as server:
        store = opened(server.database())
        with MetricsWriter(store, every_s=0.02) as writer:
            for n in range(0, 3000, 10):
                writer.add(*map(sample, range(n, n + 10)))
                if n == 1500:
                    server.stop(number)
                    writer.add(sample(10**6))
                    server.start()
                time.sleep(0.001)
            assert writer.flush(30)
        times = sorted(held(store))
    assert times == [*(sample(n).time for n in range(3000)), sample(10**6).time]
    assert writer.lost == 0
