from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from maru.storage.database import connect
from maru.storage.measurements import InferenceRow, MachineRow, Measurements, Minute
from maru.storage.migrate import migrate
from maru.storage.timescale import prepare

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def opened(url: str) -> Measurements:
    engine = connect(url)
    migrate(engine)
    return Measurements(engine, prepare(engine))


def sample(seconds: float, **figures: Any) -> MachineRow:
    return MachineRow(NOON + timedelta(seconds=seconds), "b1", **figures)


def test_samples_come_back_as_they_were_in_order(url: str) -> None:
    rows = [
        sample(
            0.1, temperature=41.5, memory_used=2**40, memory_total=2**41, utilization=99.0, power_usage=350.25, gpu=0
        ),
        sample(0.1, temperature=40.0, gpu=1, cpu_percent=12.5, host_memory_used=2**34, host_memory_total=2**35),
        sample(0.2, cpu_percent=100.0),
    ]
    opened(url).write(rows[::-1], "w", 1, NOON)
    store = opened(url)
    assert store.samples("b1") == rows
    assert store.samples("b1", start=NOON + timedelta(seconds=0.2)) == rows[2:]
    assert store.samples("b1", end=NOON + timedelta(seconds=0.2), most=1) == rows[:1]
    assert store.samples("b2") == []


def test_the_same_minutes_on_every_database(url: str) -> None:
    """Added up over several batches, with nulls, whichever comes first; a null is no figure and no zero."""
    store = opened(url)
    store.write([sample(1, temperature=40.0), sample(2, cpu_percent=10.0, memory_used=7)], "w", 1, NOON)
    store.write([sample(30, temperature=50.0, memory_used=9), sample(59.9, host_memory_used=5)], "w", 2, NOON)
    store.write([sample(59, memory_used=3), sample(60, power_usage=100.0), sample(61, utilization=80.0)], "w", 3, NOON)
    assert store.minutes("b1") == [
        Minute(NOON, 45.0, 9, None, None, 10.0, 5),
        Minute(NOON + timedelta(minutes=1), None, None, 80.0, 100.0, None, None),
    ]
    assert store.minutes("b2") == []


def test_the_minutes_are_those_of_the_samples(url: str) -> None:
    store = opened(url)
    rows = [
        sample(n / 10, temperature=40 + math.sin(n), memory_used=n % 97, cpu_percent=float(n % 101))
        for n in range(1800)
    ]
    for first in range(0, 1800, 250):
        store.write(rows[first : first + 250], "w", first + 1, NOON)
    kept = store.samples("b1")
    assert kept == rows
    for minute in store.minutes("b1"):
        inside = [row for row in kept if minute.bucket <= row.time < minute.bucket + timedelta(minutes=1)]
        assert minute.avg_temperature == pytest.approx(sum(row.temperature or 0 for row in inside) / len(inside))
        assert minute.avg_cpu == pytest.approx(sum(row.cpu_percent or 0 for row in inside) / len(inside))
        assert minute.max_memory == max(row.memory_used or 0 for row in inside)
    assert len(store.minutes("b1")) == 3


def test_a_batch_is_stored_once(url: str) -> None:
    """A writer that has not heard whether its commit came through sends the batch again."""
    store = opened(url)
    assert store.write([sample(1, cpu_percent=1.0)], "w", 1, NOON)
    assert not store.write([sample(1, cpu_percent=1.0)], "w", 1, NOON)
    assert store.write([sample(1, cpu_percent=1.0)], "another", 1, NOON)
    assert store.write([sample(2, cpu_percent=4.0)], "w", 2, NOON)
    assert len(store.samples("b1")) == 3
    assert store.minutes("b1")[0].avg_cpu == 2.0


def test_a_batch_is_stored_whole_or_not_at_all(url: str) -> None:
    store = opened(url)
    bad = InferenceRow(NOON, "tiny", 2**70, 1, None, None, 1.0)
    with pytest.raises(Exception, match=r"."):
        store.write([sample(1, cpu_percent=1.0), bad], "w", 1, NOON)
    assert store.samples("b1") == [] and store.minutes("b1") == []
    assert store.write([sample(1)], "w", 1, NOON), "its number is still free"


def test_generations_are_kept(url: str) -> None:
    store = opened(url)
    lines = [InferenceRow(NOON + timedelta(seconds=n), "tiny", n, 2 * n, 0.5 * n or None, None, 1.0) for n in range(5)]
    store.write([*lines, InferenceRow(NOON, "other", 1, 1, None, 0.1, 1.0)], "w", 1, NOON)
    assert store.inferences("tiny") == lines[::-1]
    assert store.inferences("tiny", most=2) == [lines[4], lines[3]]


def test_what_is_older_than_three_months_is_forgotten(url: str) -> None:
    store = opened(url)
    store.write([sample(0), sample(86_400 * 10), InferenceRow(NOON, "tiny", 1, 1, None, None, 1.0)], "w", 1, NOON)
    if prepare(connect(url)).aggregates:
        pytest.skip("TimescaleDB forgets by itself: see test_timescale")
    store.forget(NOON + timedelta(days=91))
    assert [row.time for row in store.samples("b1")] == [NOON + timedelta(days=10)]
    assert store.inferences("tiny") == []
