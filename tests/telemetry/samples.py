"""Events as the platform emits them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from maru.engine.events import (
    BatchComputed,
    CacheLookedUp,
    Event,
    LifecycleChanged,
    ModelChanged,
    QueueChanged,
    RequestFinished,
)
from maru.engine.types import ModelRef, Request, Timings
from maru.telemetry.document_metrics import Documented
from maru.telemetry.http_events import HttpFinished

REF = ModelRef("minilm", "1", "sha256:aa")
EMBED = Documented("embedding", "embed", ("/embed", "/batch-embed"))


def request(**changes: Any) -> Request:
    timings = Timings(queue_s=0.001, batch_s=0.002, compute_s=0.020, total_s=0.024, batch_size=8)
    return Request("minilm", ["text"], deadline=1e9, id="req-1", timings=timings, **changes)


def finished(**changes: Any) -> HttpFinished:
    event = HttpFinished(
        service="embedding",
        route="/embed",
        method="POST",
        status=200,
        seconds=0.025,
        request_id="req-1",
        principal="alice",
        bytes_out=4000,
        request=request(),
        model=REF,
        cache="miss",
        items=1,
    )
    return event._replace(**changes)


def road(ref: ModelRef = REF) -> Iterable[Event]:
    """What the engine emits from its start to one answer."""
    yield ModelChanged(ref, "loading")
    yield ModelChanged(ref, "loaded", seconds=1.5, memory_bytes=90_000_000)
    yield LifecycleChanged("ready")
    yield CacheLookedUp(ref, hits=0, shared=0, misses=1)
    yield QueueChanged(ref.name, running=1, waiting=0)
    yield BatchComputed(ref, size=8, cost=80.0, waited_s=0.002, compute_s=0.020, failed=False)
    yield RequestFinished(request(), ref, "ok", "miss")
    yield QueueChanged(ref.name, running=0, waiting=0)
