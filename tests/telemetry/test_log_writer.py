from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import select
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

import orjson
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from maru.engine.types import Request
from maru.telemetry.log_writer import LogWriter
from maru.telemetry.logs import EventLog, configure

from .samples import finished


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that nobody reads unless the test does."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def writer_to(fd: int, most: int = 100) -> tuple[LogWriter, logging.Logger]:
    writer = LogWriter(fd, most)
    logger = logging.Logger("maru.test")
    logger.addHandler(writer)
    return writer, logger


def read_until(fd: int, done: Callable[[], bool]) -> list[dict[str, object]]:
    """The lines that come out of the pipe until `done`, and for a tenth of a second after."""
    data = b""
    while True:
        ready, _, _ = select.select([fd], [], [], 0.1)
        if ready:
            data += os.read(fd, 1 << 16)
        elif done():
            return [orjson.loads(line) for line in data.splitlines()]


def test_a_reader_that_stopped_costs_lines_and_no_time(quiet: None, pipe: tuple[int, int]) -> None:
    """The event loop goes on while standard output is stuck, and all lines are accounted for afterwards."""
    read, write = pipe
    lines = 30_000
    writer = configure(fd=write)

    async def serve() -> None:
        log = EventLog()
        for n in range(lines):
            log.http(finished(items=n))
            if n % 100 == 0:
                await asyncio.sleep(0)

    loop = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    loop.start()
    loop.join(30)
    assert not loop.is_alive(), "the event loop waits for a log line to be read"
    assert writer.dropped > lines / 2

    got = read_until(read, lambda: writer._waiting.empty())
    written = sum(line["event"] == "request" for line in got)
    told = sum(line["lines"] for line in got if line["event"] == "log_lines_dropped")  # type: ignore[misc]
    assert written + writer.dropped == lines
    assert told == writer.dropped
    writer.close()


def test_lines_that_wait_hold_on_to_nothing_that_was_asked(quiet: None, pipe: tuple[int, int]) -> None:
    """Thousands may wait where the reader has stopped, and a request may be an image."""

    class Image:
        pass

    asked = Image()
    alive = weakref.ref(asked)
    writer = configure(fd=pipe[1])
    for _ in range(2000):
        EventLog(writer).http(finished())  # more than the pipe takes
    EventLog(writer).http(finished(request=Request("m", [asked], 1.0)))
    del asked
    assert not writer._waiting.empty() and alive() is None
    writer.close(0.2)


def test_dropped_lines_are_a_metric(pipe: tuple[int, int]) -> None:
    writer, logger = writer_to(pipe[1], most=0)
    registry = CollectorRegistry()
    registry.register(writer)
    logger.warning("lost")
    assert b"maru_log_lines_dropped_total 1.0" in generate_latest(registry)
    writer.close()


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(pipe: tuple[int, int]) -> None:
    read, write = pipe
    fcntl.fcntl(write, fcntl.F_SETFL, fcntl.fcntl(write, fcntl.F_GETFL) | os.O_NONBLOCK)
    writer, logger = writer_to(write, most=10_000)
    for n in range(5000):
        logger.warning("%d %s", n, "x" * 100)
    got = read_until(read, lambda: writer._waiting.empty())
    assert [str(line["event"]).split()[0] for line in got] == [str(n) for n in range(5000)]
    assert writer.dropped == 0
    writer.close()


def test_a_full_disk_is_survived() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    writer, logger = writer_to(full)
    for _ in range(10):
        logger.warning("lost")
    writer.flush()
    assert writer.dropped == 10
    logger.warning("still here")
    writer.flush()
    assert writer.dropped == 11
    writer.close()
    os.close(full)


def test_a_reader_that_left_is_survived() -> None:
    read, write = os.pipe()
    writer, logger = writer_to(write)
    os.close(read)
    logger.warning("lost")
    writer.flush()
    assert writer.dropped == 1
    writer.close()
    os.close(write)


def test_a_record_that_cannot_be_formatted_fails_nobody(pipe: tuple[int, int]) -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    writer, logger = writer_to(pipe[1])
    logger.warning(Hostile())
    logger.warning("%s", Hostile())
    assert writer.dropped == 2
    writer.close()


def test_closing_does_not_wait_for_a_stuck_reader(pipe: tuple[int, int]) -> None:
    writer, logger = writer_to(pipe[1], most=10_000)
    for _ in range(2000):
        logger.warning("x" * 500)
    closing = threading.Thread(target=writer.close, args=(0.2,))
    closing.start()
    closing.join(5)
    assert not closing.is_alive()


PROGRAM = """
import logging
from maru.telemetry.logs import configure
configure()
for n in range({lines}):
    logging.getLogger("maru").info("line %d " + "x" * 200, n)
"""


def test_a_process_that_ends_has_written_all() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(lines=1000)], capture_output=True, check=True, timeout=30
    )
    events = [orjson.loads(line)["event"].split()[1] for line in done.stdout.splitlines()]
    assert events == [str(n) for n in range(1000)]
    assert done.stderr == b""


def test_a_process_whose_output_is_stuck_still_ends() -> None:
    stuck = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(lines=5000)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert stuck.wait(20) == 0
        assert stuck.stderr is not None
        assert stuck.stderr.read() == b""
    finally:
        stuck.kill()
        stuck.communicate()
