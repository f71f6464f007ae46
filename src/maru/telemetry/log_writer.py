"""Log lines on their way out, which nobody waits for."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from queue import SimpleQueue

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily

from maru.telemetry.log_format import Fields, JsonLines, TextLines

_GATHER_S = 0.02
"""How long lines gather between writes: waking a thread for each costs more than writing it."""


class LogWriter(logging.Handler):
    """Writes lines to a file descriptor from a thread of its own.

    Logging never waits: when `most` lines are waiting, because whoever reads them has stopped, the disk is
    full, or there are just too many, a line is dropped and counted. The count is said in a line of its own
    once lines go out again, and as `maru_log_lines_dropped_total` where the writer is in a registry.

    Lines are put into words in that thread too, many in a row: done one at a time, between the parts of a request,
    each cost several times as much.
    """

    def __init__(self, fd: int = 1, most: int = 8192, lines: JsonLines | TextLines | None = None) -> None:
        super().__init__()
        self.lines = lines or JsonLines()
        self.setFormatter(self.lines)
        self._fd = os.dup(fd)
        self._most = most
        self._waiting: SimpleQueue[str | Callable[[], str] | threading.Event | None] = SimpleQueue()
        self._refused = 0
        self._unwritten = 0
        self._told = 0
        self._thread = threading.Thread(target=self._run, name="maru-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were logged and not written."""
        return self._refused + self._unwritten

    def emit(self, record: logging.LogRecord) -> None:
        # What a message is made of may change, and an exception holds on to all that was under way.
        if type(record.msg) is str and not record.args and not record.exc_info:
            self._put(partial(self.format, record))
            return
        try:
            self._put(self.format(record))
        except Exception:  # a record that can't be formatted is no reason to fail whoever logged it
            self._refused += 1

    def say(self, level: int, event: str, fields: Fields) -> None:
        """A line without the way through `logging`, which would cost as much again. `fields` stay as they are."""
        self._put(partial(self.lines.line, time.time(), logging.getLevelName(level), event, fields))

    def _put(self, line: str | Callable[[], str]) -> None:
        if self._waiting.qsize() >= self._most:
            self._refused += 1
        else:
            self._waiting.put(line)

    def flush(self, timeout_s: float = 1.0) -> None:
        """Wait until what was logged before is written, so long at most."""
        if self._thread.is_alive():
            written = threading.Event()
            self._waiting.put(written)
            written.wait(timeout_s)

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is waiting, for so long at most, and stop."""
        self._waiting.put(None)
        self._thread.join(timeout_s)
        super().close()

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily("maru_log_lines_dropped", "Log lines not written.", value=self.dropped)

    def _run(self) -> None:
        going = True
        while going:
            items = [self._waiting.get()]
            items += [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]
            going = None not in items
            if self._write(b"".join(map(self._worded, items))):
                self._tell()
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()
            if going:
                time.sleep(_GATHER_S)
        os.close(self._fd)

    def _worded(self, item: str | Callable[[], str] | threading.Event | None) -> bytes:
        if item is None or isinstance(item, threading.Event):
            return b""
        try:
            return (item if isinstance(item, str) else item()).encode() + b"\n"
        except Exception:  # what can't be formatted is no reason to write nothing else
            self._unwritten += 1
            return b""

    def _tell(self) -> None:
        lost, self._told = self.dropped - self._told, self.dropped
        if lost:
            line = self.lines.line(time.time(), "WARNING", "log_lines_dropped", {"lines": lost})
            self._write(line.encode() + b"\n")

    def _write(self, data: bytes) -> bool:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:  # somebody else made our pipe non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(1000)
            except OSError:
                self._unwritten += bytes(left).count(b"\n")
                return False
        return True
