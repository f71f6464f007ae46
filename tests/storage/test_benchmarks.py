from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from maru.engine.errors import QueueFull
from maru.storage.benchmarks import BenchmarkRuns, Conclusion
from maru.storage.database import connect
from maru.storage.measurement_tables import benchmark_history
from maru.storage.migrate import migrate


def opened(url: str, **options: Any) -> BenchmarkRuns:
    engine = connect(url)
    migrate(engine)
    return BenchmarkRuns(engine, **options)


def waits(runs: BenchmarkRuns, *ids: str, owner: str = "ann", most: int = 100) -> None:
    for each in ids:
        runs.add(each, "tiny", {"test_prompts": ["한글 🙂"]}, owner, most)


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def test_a_run_from_the_request_to_the_result(url: str) -> None:
    runs = opened(url)
    waits(runs, "b1")
    assert (added := runs.get("b1")) and added.status == "started" and not added.ended
    taken = runs.claim("me")
    assert taken and taken.benchmark_id == "b1" and taken.config == {"test_prompts": ["한글 🙂"]}
    assert runs.beat("b1", "me", {"done": 3}) == "go"
    assert (going := runs.get("b1")) and going.status == "running" and going.progress == {"done": 3}
    figures = {"levels": [{"gaps": [0.25, 1e-9]}]}
    assert runs.finish("b1", "me", Conclusion("completed", None, 42.3, 0.23, 2**40, figures))
    ended = opened(url).get("b1")
    assert ended and ended.status == "completed" and ended.ended
    assert (ended.avg_tokens_per_second, ended.avg_time_to_first_token) == (42.3, 0.23)
    assert (ended.memory_peak_bytes, ended.results, ended.error) == (2**40, figures, None)
    assert ended.created_at <= (ended.started_at or ended.created_at) <= (ended.finished_at or ended.created_at)
    assert abs((datetime.now(UTC) - ended.created_at).total_seconds()) < 60
    assert runs.get("b1", results=False).results is None  # type: ignore[union-attr]
    assert runs.get("b2") is None


def test_one_runs_at_a_time_and_the_first_to_come_is_the_first_to_go(url: str) -> None:
    runs = opened(url)
    waits(runs, "b2", "b1", "b3")
    assert (first := runs.claim("me")) and first.benchmark_id == "b2"
    assert runs.claim("me") is None and runs.claim("another") is None
    runs.finish("b2", "me", Conclusion("failed", "no such model"))
    assert (second := runs.claim("another")) and second.benchmark_id == "b1"


def test_the_table_itself_lets_no_second_run_be_running(url: str) -> None:
    engine = connect(url)
    runs = opened(url)
    waits(runs, "b1", "b2")
    runs.claim("me")
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(benchmark_history.update().values(status="running"))


def test_so_many_of_one_owner_may_wait(url: str) -> None:
    runs = opened(url)
    waits(runs, "b1", "b2", most=2)
    with pytest.raises(QueueFull):
        waits(runs, "b3", most=2)
    assert runs.get("b3") is None
    waits(runs, "b3", owner="bob", most=2)
    runs.claim("me")
    waits(runs, "b4", most=2)


def test_one_that_waits_is_cancelled_at_once_and_one_that_runs_at_its_next_beat(url: str) -> None:
    runs = opened(url)
    waits(runs, "b1", "b2")
    runs.claim("me")
    assert (running := runs.cancel("b1")) and running.status == "running"
    assert (waiting := runs.cancel("b2")) and waiting.status == "cancelled"
    assert runs.beat("b1", "me", {}) == "cancel"
    assert runs.finish("b1", "me", Conclusion("cancelled"))
    assert (ended := runs.cancel("b1")) and ended.status == "cancelled"
    assert runs.cancel("nobody") is None
    assert runs.claim("me") is None, "what was cancelled is not run"


def test_what_nobody_holds_any_more_has_failed(url: str) -> None:
    runs = opened(url, lease_s=0.2)
    waits(runs, "b1", "b2")
    runs.claim("dead")
    assert runs.expire("me") == [], "it is held yet"
    until(lambda: runs.expire("me") == ["b1"])
    assert (failed := runs.get("b1")) and (failed.status, failed.error) == ("failed", "interrupted")
    assert runs.beat("b1", "dead", {}) == "lost"
    assert not runs.finish("b1", "dead", Conclusion("completed")), "its executor is too late"
    assert (next_one := runs.claim("me")) and next_one.benchmark_id == "b2"


def test_a_beat_holds_it_also_a_late_one_if_nobody_took_it(url: str) -> None:
    runs = opened(url, lease_s=0.5)
    waits(runs, "b1")
    runs.claim("me")
    began = time.monotonic()
    while time.monotonic() < began + 1.0:
        assert runs.beat("b1", "me", {}) == "go"
        assert runs.expire("another") == []
        time.sleep(0.05)
    time.sleep(0.6)
    assert runs.beat("b1", "me", {}) == "go"
    assert runs.expire("another") == []


def test_a_claim_that_was_never_heard_of_is_not_held_for_ever(url: str) -> None:
    """The connection broke after the commit: whoever has claimed it does not know, and does nothing."""
    runs = opened(url, lease_s=60.0)
    waits(runs, "b1", "b2")
    runs.claim("me")
    assert runs.expire("me") == ["b1"]
    assert (failed := runs.get("b1")) and failed.error == "interrupted"
    assert (next_one := runs.claim("me")) and next_one.benchmark_id == "b2"


def test_the_latest_come_first(url: str) -> None:
    runs = opened(url)
    waits(runs, "b1", "b2")
    runs.add("b3", "other", {}, "ann", 100)
    assert [run.benchmark_id for run in runs.latest()] == ["b3", "b2", "b1"]
    assert [run.benchmark_id for run in runs.latest("tiny", most=1)] == ["b2"]


def test_of_many_who_claim_one_gets_it(url: str) -> None:
    opened(url)
    stores = [BenchmarkRuns(connect(url)) for _ in range(4)]
    waits(stores[0], *(f"b{n}" for n in range(8)))
    held: list[str] = []
    overlaps: list[int] = []
    inside = 0
    lock = threading.Lock()
    faults: list[BaseException] = []

    def work(store: BenchmarkRuns, name: str) -> None:
        nonlocal inside
        try:
            while len(held) < 8:
                run = store.claim(name)
                if run is None:
                    time.sleep(0.001)
                    continue
                with lock:
                    inside += 1
                    overlaps.append(inside)
                    held.append(run.benchmark_id)
                time.sleep(0.005)
                with lock:
                    inside -= 1
                assert store.finish(run.benchmark_id, name, Conclusion("completed"))
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(store, f"e{n}")) for n, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert sorted(held) == [f"b{n}" for n in range(8)]
    assert set(overlaps) == {1}


def _claim_and_hang(url: str, told: Any) -> None:
    runs = BenchmarkRuns(connect(url), lease_s=1.0)
    run = runs.claim("killed")
    told.send(run and run.benchmark_id)
    while True:
        runs.beat("b1", "killed", {})
        time.sleep(0.1)


def test_a_killed_executor_is_found_out_within_its_lease(url: str) -> None:
    runs = opened(url, lease_s=1.0)
    waits(runs, "b1")
    spawn = multiprocessing.get_context("spawn")
    heard, told = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_claim_and_hang, args=(url, told))
    process.start()
    assert heard.recv() == "b1"
    process.kill()
    process.join()
    began = time.monotonic()
    until(lambda: runs.expire("me") == ["b1"], timeout_s=5.0)
    assert time.monotonic() - began < 5.0
