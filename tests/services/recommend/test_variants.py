from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from maru.engine.events import RequestFinished
from maru.engine.types import ModelRef, Request
from maru.services.recommend.variants import CANDIDATE, LIVE, Split, VariantMetrics
from maru.storage.feedback import FeedbackEvent


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_candidate_gets_its_share_of_consecutive_sessions(share: float) -> None:
    split = Split(share)
    part = sum(split.of(id, "v2") == CANDIDATE for id in range(20_000)) / 20_000
    assert part == pytest.approx(share, abs=0.015)  # four standard deviations


def test_all_or_none() -> None:
    assert {Split(0.0).of(id, "v2") for id in range(2000)} == {LIVE}
    assert {Split(1.0).of(id, "v2") for id in range(2000)} == {CANDIDATE}


def test_a_session_stays_where_it_is_in_every_process() -> None:
    here = [Split(0.5).of(id, "v2") for id in range(-50, 50)]
    code = "from maru.services.recommend.variants import Split; print([Split(0.5).of(i, 'v2') for i in range(-50, 50)])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(here)


def test_a_larger_share_takes_nobody_from_the_candidate() -> None:
    before = {id for id in range(5000) if Split(0.2).of(id, "v2") == CANDIDATE}
    after = {id for id in range(5000) if Split(0.6).of(id, "v2") == CANDIDATE}
    assert before < after


def test_another_experiment_has_other_sessions() -> None:
    """The half that was with the last candidate is no more with the next than the other half is."""
    split = Split(0.5)
    first = [id for id in range(20_000) if split.of(id, "v2") == CANDIDATE]
    again = sum(split.of(id, "v3") == CANDIDATE for id in first) / len(first)
    assert again == pytest.approx(0.5, abs=0.025)


def test_requests_and_feedback_are_counted_by_variant_and_by_nothing_that_callers_choose() -> None:
    registry = CollectorRegistry()
    metrics = VariantMetrics("recommend", registry)
    ref = ModelRef("recommend", "v2", "")
    for model in ("recommend@candidate", "recommend@live", "recommend@v2", "recommend@hacked", "embedding@live"):
        metrics.engine(RequestFinished(Request(model, [], 0.0), ref, "ok", "miss"))
    metrics.happened([FeedbackEvent(1, 2, 3, "orders", variant="candidate")])
    labels = {sample.labels.get("variant") for metric in registry.collect() for sample in metric.samples}
    assert labels == {LIVE, CANDIDATE}

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("recommend_variant_requests_total", variant=CANDIDATE, outcome="ok") == 1
    assert value("recommend_variant_requests_total", variant=LIVE, outcome="ok") == 1
    assert value("recommend_variant_requests_total", variant=LIVE, outcome="failed") == 0
    assert value("recommend_variant_seconds_count", variant=CANDIDATE) == 1
    assert value("recommend_feedback_events_total", variant=CANDIDATE, type="orders") == 1
