"""The first start, on an empty home."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import httpx
import pytest
from tests.contracts.recommend.conftest import RecommendServer, clicks, recommending

EVENTS = 12_000


def stage(server: RecommendServer) -> str | None:
    told: str | None = httpx.get(server.url + "/health", timeout=60).json()["training"]
    return told


def test_the_first_start_trains_a_bundle_and_serves_it(tmp_path: Path, compiled: Path) -> None:
    with (
        recommending(tmp_path, compiled, starter=EVENTS) as server,
        recommending(tmp_path, compiled, starter=EVENTS) as other,
    ):
        server.wait("/health")
        server.wait_until(lambda: "the starter: " in server.log(), 60)
        health = httpx.get(server.url + "/health").json()
        assert health["status"] == "healthy" and health["models_loaded"] is False
        assert httpx.post(server.url + "/recommend", json={"session_id": 1, "events": []}).status_code == 503
        server.wait("/readyz", timeout_s=300)
        other.wait("/readyz", timeout_s=60)
        assert server.version() == other.version() == "v1" and stage(server) is None
        assert len(server.recommend(events=clicks(1001))["recommendations"]) == 20
        (bundle,) = server.bundles.versions()  # of the two that trained, one found it done
        assert server.bundles.current() == "v1" and bundle.manifest["metrics"]
        assert server.log().count('"the starter: ') >= 3, "its progress is in the log"
        assert server.stop() == 0
    with recommending(tmp_path, compiled, starter=EVENTS) as server:
        server.wait("/readyz")
        assert server.log().count("trained on a simulated shop") == 2, "once each, at the first start"
        assert [bundle.version for bundle in server.bundles.versions()] == ["v1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_is_stopped_while_training_leaves_no_process_and_no_bundle(
    tmp_path: Path, compiled: Path, number: signal.Signals
) -> None:
    with recommending(tmp_path, compiled, starter=2_000_000) as server:
        server.wait("/health")
        server.wait_until(lambda: stage(server) is not None, 60)
        (child,) = _training(server.home)
        server.stop(number)
        server.wait_until(lambda: not child.exists(), 20)
        assert server.bundles.current() is None


def _training(home: Path) -> list[Path]:
    """The processes that train for that home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"maru.services.recommend.starter" in command and str(home).encode() in command:
            found.append(process)
    return found


def test_a_training_that_fails_is_told_and_the_service_waits_for_a_bundle(
    tmp_path: Path, compiled: Path, shop: Path
) -> None:
    with recommending(tmp_path, compiled, starter=5) as server:
        server.wait("/health")
        server.wait_until(lambda: "the starter could not be trained" in server.log(), 60)
        assert "a simulated shop has from" in server.log()
        assert httpx.get(server.url + "/health").json()["models_loaded"] is False
        shutil.copytree(shop / "v1", tmp_path / "recommend" / "v1")
        server.bundles.promote("v1")
        server.wait("/readyz", timeout_s=60)
