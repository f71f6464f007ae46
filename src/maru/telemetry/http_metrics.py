"""What the HTTP layer did, for Prometheus."""

from __future__ import annotations

from maru.telemetry.http_events import HttpFinished
from maru.telemetry.series import Series

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)


class HttpMetrics:
    """Requests of every service: how many, how long, how many now, how many bytes."""

    def __init__(self, series: Series) -> None:
        self._requests = series.counter(
            "maru_http_requests", "HTTP requests answered.", "service", "route", "method", "status"
        )
        self._seconds = series.histogram(
            "maru_http_request_duration_seconds",
            "From a request's head to its response's last byte.",
            BUCKETS_S,
            "service",
            "route",
        )
        self._running = series.gauge("maru_http_requests_in_flight", "HTTP requests not yet answered.", "service")
        self._bytes = series.counter("maru_http_response_bytes", "Bytes of response bodies sent.", "service")

    def started(self, service: str) -> None:
        self._running.child(service).inc()

    def finished(self, event: HttpFinished) -> None:
        service, route = event.service, event.route
        self._running.child(service).dec()
        self._requests.child(service, route, event.verb, str(event.status)).inc()
        self._seconds.child(service, route).observe(event.seconds)
        self._bytes.child(service).inc(event.bytes_out)
