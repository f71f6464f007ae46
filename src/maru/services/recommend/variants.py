"""Two bundles beside each other: which of them answers a session, and what came of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client import CollectorRegistry

from maru.engine.events import Event, Outcome, RequestFinished
from maru.storage.feedback import FeedbackEvent
from maru.telemetry.series import Series

Variant = Literal["live", "candidate"]

LIVE: Variant = "live"
CANDIDATE: Variant = "candidate"
VARIANTS: tuple[Variant, ...] = get_args(Variant)
"""They are aliases of the bundles, and of the model in the engine."""

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 30.0)
_SERIES = 160


@dataclass(frozen=True, slots=True)
class Split:
    """Gives the candidate `share` of all sessions, from 0 to 1.

    A session stays with its variant, in every process and after every restart, for as long as `experiment` (the
    candidate's version) is the same. A larger share moves sessions to the candidate and none from it.
    """

    share: float

    def of(self, session_id: int, experiment: str) -> Variant:
        digest = hashlib.blake2b(f"{experiment}:{session_id}".encode(), digest_size=8).digest()
        return CANDIDATE if int.from_bytes(digest) < self.share * 2**64 else LIVE


class VariantMetrics:
    """Requests, seconds and feedback of each variant. The labels are the two variants and words of ours."""

    def __init__(self, model: str, registry: CollectorRegistry) -> None:
        series = Series(registry, _SERIES)
        self._variants = {f"{model}@{variant}": variant for variant in VARIANTS}
        self._requests = series.counter(
            "recommend_variant_requests", "Requests to each of the two bundles of an A/B test.", "variant", "outcome"
        )
        self._seconds = series.histogram(
            "recommend_variant_seconds", "Seconds a request to each of them took in the engine.", _BUCKETS_S, "variant"
        )
        self._feedback = series.counter(
            "recommend_feedback_events", "What sessions of each of them did afterwards.", "variant", "type"
        )
        for variant in VARIANTS:  # there from the start, so that rate() sees the first
            for outcome in get_args(Outcome):
                self._requests.child(variant, outcome)
            self._seconds.child(variant)

    def engine(self, event: Event) -> None:
        """For the engine's events."""
        if isinstance(event, RequestFinished) and (variant := self._variants.get(event.request.model)):
            self._requests.child(variant, event.outcome).inc()
            self._seconds.child(variant).observe(event.request.timings.total_s)

    def happened(self, events: Iterable[FeedbackEvent]) -> None:
        """Events of sessions came back."""
        for event in events:
            self._feedback.child(event.variant or LIVE, event.type).inc()
