"""Spans of each request, sent to an OpenTelemetry collector."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from maru.engine.types import Request
from maru.telemetry.http_events import HttpEvent, HttpFinished

_NS = 1_000_000_000


class Traces:
    """A span for each HTTP request, with one below it for each stage of the engine's road.

    They are made when the request is over, from its timings, with the times that things began and ended.
    Spans wait in a bounded queue for a thread that sends them; a collector that is down costs spans, and
    no request waits. OpenTelemetry's own variables (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER,
    OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_*) work as it documents them.

    Importing this module takes a tenth of a second, so it is done where a collector is named.
    """

    def __init__(self, endpoint: str, version: str) -> None:
        resource = Resource.create({SERVICE_VERSION: version})
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "maru"}))
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("maru", version)
        self._propagator = TraceContextTextMapPropagator()

    def http(self, event: HttpEvent) -> None:
        if not isinstance(event, HttpFinished):
            return
        end = time.time_ns()
        start = end - int(event.seconds * _NS)
        parent = self._propagator.extract({"traceparent": event.traceparent}) if event.trace_id else None
        span = self._tracer.start_span(
            f"{event.verb} {event.route}",
            parent,
            SpanKind.SERVER,
            {
                "http.request.method": event.verb,
                "http.route": event.route,
                "http.response.status_code": event.status,
                "http.response.body.size": event.bytes_out,
                "maru.service": event.service,
                "maru.request_id": event.request_id,
                "maru.items": event.items,
                "maru.cache": event.cache or "",
                "maru.model": str(event.model or ""),
            },
            start_time=start,
        )
        if event.request is not None and span.is_recording():
            context = set_span_in_context(span)
            for stage, began, ended in _stages(event.request, start, end):
                self._tracer.start_span(stage, context, start_time=began).end(ended)
        if event.status >= 500:
            span.set_status(Status(StatusCode.ERROR, event.error))
        span.end(end)

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits, for so long at most. OpenTelemetry's own shutdown may take half a minute."""
        sending = threading.Thread(target=self._provider.shutdown, name="maru-traces", daemon=True)
        sending.start()
        sending.join(timeout_s)


def _stages(request: Request, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """The stages the request went through, each with when it began and ended, in ns since the epoch."""
    timings = request.timings
    began = max(start, end - int((time.monotonic() - request.created) * _NS))
    for stage, seconds in (
        ("queue", timings.queue_s),
        ("batch", timings.batch_s),
        ("compute", timings.compute_s),
    ):
        if seconds > 0:
            ended = min(began + int(seconds * _NS), end)
            yield stage, began, ended
            began = ended
