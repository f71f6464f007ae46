from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from maru.engine.types import Request, Timings
from maru.telemetry.http_events import HttpStarted
from maru.telemetry.traces import Traces

from .samples import finished

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """An OTLP/HTTP receiver that decodes what it is sent."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                collector.paths.append(self.path)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


def attributes(span: Span) -> dict[str, object]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


def seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def test_a_request_is_a_span_with_one_for_each_stage(collector: Collector) -> None:
    ended = time.time_ns()
    asked = Request("minilm", ["text"], deadline=1e9, created=time.monotonic() - 0.024)
    asked.timings = Timings(queue_s=0.001, batch_s=0.002, compute_s=0.020)
    traces = Traces(collector.endpoint + "/", "0.1.0")
    traces.http(HttpStarted("embedding"))
    traces.http(finished(request=asked, traceparent=f"00-{TRACE}-{PARENT}-01"))
    traces.close()
    assert collector.paths == ["/v1/traces"]
    spans = {span.name: span for span in collector.spans()}
    assert spans.keys() == {"POST /embed", "queue", "batch", "compute"}
    root = spans["POST /embed"]
    assert root.kind == Span.SPAN_KIND_SERVER
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, PARENT)
    assert seconds(root) == pytest.approx(0.025)
    assert abs(root.end_time_unix_nano - ended) < 5e9
    assert attributes(root)["http.route"] == "/embed"
    assert attributes(root)["http.response.status_code"] == 200
    assert attributes(root)["maru.model"] == "minilm@1"
    queue, batch, compute = spans["queue"], spans["batch"], spans["compute"]
    for stage in (queue, batch, compute):
        assert stage.parent_span_id == root.span_id
        assert stage.trace_id == root.trace_id
    assert [seconds(stage) for stage in (queue, batch, compute)] == pytest.approx([0.001, 0.002, 0.020])
    assert root.start_time_unix_nano <= queue.start_time_unix_nano
    assert queue.end_time_unix_nano == batch.start_time_unix_nano
    assert batch.end_time_unix_nano == compute.start_time_unix_nano
    assert compute.end_time_unix_nano <= root.end_time_unix_nano
    resource = collector.requests[0].resource_spans[0].resource
    assert {a.key: a.value.string_value for a in resource.attributes}["service.name"] == "maru"


def test_a_server_error_is_an_error_span(collector: Collector) -> None:
    traces = Traces(collector.endpoint, "0.1.0")
    traces.http(finished(status=503, request=None, error="MODEL_NOT_READY"))
    traces.http(finished(status=429, request=None))
    traces.close()
    failed, refused = collector.spans()
    assert (failed.status.code, failed.status.message) == (Status.STATUS_CODE_ERROR, "MODEL_NOT_READY")
    assert refused.status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"ff-{TRACE}-x-01",
    ],
)
def test_without_a_good_traceparent_a_trace_begins_here(collector: Collector, header: str | None) -> None:
    traces = Traces(collector.endpoint, "0.1.0")
    traces.http(finished(request=None, traceparent=header))
    traces.close()
    (span,) = collector.spans()
    assert span.parent_span_id == b""
    assert span.trace_id.hex() not in (TRACE, "0" * 32)


def test_a_caller_who_does_not_sample_is_not_sampled(collector: Collector) -> None:
    traces = Traces(collector.endpoint, "0.1.0")
    traces.http(finished(traceparent=f"00-{TRACE}-{PARENT}-00"))
    traces.close()
    assert collector.spans() == []


def test_a_collector_that_is_down_holds_up_nobody() -> None:
    traces = Traces("http://127.0.0.1:1", "0.1.0")
    started = time.monotonic()
    for _ in range(5000):  # more than the queue holds
        traces.http(finished())
    traces.close(timeout_s=0.5)
    assert time.monotonic() - started < 10


def test_nothing_of_opentelemetry_is_loaded_until_a_collector_is_named() -> None:
    program = (
        "import sys; from maru.telemetry.telemetry import Telemetry\n"
        "for endpoint in (None, 'http://127.0.0.1:1'):\n"
        "    with Telemetry('0.1.0', otlp_endpoint=endpoint): print('opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["False", "True"], done.stderr
