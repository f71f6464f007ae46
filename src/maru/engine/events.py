"""What the engine reports. Each stage of the road is reported once, here; logs, metrics, traces and receipts
are made from these by whoever subscribes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, NamedTuple

from maru.engine.types import CacheState, ModelRef, Request

log = logging.getLogger(__name__)

Outcome = Literal["ok", "refused", "deadline", "cancelled", "input", "failed"]


class RequestFinished(NamedTuple):
    """One request has left the road. Its timings are on `request.timings`; `ref` is None if none was resolved."""

    request: Request
    ref: ModelRef | None
    outcome: Outcome
    cache: CacheState | None
    error: BaseException | None = None


class BatchComputed(NamedTuple):
    """One batch ran. `cost` is the sum of its items' costs; `waited_s` how long its first item had waited."""

    ref: ModelRef
    size: int
    cost: float
    waited_s: float
    compute_s: float
    failed: bool


class QueueChanged(NamedTuple):
    """The waiting line of one model after a change, in items."""

    model: str
    running: int
    waiting: int


class CacheLookedUp(NamedTuple):
    """How many of a request's inputs were found, joined in flight, and left to compute."""

    ref: ModelRef
    hits: int
    shared: int
    misses: int


class ModelChanged(NamedTuple):
    """A model was loaded, swapped in, evicted, unloaded, or failed to load."""

    ref: ModelRef
    change: Literal["loading", "loaded", "failed", "swapped", "evicted", "unloaded"]
    seconds: float = 0.0
    memory_bytes: int = 0
    error: BaseException | None = None


class LifecycleChanged(NamedTuple):
    """The server went from one state to the next."""

    state: str


Event = RequestFinished | BatchComputed | QueueChanged | CacheLookedUp | ModelChanged | LifecycleChanged
Subscriber = Callable[[Event], None]


class Events:
    """Hands every event to every subscriber, in order. A subscriber that raises is logged and kept."""

    def __init__(self, *subscribers: Subscriber) -> None:
        self._subscribers = list(subscribers)

    def subscribe(self, subscriber: Subscriber) -> None:
        """`subscriber` is called on the event loop for each event from now on; it must not block."""
        self._subscribers.append(subscriber)

    def emit(self, event: Event) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                log.exception("an event subscriber failed")
