"""What Prometheus is told: one registry a platform, fed by the engine's events and the HTTP layer's."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from prometheus_client import (
    CollectorRegistry,
    Enum,
    GCCollector,
    Info,
    Metric,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from maru.engine.events import (
    BatchComputed,
    CacheLookedUp,
    Event,
    LifecycleChanged,
    ModelChanged,
    QueueChanged,
    RequestFinished,
)
from maru.telemetry.document_metrics import Documented, DocumentMetrics
from maru.telemetry.http_events import HttpEvent, HttpStarted
from maru.telemetry.http_metrics import HttpMetrics
from maru.telemetry.model_metrics import ModelMetrics
from maru.telemetry.series import Series

_STATES = ["starting", "ready", "draining", "stopped"]
_TYPE = "application/openmetrics-text"
_OPENMETRICS = f"{_TYPE}; version=1.0.0"


class Registry(CollectorRegistry):
    """Without the `_created` series that prometheus_client adds to each counter and histogram: they would be
    a fifth of all series, and nothing reads them."""

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class Metrics:
    """One platform's metrics. `engine` and `http` take events on the event loop; `render` may run elsewhere.

    There are never more than about 2,000 series, whatever is asked: label values are route templates,
    status codes, resolved models and words of ours, and `Series` bounds even those.
    """

    def __init__(self, version: str, documented: Sequence[Documented] = (), series: int = 1800) -> None:
        self.registry = Registry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        Info("maru_build", "What is running.", registry=self.registry).info(
            {"version": version, "python": platform.python_version()}
        )
        self._state = Enum("maru_lifecycle_state", "Its state.", states=_STATES, registry=self.registry)
        budget = Series(self.registry, series)
        self._documents = DocumentMetrics(budget, documented)
        self._models = ModelMetrics(budget)
        self._http = HttpMetrics(budget)
        self._callbacks = budget.counter(
            "maru_callbacks", "Callbacks that were delivered, kept for another try, and given up.", "result"
        )
        self._takers: dict[type, Callable[[Any], None]] = {
            RequestFinished: self._models.request_finished,
            BatchComputed: self._models.batch_computed,
            QueueChanged: self._models.queue_changed,
            CacheLookedUp: self._models.cache_looked_up,
            ModelChanged: self._models.model_changed,
            LifecycleChanged: self._lifecycle_changed,
        }

    def engine(self, event: Event) -> None:
        self._takers[type(event)](event)

    def http(self, event: HttpEvent) -> None:
        if isinstance(event, HttpStarted):
            self._http.started(event.service)
        else:
            self._http.finished(event)
            self._documents.finished(event)

    def callback(self, result: Literal["delivered", "kept", "given_up"]) -> None:
        """What became of one try of a callback."""
        self._callbacks.child(result).inc()

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """The metrics and their content type: OpenMetrics where `accept` names it, Prometheus text otherwise.

        Takes some thirty milliseconds at two thousand series, so not on the event loop.
        """
        encode, content_type = choose_encoder(_OPENMETRICS if _TYPE in (accept or "").lower() else "")
        return encode(self.registry), content_type

    def _lifecycle_changed(self, event: LifecycleChanged) -> None:
        self._state.state(event.state)
