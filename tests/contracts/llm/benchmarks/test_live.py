"""A run as it goes, over server-sent events and a WebSocket."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from tests.contracts.llm.benchmarks.conftest import BenchmarkServer, benchmarking
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

Seen = list[tuple[str, Any]]


def events(server: BenchmarkServer, run: str, most: int = 10_000, into: Seen | None = None) -> Seen:
    """The events of a run to its end, or so many."""
    found: Seen = [] if into is None else into
    with server.open() as client, client.stream("GET", f"/api/v1/metrics/{run}") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
                if len(found) >= most:
                    break
    return found


def test_progress_and_samples_and_then_the_end(bench: BenchmarkServer) -> None:
    run = bench.run("slow-100", test_prompts=["a"], num_iterations=3, max_tokens=5)
    seen = events(bench, run)
    names = [name for name, _ in seen]
    assert names.count("done") == 1 and names[-1] == "done"
    assert seen[-1][1]["status"] == "completed" and seen[-1][1]["benchmark_id"] == run
    samples = [data for name, data in seen if name == "metrics"]
    assert len(samples) >= 5
    assert all(sample["source"] == "host" and sample["host_memory_used"] > 0 for sample in samples)
    done = [data["done"] for name, data in seen if name == "progress" and data.get("phase") == "measuring"]
    assert done == sorted(done) and done[-1] == 3


def test_one_that_waits_says_so_until_its_turn(bench: BenchmarkServer) -> None:
    first = bench.run("slow-100", max_tokens=10)
    second = bench.run()
    seen = events(bench, second)
    assert seen[0] == ("progress", {"status": "started"})
    assert seen[-1][0] == "done" and seen[-1][1]["status"] == "completed"
    bench.done(first)


def test_one_that_has_ended_has_only_its_end_to_tell(bench: BenchmarkServer) -> None:
    run = bench.run()
    bench.done(run)
    assert [name for name, _ in events(bench, run)] == ["done"]


def test_a_reader_who_leaves_leaves_nothing_behind(bench: BenchmarkServer) -> None:
    run = bench.run("slow-100", test_prompts=["a"], num_iterations=3, max_tokens=5)
    for _ in range(3):
        events(bench, run, most=2)
    assert bench.done(run)["levels"][0]["requests"]["ok"] == 3


def socket(server: BenchmarkServer, run: str, **options: Any) -> Any:
    return connect(f"ws://127.0.0.1:{server.port}/api/v1/metrics/{run}", **options)


def test_the_same_over_a_websocket(bench: BenchmarkServer) -> None:
    run = bench.run("slow-100", test_prompts=["a"], num_iterations=2, max_tokens=5)

    async def watch() -> list[dict[str, Any]]:
        async with socket(bench, run) as client:
            return [json.loads(message) async for message in client]

    seen = asyncio.run(asyncio.wait_for(watch(), 60))
    assert {each["event"] for each in seen} == {"progress", "metrics", "done"}
    assert seen[-1]["event"] == "done" and seen[-1]["data"]["status"] == "completed"


@pytest.mark.parametrize("name", ["nope", "bench_20261121_" + "0" * 32])
def test_a_websocket_of_a_run_that_there_is_not(bench: BenchmarkServer, name: str) -> None:
    async def watch() -> None:
        async with socket(bench, name):
            pass

    with pytest.raises(InvalidStatus) as refused:
        asyncio.run(watch())
    assert refused.value.response.status_code == 404


def test_a_page_of_another_site_may_not_listen(bench: BenchmarkServer) -> None:
    run = bench.run()

    async def watch(origin: str) -> None:
        async with socket(bench, run, origin=origin):
            pass

    with pytest.raises(InvalidStatus) as refused:
        asyncio.run(watch("https://evil.example"))
    assert refused.value.response.status_code == 403
    asyncio.run(watch(f"http://127.0.0.1:{bench.port}"))
    bench.done(run)


def test_a_client_that_leaves_in_the_middle_and_one_that_talks(bench: BenchmarkServer) -> None:
    run = bench.run("slow-100", test_prompts=["a"], num_iterations=3, max_tokens=5)

    async def talk() -> None:
        async with socket(bench, run) as client:
            await client.send("what is this?")
            await client.send(b"\xff\xfe")
            await client.recv()

    asyncio.run(asyncio.wait_for(talk(), 30))
    assert bench.done(run)["levels"][0]["requests"]["ok"] == 3
    assert "Traceback" not in bench.log()


def test_a_key_is_asked_for(tmp_path: Path) -> None:
    with benchmarking(tmp_path, api_keys=["a-key-of-somebody"]) as server:
        server.wait("/healthz")
        known = {"Authorization": "Bearer a-key-of-somebody"}
        body = {"model_id": "quick-1", "config": {"max_tokens": 2}}
        answer = httpx.post(f"{server.url}/api/v1/benchmark/run", json=body, headers=known)
        run = answer.json()["data"]["benchmark_id"]

        async def watch(headers: dict[str, str]) -> list[str]:
            async with socket(server, run, additional_headers=headers) as client:
                return [json.loads(message)["event"] async for message in client]

        with pytest.raises(InvalidStatus) as refused:
            asyncio.run(watch({}))
        assert refused.value.response.status_code == 401
        assert asyncio.run(asyncio.wait_for(watch(known), 30))[-1] == "done"


def test_a_server_that_stops_ends_the_run_and_says_so(tmp_path: Path) -> None:
    with benchmarking(tmp_path) as server:
        server.wait("/healthz")
        run = server.run("slow-100", test_prompts=["a"], num_iterations=100, max_tokens=2)
        server.until(run, "running")

        heard: Seen = []
        reader = Thread(target=lambda: events(server, run, into=heard))
        reader.start()
        server.wait_until(lambda: len(heard) > 0, 10)

        async def watch() -> None:
            async with socket(server, run) as client:
                await client.recv()
                server.process.send_signal(signal.SIGTERM)
                async for _ in client:
                    pass

        with pytest.raises(ConnectionClosedError) as closed:
            asyncio.run(asyncio.wait_for(watch(), 30))
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012, "it may come back"
        reader.join(30)
        assert heard[-1][0] in ("done", "server_shutdown")
        assert server.process.wait(20) == 0, "nothing was cut off"
    with benchmarking(tmp_path) as server:
        server.wait("/healthz")
        assert (server.status(run)["status"], server.status(run)["error"]) == ("failed", "interrupted")


def test_a_run_of_another_process_is_followed_as_it_is_stored(tmp_path: Path) -> None:
    shared = f"sqlite:///{tmp_path}/shared.db"
    with benchmarking(tmp_path / "a", database=shared) as a, benchmarking(tmp_path / "b", database=shared) as b:
        a.wait("/healthz")
        b.wait("/healthz")
        run = a.run("slow-100", test_prompts=["a"], num_iterations=8, max_tokens=5)
        a.until(run, "running")
        found: dict[str, Seen] = {}
        threads = [Thread(target=lambda s=server: found.update({s.home.name: events(s, run)})) for server in (a, b)]  # type: ignore[misc]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for seen in found.values():
        assert seen[-1][0] == "done" and seen[-1][1]["status"] == "completed"
        times = [data.get("timestamp") or data["time"] for name, data in seen if name == "metrics"]
        assert len(times) == len(set(times)) >= 5, "each once"
    assert len(found) == 2
