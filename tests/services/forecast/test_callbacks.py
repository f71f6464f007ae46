"""When callbacks are tried, how many at once, and when no more: over real sockets, with a clock that tests move."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from maru.engine.errors import QueueFull
from maru.http.fetch import Fetcher, Posted
from maru.http.problem import Problem
from maru.services.forecast.callbacks import FIRST_TRIES_A_HOST, LATER_TRIES_A_HOST, Callbacks, Pace
from maru.storage import database
from maru.storage.callbacks import Outbox

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        return self.passed

    def now(self) -> datetime:
        return START + timedelta(seconds=self.passed)


class Host:
    """A receiver of callbacks on a port of its own. `answer` None takes requests and says nothing."""

    def __init__(self, answer: str | None = "200 OK") -> None:
        self.answer = answer
        self.requests = 0
        self.open = 0
        self.most_open = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            self.open += 1
            self.most_open = max(self.open, self.most_open)
            if self.answer is None:
                await reader.read()
                await reader.read()
            else:
                writer.write(f"HTTP/1.1 {self.answer}\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
            self.open -= 1
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class Office:
    def __init__(self, place: Path, pace: Pace, chance: float = 1.0, most: int = 1000) -> None:
        tables = database.connect(f"sqlite:///{place}/maru.db")
        database.create(tables)
        self.tables = tables
        self.outbox = Outbox(tables, most)
        self.clock = Clock()
        self.hosts: list[Host] = []
        self.ports: list[int] = []
        self._pace = pace
        self._chance = chance
        self._servers: list[asyncio.Server] = []

    async def add(self, host: Host) -> str:
        server = await asyncio.start_server(host, "127.0.0.1", 0)
        self._servers.append(server)
        self.ports.append(server.sockets[0].getsockname()[1])
        return f"http://127.0.0.1:{self.ports[-1]}/hook"

    @asynccontextmanager
    async def open(self, *, delivering: bool = True, first_s: float = 0.3) -> AsyncIterator[Callbacks]:
        hosts = {f"127.0.0.1:{port}" for port in self.ports}
        clock, chance = self.clock, self._chance
        async with Fetcher(hosts, total_timeout_s=first_s) as first, Fetcher(hosts, total_timeout_s=2.0) as later:
            callbacks = Callbacks(
                self.outbox, first, later, pace=self._pace, clock=clock, now=clock.now, chance=lambda: chance
            )
            if delivering:
                async with callbacks.delivering():
                    yield callbacks
            else:
                yield callbacks

    def waits_s(self) -> list[float]:
        """How long from now each callback of the outbox waits."""
        return [(callback.due - self.clock.now()).total_seconds() for callback in self.outbox.all()]


async def come(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(8):
        while not condition():
            await asyncio.sleep(0.01)


QUICK = Pace(poll_s=0.01, rest_s=0.0)


def test_each_try_waits_up_to_twice_as_long_as_the_one_before(tmp_path: Path) -> None:
    async def main() -> None:
        office = Office(tmp_path, QUICK)
        host = Host("500 Oops")
        url = await office.add(host)
        async with office.open() as callbacks:
            assert not await callbacks.send(url, b"{}")
            waits = office.waits_s()
            for tried in range(2, 14):
                office.clock.passed += waits[-1]
                await come(lambda tried=tried: host.requests == tried)
                await come(lambda waited=waits[-1]: office.waits_s() not in ([], [0.0], [30.0]))
                waits += office.waits_s()
        assert waits == [min(5.0 * 2**n, 3600.0) for n in range(13)]

    asyncio.run(main())


def test_chance_decides_how_long_of_that(tmp_path: Path) -> None:
    async def main() -> None:
        office = Office(tmp_path, QUICK, chance=0.25)
        url = await office.add(Host("500 Oops"))
        async with office.open(delivering=False) as callbacks:
            await callbacks.send(url, b"{}")
        assert office.waits_s() == [1.25]

    asyncio.run(main())


def test_the_host_may_ask_for_longer_but_not_for_shorter(tmp_path: Path) -> None:
    async def main() -> None:
        office = Office(tmp_path, QUICK)
        longer = await office.add(Host("429 Slow down\r\nRetry-After: 600"))
        shorter = await office.add(Host("503 Busy\r\nRetry-After: 1"))
        async with office.open(delivering=False) as callbacks:
            await callbacks.send(longer, b"{}")
            await callbacks.send(shorter, b"{}")
        assert office.waits_s() == [5.0, 600.0]

    asyncio.run(main())


@pytest.mark.parametrize("said", ["500 Oops", "503 Busy\r\nRetry-After: 999999999"])
def test_after_a_day_it_is_given_up(tmp_path: Path, said: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        office = Office(tmp_path, QUICK)
        host = Host("500 Oops")
        url = await office.add(host)
        async with office.open() as callbacks:
            await callbacks.send(url, b"{}")
            host.answer = said
            office.clock.passed = 24 * 3600.0 - 1
            await come(lambda: "is given up" in caplog.text)
        assert host.requests == 2 and office.outbox.all() == []

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert "/hook" not in caplog.text


def test_a_host_that_let_one_wait_is_not_waited_for_until_later(tmp_path: Path) -> None:
    async def main() -> None:
        office = Office(tmp_path, Pace(slow_s=1.0, spared_s=30.0))
        silent = Host(None)
        url, sound = await office.add(silent), await office.add(Host())
        async with office.open(delivering=False) as callbacks:
            sending = asyncio.create_task(callbacks.send(url, b"{}"))
            await come(lambda: silent.requests == 1)
            office.clock.passed += 3.0
            assert await sending is False
            for _ in range(5):
                assert await asyncio.wait_for(callbacks.send(url, b"{}"), 0.25) is False
            assert silent.requests == 1 and len(office.outbox.all()) == 6
            assert await callbacks.send(sound, b"{}")
            silent.answer = "200 OK"
            office.clock.passed += 31.0
            assert await callbacks.send(url, b"{}")

    asyncio.run(main())


def test_a_host_that_fails_at_once_is_asked_again_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        office = Office(tmp_path, QUICK)
        host = Host("500 Oops")
        url = await office.add(host)
        async with office.open(delivering=False) as callbacks:
            assert not await callbacks.send(url, b"{}")
            host.answer = "204 No Content"
            assert await callbacks.send(url, b"{}")

    asyncio.run(main())


def test_no_more_requests_wait_for_a_host_than_it_is_worth(tmp_path: Path) -> None:
    async def main() -> None:
        office = Office(tmp_path, QUICK)
        silent = Host(None)
        url = await office.add(silent)
        async with office.open(delivering=False, first_s=1.0) as callbacks:
            sent = await asyncio.gather(*(callbacks.send(url, b"{}") for _ in range(60)))
        assert not any(sent) and silent.requests == silent.most_open == FIRST_TRIES_A_HOST
        assert len(office.outbox.all()) == 60
        assert Counter(kept.attempts for kept in office.outbox.all()) == {
            1: FIRST_TRIES_A_HOST,
            0: 60 - FIRST_TRIES_A_HOST,
        }

    asyncio.run(main())


def test_the_outbox_is_emptied_host_by_host(tmp_path: Path) -> None:
    """A few at once of each, whatever another does."""

    async def main() -> None:
        office = Office(tmp_path, QUICK)
        silent, sound = Host("500 Oops"), Host("500 Oops")
        lost, fine = await office.add(silent), await office.add(sound)
        async with office.open(delivering=False) as callbacks:
            for _ in range(20):
                await callbacks.send(lost, b"{}")
            for _ in range(20):
                await callbacks.send(fine, b"{}")
        silent.answer, sound.answer = None, "200 OK"
        silent.requests = sound.requests = sound.most_open = silent.most_open = 0
        office.clock.passed += 10
        async with office.open(), asyncio.timeout(1.5):  # before any of those to the silent host has ended
            await come(lambda: sound.requests == 20)
            await come(lambda: len(office.outbox.all()) == 20)
            assert silent.requests == silent.most_open == LATER_TRIES_A_HOST
            assert sound.most_open <= LATER_TRIES_A_HOST

    asyncio.run(main())


def test_what_can_not_be_kept_is_said(tmp_path: Path) -> None:
    async def main() -> None:
        office = Office(tmp_path, QUICK, most=3)
        url = await office.add(Host("500 Oops"))
        async with office.open(delivering=False) as callbacks:
            sent = await asyncio.gather(*(callbacks.send(url, b"{}") for _ in range(5)), return_exceptions=True)
            assert Counter(map(type, sent)) == {bool: 3, QueueFull: 2}
            with office.tables.begin() as tables:
                tables.exec_driver_sql("DROP TABLE callbacks")
            with pytest.raises(Problem) as told:
                await callbacks.send(url, b"{}")
            assert told.value.status == 503

    asyncio.run(main())


def test_delivering_outlives_a_database_that_comes_and_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        office = Office(tmp_path, QUICK)
        host = Host("500 Oops")
        url = await office.add(host)
        async with office.open() as callbacks:
            await callbacks.send(url, b"{}")
            with office.tables.begin() as tables:
                tables.exec_driver_sql("ALTER TABLE callbacks RENAME TO away")
            await come(lambda: "can't be read" in caplog.text)
            with office.tables.begin() as tables:
                tables.exec_driver_sql("ALTER TABLE away RENAME TO callbacks")
            await come(lambda: "can be read and written again" in caplog.text)
            host.answer = "200 OK"
            office.clock.passed += 10
            await come(lambda: office.outbox.all() == [])
        assert caplog.text.count("can't be read") == 1

    with caplog.at_level(logging.INFO):
        asyncio.run(main())


def test_delivering_outlives_what_nobody_foresaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        office = Office(tmp_path, Pace(poll_s=0.01, rest_s=0.0, lease_s=5.0))
        host = Host("500 Oops")
        url = await office.add(host)
        async with office.open() as callbacks:
            await callbacks.send(url, b"{}")
            failed = asyncio.Event()

            async def strange(*_: object) -> Posted:
                failed.set()
                raise RuntimeError

            post = Fetcher.post
            monkeypatch.setattr(Fetcher, "post", strange)
            office.clock.passed += 10
            await asyncio.wait_for(failed.wait(), 5)
            monkeypatch.setattr(Fetcher, "post", post)
            host.answer = "200 OK"
            office.clock.passed += 10
            await come(lambda: office.outbox.all() == [])

    asyncio.run(main())
