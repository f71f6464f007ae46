"""What the recommendation service says of itself, and the shape in which it refuses (document 002)."""

from __future__ import annotations

from typing import Any

from maru import __version__
from maru.http import problem
from maru.http.service import Service
from maru.services.recommend.responses import Problem
from maru.services.recommend.schemas import MAX_SESSIONS


def envelope(problem: problem.Problem) -> dict[str, Any]:
    """The document's own error shape."""
    return {"error": problem.message}


service = Service(
    name="recommend",
    title="Recommendation Service",
    version=__version__,
    description="What a session is likely to click, put into the cart and order next, from what it did so far: always "
    f"items that are new to it. Up to {MAX_SESSIONS:,} sessions a request; every answer says which bundle made it.",
    port=5000,
    metric_prefix="recommend",
    documented=(
        "/recommend",
        "/batch_recommend",
        "/items/{aid}/embedding",
        "/sessions/{session_id}/embedding",
        "/stats",
        "/health",
    ),
    envelope=envelope,
    problem_schema=Problem,
    invalid_status=400,
    max_body_bytes=16 * 2**20,
)
