"""What one run of load measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Latency:
    """Milliseconds."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Latency:
        values = sorted(seconds)
        if not values:
            return cls(0, 0.0, 0.0, 0.0, 0.0, 0.0)

        def at(share: float) -> float:
            return round(1000 * values[min(len(values) - 1, int(share * len(values)))], 3)

        mean = round(1000 * sum(values) / len(values), 3)
        return cls(len(values), mean, at(0.5), at(0.95), at(0.99), at(1.0))


@dataclass(slots=True)
class Outcome:
    """What one run measured. Rates and CPU are over the window, the checks over every answer received."""

    seconds: float
    ok: int
    """Right answers in the window."""
    ok_per_s: float
    latency: Latency
    """Of right answers: from sending (closed loop) or from the intended time (open loop)."""
    statuses: dict[str, int]
    errors: dict[str, int]
    """`wrong` (a 200 with a wrong body), `timeout`, `reset`, `connect`, `garbled`, `unanswered`."""
    refused: Latency
    refused_with_retry_after: int
    unsent: int
    """Open loop: requests whose turn came but for which no connection was left by the end."""
    late_p99_ms: float
    """Open loop: how late the generator itself sent, 99th percentile. Large: the generator was the limit."""
    bytes_in: int
    bytes_out: int
    client_cpu_s: float
    client_cpu_ms_per_answer: float
    server_cpu_s: float
    rss_first: int
    rss_max: int
    rss_last: int
    pss: int
    other_cores_busy: float
    """Cores that all else kept busy, the kernel's work for no process included."""
    connections: int
    made_late: int
    per_second_ok: list[int]
    tail: list[tuple[float, float, bool]]
    """Requests after the window: seconds since it closed, latency in ms, whether the answer was right."""
    samples: list[tuple[int, bytes]] = field(default_factory=list, repr=False)
    """(request number, body) of some answers, kept for a thorough check when the run is over."""

    def to_json(self) -> dict[str, Any]:
        """All but the samples and the tail."""
        out = asdict(self)
        del out["samples"], out["tail"]
        return out
