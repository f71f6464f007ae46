from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict
from prometheus_client.parser import text_string_to_metric_families as lenient

from maru.engine.events import BatchComputed, CacheLookedUp, ModelChanged, QueueChanged, RequestFinished
from maru.engine.types import ModelRef
from maru.telemetry.http_events import UNMATCHED, HttpStarted
from maru.telemetry.prometheus import Metrics

from .samples import EMBED, REF, finished, request, road

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("0.1.0", [EMBED])


def parsed(metrics: Metrics) -> list[Metric]:
    body, content_type = metrics.render(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    return list(strict(body.decode()))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The sum of the samples with that name and, among others, those labels."""
    found = [
        sample.value
        for metric in parsed(metrics)
        for sample in metric.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None


def serve(metrics: Metrics) -> None:
    for event in road():
        metrics.engine(event)
    metrics.http(HttpStarted("embedding"))
    metrics.http(finished())


def test_one_request_is_told_in_full(metrics: Metrics) -> None:
    serve(metrics)
    version = {"model": "minilm", "version": "1"}
    http = {"service": "embedding", "route": "/embed", "method": "POST", "status": "200"}
    assert value(metrics, "maru_http_requests_total", **http) == 1
    assert value(metrics, "maru_http_request_duration_seconds_sum", route="/embed") == pytest.approx(0.025)
    assert value(metrics, "maru_http_requests_in_flight", service="embedding") == 0
    assert value(metrics, "maru_http_response_bytes_total", service="embedding") == 4000
    assert value(metrics, "maru_requests_total", outcome="ok", **version) == 1
    assert value(metrics, "maru_request_stage_seconds_sum", stage="queue", **version) == pytest.approx(0.001)
    assert value(metrics, "maru_request_stage_seconds_sum", stage="batch", **version) == pytest.approx(0.002)
    assert value(metrics, "maru_request_stage_seconds_sum", stage="compute", **version) == pytest.approx(0.02)
    assert value(metrics, "maru_batch_size_items_sum", **version) == 8
    assert value(metrics, "maru_batch_cost_total", **version) == 80
    assert value(metrics, "maru_cache_lookups_total", result="miss", **version) == 1
    assert value(metrics, "maru_model_loaded", **version) == 1
    assert value(metrics, "maru_model_memory_bytes", **version) == 90_000_000
    assert value(metrics, "maru_queue_running_items", model="minilm") == 0
    assert value(metrics, "maru_lifecycle_state", maru_lifecycle_state="ready") == 1
    assert value(metrics, "maru_build_info", version="0.1.0") == 1
    assert (value(metrics, "process_resident_memory_bytes") or 0) > 10_000_000


def test_a_request_under_way_is_in_flight(metrics: Metrics) -> None:
    metrics.http(HttpStarted("embedding"))
    assert value(metrics, "maru_http_requests_in_flight", service="embedding") == 1


def test_document_003_names_its_metrics(metrics: Metrics) -> None:
    assert value(metrics, "embed_requests_total", endpoint="/embed", status="200") == 0
    for status in (200, 200, 401, 429, 500):
        metrics.http(finished(status=status))
    metrics.http(finished(route="/batch-embed"))
    metrics.http(finished(route="/healthz"))
    metrics.http(finished(service="style", route="/embed"))
    assert value(metrics, "embed_requests_total") == 6
    assert value(metrics, "embed_requests_total", endpoint="/embed", status="200") == 2
    assert value(metrics, "embed_request_duration_seconds_count", endpoint="/embed") == 5
    assert value(metrics, "embed_errors_total") == 3
    assert value(metrics, "embed_errors_total", endpoint="/embed", error="unauthorized") == 1


def test_prometheus_text_tells_the_same_as_openmetrics(metrics: Metrics) -> None:
    serve(metrics)
    for accept in (None, "", "*/*", "text/plain", "text/plain;version=nonsense", "\x00"):
        assert metrics.render(accept)[1] == "text/plain; version=0.0.4; charset=utf-8"
    families = lenient(metrics.render(None)[0].decode())
    counted = {s.name: s.value for f in families for s in f.samples if s.labels.get("route") == "/embed"}
    assert counted["maru_http_requests_total"] == 1


@pytest.mark.parametrize("version", ["", ";version=0.0.1", ";version=x.y", ";version=", ";q=1;escaping=\x00"])
def test_any_accept_header_is_answered(metrics: Metrics, version: str) -> None:
    body, content_type = metrics.render(f"application/openmetrics-text{version}")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


def test_a_cached_answer_waited_for_nothing(metrics: Metrics) -> None:
    metrics.engine(CacheLookedUp(REF, hits=2, shared=1, misses=0))
    metrics.engine(RequestFinished(request(), REF, "ok", "hit"))
    assert value(metrics, "maru_cache_lookups_total", result="hit") == 2
    assert value(metrics, "maru_cache_lookups_total", result="shared") == 1
    assert value(metrics, "maru_request_stage_seconds_count", stage="queue") == 0


def test_a_model_that_left_memory_holds_none(metrics: Metrics) -> None:
    serve(metrics)
    metrics.engine(ModelChanged(REF, "evicted"))
    assert value(metrics, "maru_model_loaded", model="minilm") == 0
    assert value(metrics, "maru_model_memory_bytes", model="minilm") == 0
    assert value(metrics, "maru_model_changes_total", change="evicted") == 1


def test_the_name_of_a_model_nobody_has_is_no_label(metrics: Metrics) -> None:
    asked = request()
    asked.model = "canary-a-caller-made-up"
    metrics.engine(RequestFinished(asked, None, "input", None))
    assert value(metrics, "maru_requests_total", model="", outcome="input") == 1
    assert b"canary" not in metrics.render(None)[0]


def test_a_thousand_reloads_leave_the_series_of_the_latest(metrics: Metrics) -> None:
    for event in road(ModelRef("pinned", "1", "")):
        metrics.engine(event)
    for version in range(1000):
        ref = ModelRef("btc", str(version), "")
        metrics.engine(ModelChanged(ref, "loaded", memory_bytes=1))
        metrics.engine(RequestFinished(request(), ref, "ok", "miss"))
        metrics.engine(ModelChanged(ModelRef("btc", str(version - 1), ""), "unloaded"))
    assert value(metrics, "maru_requests_total", model="btc", version="999", outcome="ok") == 1
    assert value(metrics, "maru_requests_total", model="btc", version="1") is None
    assert value(metrics, "maru_requests_total", model="pinned", outcome="ok") == 1
    assert value(metrics, "maru_model_changes_total", model="btc", change="loaded") == 1000
    assert series(metrics) < 1900


def series(metrics: Metrics) -> int:
    return sum(len(metric.samples) for metric in parsed(metrics))


def words(seed: int) -> Iterator[str]:
    """Strings that nobody sane would send: as labels, each would be a series of its own."""
    rng = random.Random(seed)
    alphabet = [
        "a",
        "é",
        "가",
        '"',
        "\\",
        "\n",
        "\r",
        "\0",
        "\x1b",
        "{",
        "}",
        "\u2028",
        "\ud800",
        "#",
        "\x85",
        " ",
    ]
    while True:
        yield "".join(rng.choices(alphabet, k=rng.choice([0, 1, 3, 8, 200])))


def test_no_events_make_more_than_two_thousand_series(metrics: Metrics) -> None:
    word = words(7)
    rng = random.Random(7)
    outcomes = ("ok", "refused", "deadline", "cancelled", "input", "failed")
    rounds = 20_000  # five events each: 10^5
    ref = REF
    for n in range(rounds):
        if n % 10 == 0:
            ref = ModelRef(next(word), next(word), next(word))
        metrics.http(HttpStarted(next(word)))
        metrics.http(
            finished(
                service=rng.choice(["embedding", next(word)]),
                route=rng.choice(["/embed", UNMATCHED, f"/{n}", next(word)]),
                method=next(word),
                status=rng.randrange(100, 1000),
            )
        )
        metrics.engine(QueueChanged(next(word), n, n))
        metrics.engine(BatchComputed(ref, n, n, n, n, failed=True))
        metrics.engine(RequestFinished(request(), ref, rng.choice(outcomes), None))  # type: ignore[arg-type]
    assert series(metrics) <= 2000
    assert value(metrics, "maru_http_requests_total") == rounds, "what has no series of its own is still counted"
    assert value(metrics, "maru_http_requests_total", route="other") is not None


def test_metrics_are_read_while_they_are_written(metrics: Metrics) -> None:
    stop = threading.Event()
    broken: list[BaseException] = []

    def scrape() -> None:
        try:
            while not stop.is_set():
                list(strict(metrics.render(OPENMETRICS)[0].decode()))
        except BaseException as error:
            broken.append(error)

    reader = threading.Thread(target=scrape)
    reader.start()
    for n in range(2000):
        metrics.engine(RequestFinished(request(), ModelRef("m", str(n), ""), "ok", "miss"))
        metrics.http(finished(route=f"/{n}"))
    stop.set()
    reader.join()
    assert not broken
