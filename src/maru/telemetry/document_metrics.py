"""The metrics a document names itself, beside the platform's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maru.telemetry.http_events import HttpFinished
from maru.telemetry.http_metrics import BUCKETS_S
from maru.telemetry.series import Series

_KINDS = {
    401: "unauthorized",
    403: "forbidden",
    413: "too_large",
    429: "overloaded",
    499: "client_gone",
    503: "not_ready",
    504: "timeout",
    507: "out_of_memory",
}


@dataclass(frozen=True, slots=True)
class Documented:
    """A service whose document names `PREFIX_requests_total`, `PREFIX_request_duration_seconds` and
    `PREFIX_errors_total`. They count the requests to `routes`, which are the endpoints it speaks of."""

    service: str
    prefix: str
    routes: tuple[str, ...]


class DocumentMetrics:
    """The three metrics of every service that documents them."""

    def __init__(self, series: Series, documented: Sequence[Documented]) -> None:
        self._services = {one.service: _Metrics(series, one) for one in documented}

    def finished(self, event: HttpFinished) -> None:
        if metrics := self._services.get(event.service):
            metrics.finished(event)


class _Metrics:
    def __init__(self, series: Series, documented: Documented) -> None:
        prefix = documented.prefix
        self._routes = frozenset(documented.routes)
        self._requests = series.counter(f"{prefix}_requests", "Requests answered.", "endpoint", "status")
        self._seconds = series.histogram(
            f"{prefix}_request_duration_seconds", "Seconds a request took.", BUCKETS_S, "endpoint"
        )
        self._errors = series.counter(f"{prefix}_errors", "Requests answered with an error.", "endpoint", "error")
        for route in documented.routes:  # there from the start, so that rate() sees the first request
            self._requests.child(route, "200")
            self._seconds.child(route)

    def finished(self, event: HttpFinished) -> None:
        if event.route not in self._routes:
            return
        self._requests.child(event.route, str(event.status)).inc()
        self._seconds.child(event.route).observe(event.seconds)
        if event.status >= 400:
            self._errors.child(event.route, _kind(event.status)).inc()


def _kind(status: int) -> str:
    return _KINDS.get(status) or ("bad_request" if status < 500 else "internal")
