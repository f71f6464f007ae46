"""Everything that watches the platform, wired together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from maru.engine.events import Event
from maru.telemetry.document_metrics import Documented
from maru.telemetry.host import HostSampler
from maru.telemetry.http_events import HttpEvent
from maru.telemetry.log_writer import LogWriter
from maru.telemetry.logs import EventLog
from maru.telemetry.prometheus import Metrics

log = logging.getLogger(__name__)

E = TypeVar("E", Event, HttpEvent)


class Telemetry:
    """Metrics, log lines and traces of one platform.

    `events.subscribe(telemetry.engine)` gives it the engine's events, and the HTTP layer calls `http` with
    its own, both on the event loop. `documented` are the services whose documents name metrics. With
    `writer`, the lines that it drops are counted; with `otlp_endpoint` (the collector's base URL, as in
    OTEL_EXPORTER_OTLP_ENDPOINT) requests are traced. Close it when the last request has been answered.
    """

    def __init__(
        self,
        version: str,
        documented: Sequence[Documented] = (),
        *,
        writer: LogWriter | None = None,
        otlp_endpoint: str | None = None,
    ) -> None:
        self.metrics = Metrics(version, documented)
        self.host = HostSampler()
        self.metrics.registry.register(self.host)
        if writer is not None:
            self.metrics.registry.register(writer)
        lines = EventLog(writer)
        self._engine: list[Callable[[Event], None]] = [self.metrics.engine, lines.engine]
        self._http: list[Callable[[HttpEvent], None]] = [self.metrics.http, lines.http]
        self._closing: list[Callable[[], None]] = [self.host.close]
        if otlp_endpoint:
            from maru.telemetry.traces import Traces  # takes a tenth of a second

            traces = Traces(otlp_endpoint, version)
            self._http.append(traces.http)
            self._closing.append(traces.close)

    def engine(self, event: Event) -> None:
        _tell(self._engine, event)

    def http(self, event: HttpEvent) -> None:
        _tell(self._http, event)

    def close(self) -> None:
        """Send the traces that wait. Takes two seconds at most, so not on the event loop."""
        for close in self._closing:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _tell(takers: Sequence[Callable[[E], None]], event: E) -> None:
    for take in takers:
        try:
            take(event)
        except Exception:
            log.exception("telemetry failed")
