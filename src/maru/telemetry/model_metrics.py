"""What the engine did with each model, for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from maru.engine.events import (
    BatchComputed,
    CacheLookedUp,
    ModelChanged,
    Outcome,
    QueueChanged,
    RequestFinished,
)
from maru.engine.types import ModelRef
from maru.telemetry.series import Counter, Gauge, Histogram, Series

_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0)
_BUCKETS_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128)
_MODEL = ("model", "version")
_UNRESOLVED = ModelRef("", "", "")
"""Stands for a model that is not ours: the name that was asked for is the caller's, and never a label."""


@dataclass(slots=True)
class _Series:
    """Everything counted of one version of one model."""

    requests: dict[Outcome, Counter]
    queue: Histogram
    batch: Histogram
    compute: Histogram
    batch_size: Histogram
    batch_cost: Counter
    batch_seconds: Histogram
    batches_failed: Counter
    hits: Counter
    shared: Counter
    misses: Counter
    loaded: Gauge
    memory: Gauge
    load_seconds: Gauge
    in_memory: bool = False


class ModelMetrics:
    """Requests, batches, cache and memory of each version of each model, for the `most` latest versions.

    A platform that reloads every hour makes a version every hour: when there are more, those of a version
    no longer in memory are forgotten.
    """

    def __init__(self, series: Series, most: int = 16) -> None:
        self._most = most
        self._versions: dict[tuple[str, str], _Series] = {}
        self._requests = series.counter("maru_requests", "Requests that left the engine.", *_MODEL, "outcome")
        self._stages = series.histogram(
            "maru_request_stage_seconds",
            "Seconds a request spent waiting for a place, waiting in its batch, and being computed.",
            _BUCKETS_S,
            *_MODEL,
            "stage",
        )
        self._batch_size = series.histogram("maru_batch_size_items", "Items in a batch.", _BUCKETS_ITEMS, *_MODEL)
        self._batch_cost = series.counter("maru_batch_cost", "Work computed, in the model's own unit.", *_MODEL)
        self._batch_seconds = series.histogram(
            "maru_batch_compute_seconds", "Seconds one batch took to compute.", _BUCKETS_S, *_MODEL
        )
        self._batches_failed = series.counter("maru_batches_failed", "Batches the model raised on.", *_MODEL)
        self._cache = series.counter(
            "maru_cache_lookups",
            "Inputs found (hit), joined while being computed (shared), and left to compute (miss).",
            *_MODEL,
            "result",
        )
        self._loaded = series.gauge("maru_model_loaded", "1 while the version is in memory.", *_MODEL)
        self._memory = series.gauge("maru_model_memory_bytes", "Memory the version holds.", *_MODEL)
        self._load_seconds = series.gauge("maru_model_load_seconds", "Seconds its last load took.", *_MODEL)
        self._changes = series.counter(
            "maru_model_changes",
            "What became of models: loading, loaded, failed, swapped, evicted, unloaded.",
            "model",
            "change",
        )
        self._running = series.gauge("maru_queue_running_items", "Items at the batcher or the model.", "model")
        self._waiting = series.gauge("maru_queue_waiting_items", "Items waiting for a place.", "model")
        self._lines: dict[str, QueueChanged] = {}

    def request_finished(self, event: RequestFinished) -> None:
        series = self._of(event.ref or _UNRESOLVED)
        series.requests[event.outcome].inc()
        if event.cache == "hit" or event.outcome == "refused":
            return
        timings = event.request.timings
        series.queue.observe(timings.queue_s)
        if timings.compute_s:
            series.batch.observe(timings.batch_s)
            series.compute.observe(timings.compute_s)

    def batch_computed(self, event: BatchComputed) -> None:
        series = self._of(event.ref)
        series.batch_size.observe(event.size)
        series.batch_cost.inc(event.cost)
        series.batch_seconds.observe(event.compute_s)
        if event.failed:
            series.batches_failed.inc()

    def cache_looked_up(self, event: CacheLookedUp) -> None:
        series = self._of(event.ref)
        if event.hits:
            series.hits.inc(event.hits)
        if event.shared:
            series.shared.inc(event.shared)
        if event.misses:
            series.misses.inc(event.misses)

    def queue_changed(self, event: QueueChanged) -> None:
        if event.model not in self._lines:  # a line changes twice a request and is read once a scrape
            self._running.child(event.model).set_function(lambda: self._lines[event.model].running)
            self._waiting.child(event.model).set_function(lambda: self._lines[event.model].waiting)
        self._lines[event.model] = event

    def model_changed(self, event: ModelChanged) -> None:
        self._changes.child(event.ref.name, event.change).inc()
        series = self._of(event.ref)
        match event.change:
            case "loaded" | "swapped":
                series.in_memory = True
                series.loaded.set(1)
                if event.memory_bytes:
                    series.memory.set(event.memory_bytes)
                if event.seconds:
                    series.load_seconds.set(event.seconds)
            case "evicted" | "unloaded":
                series.in_memory = False
                series.loaded.set(0)
                series.memory.set(0)

    def _of(self, ref: ModelRef) -> _Series:
        found = self._versions.get((ref.name, ref.version))
        return self._add(ref.name, ref.version) if found is None else found

    def _add(self, name: str, version: str) -> _Series:
        if len(self._versions) >= self._most:
            self._forget_one()
        made = self._versions[name, version] = _Series(
            requests={outcome: self._requests.child(name, version, outcome) for outcome in get_args(Outcome)},
            queue=self._stages.child(name, version, "queue"),
            batch=self._stages.child(name, version, "batch"),
            compute=self._stages.child(name, version, "compute"),
            batch_size=self._batch_size.child(name, version),
            batch_cost=self._batch_cost.child(name, version),
            batch_seconds=self._batch_seconds.child(name, version),
            batches_failed=self._batches_failed.child(name, version),
            hits=self._cache.child(name, version, "hit"),
            shared=self._cache.child(name, version, "shared"),
            misses=self._cache.child(name, version, "miss"),
            loaded=self._loaded.child(name, version),
            memory=self._memory.child(name, version),
            load_seconds=self._load_seconds.child(name, version),
        )
        return made

    def _forget_one(self) -> None:
        oldest = next(iter(self._versions))
        gone = next((key for key, series in self._versions.items() if not series.in_memory), oldest)
        del self._versions[gone]
        for family in (
            self._requests,
            self._stages,
            self._batch_size,
            self._batch_cost,
            self._batch_seconds,
            self._batches_failed,
            self._cache,
            self._loaded,
            self._memory,
            self._load_seconds,
        ):
            family.remove(*gone)
