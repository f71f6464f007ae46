"""Rows on their way to the database, which nobody who measures waits for."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Self
from uuid import uuid4

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from maru.storage.measurements import Measurements, Row

log = logging.getLogger(__name__)

_REST_S = 0.5
_LONGEST_REST_S = 2.0
_BATCH = 5_000
_FORGET_EVERY_S = 3600.0


class MetricsWriter:
    """Stores rows in batches, from a thread of its own. `with` it.

    `add` never blocks and never fails. While the database can't be written, rows wait, `most` of them; when more
    come the oldest are lost, and counted. What was added is stored once, also when the answer to a commit is lost.
    """

    def __init__(self, measurements: Measurements, *, most: int = 100_000, every_s: float = _REST_S) -> None:
        self._measurements = measurements
        self._most = most
        self._every_s = every_s
        self._name = uuid4().hex
        self._number = 0
        self._rows: deque[Row] = deque()
        self._batch: list[Row] = []
        self._added = self._done = 0
        self._change = threading.Condition()
        self._ending = False
        self._hurry = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="metrics-writer", daemon=True)
        self.written = 0
        self.lost = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, *rows: Row) -> None:
        """Have these stored, half a second later at the latest while the database is well."""
        with self._change:
            self._rows.extend(rows)
            self._added += len(rows)
            while len(self._rows) > self._most:
                self._rows.popleft()
                self.lost += 1
                self._done += 1
            if len(self._rows) >= _BATCH:
                self._change.notify_all()

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all that was added before is stored or lost; whether it was, in that time."""
        until = time.monotonic() + timeout_s
        with self._change:
            wanted = self._added
            self._hurry = True
            self._change.notify_all()
            while self._done < wanted:
                left = until - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                self._change.wait(left)
        return True

    def close(self, timeout_s: float = 5.0) -> None:
        """Store what waits, within that time."""
        with self._change:
            self._ending = True
            self._change.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        with self._change:
            left = self._added - self._done
            self.lost += left
        if self.lost:
            log.warning("%d rows of metrics were lost", self.lost)

    def collect(self) -> Iterable[Metric]:
        """For Prometheus."""
        yield CounterMetricFamily("maru_metrics_rows_written", "Rows of metrics that were stored.", self.written)
        yield CounterMetricFamily("maru_metrics_rows_lost", "Rows of metrics that could not be stored.", self.lost)

    def _run(self) -> None:
        rest, forgotten = self._every_s, -_FORGET_EVERY_S
        while self._next(rest):
            rest = self._every_s if self._store() else min(max(0.1, 2 * rest), _LONGEST_REST_S)
            if not self._failing and time.monotonic() - forgotten > _FORGET_EVERY_S:
                forgotten = time.monotonic()
                self._forget()

    def _next(self, rest: float) -> bool:
        """Rest, and take the next batch unless one has to be tried again; whether to go on."""
        with self._change:
            if not (self._ending or (self._hurry and not self._failing) or len(self._rows) >= _BATCH):
                self._change.wait(rest)
            elif self._failing:
                self._change.wait(min(rest, 0.1))
            self._hurry = False
            if not self._batch and self._rows:
                self._batch = [self._rows.popleft() for _ in range(min(_BATCH, len(self._rows)))]
                self._number += 1
            return bool(self._batch) or not self._ending

    def _store(self) -> bool:
        if not self._batch:
            return True
        lost = 0
        try:
            self._measurements.write(self._batch, self._name, self._number, datetime.now(UTC))
        except (OperationalError, InterfaceError) as error:
            self._tell(error)
            return False
        except DBAPIError as error:
            if error.connection_invalidated:
                self._tell(error)
                return False
            lost = self._refused(error)
        except SQLAlchemyError as error:  # no connection was free
            self._tell(error)
            return False
        except Exception as error:
            lost = self._refused(error)
        self._failing = False
        with self._change:
            self.lost += lost
            self.written += len(self._batch) - lost
            self._done += len(self._batch)
            self._batch = []
            self._hurry = self._hurry or bool(self._rows)
            self._change.notify_all()
        return True

    def _tell(self, error: Exception) -> None:
        if not self._failing:
            log.warning("metrics can't be stored (%s); they wait", type(error).__name__)
        self._failing = True

    def _refused(self, error: Exception) -> int:
        log.error("%d rows of metrics were refused (%s)", len(self._batch), type(error).__name__)
        return len(self._batch)

    def _forget(self) -> None:
        try:
            self._measurements.forget(datetime.now(UTC))
        except SQLAlchemyError as error:
            log.warning("old metrics could not be deleted (%s)", type(error).__name__)
