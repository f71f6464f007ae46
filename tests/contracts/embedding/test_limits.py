"""The rate limit of document 003, in one process and shared between two; and a Redis that goes away."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.conftest import running
from tests.storage.servers import RedisServer


def home_with_graphs(graphs, folder):
    """A home of its own, with the graphs of another so that they need not be built again."""
    shutil.copytree(graphs / "cache", folder / "cache")
    return folder


@pytest.fixture
def home(embedding, tmp_path):
    return home_with_graphs(embedding.home, tmp_path / "home")


def test_ten_a_minute_for_each_user(home) -> None:
    with running(home, "serve", "embedding", RATE_LIMIT_PER_MIN="10") as server:
        server.wait()
        with server.client("alice") as alice, server.client("bob") as bob:
            answers = [alice.post("/embed", json={"text": f"text {n}"}) for n in range(12)]
            other = bob.post("/embed", json={"text": "text"})
        assert [answer.status_code for answer in answers] == [200] * 10 + [429] * 2
        assert answers[0].headers["ratelimit-policy"] == '"default";q=10;w=60'
        assert answers[0].headers["ratelimit"].startswith('"default";r=9;t=')
        refused = answers[-1]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert "rate limit" in refused.json()["detail"]
        assert other.status_code == 200


def test_the_default_is_ten(home, monkeypatch) -> None:
    with running(home, "serve", "embedding", RATE_LIMIT_PER_MIN="10") as server:
        server.wait()
        with server.client() as client:
            assert client.post("/embed", json={"text": "a"}).headers["ratelimit-policy"].endswith("q=10;w=60")


def test_two_processes_share_one_limit_and_their_results(embedding, tmp_path) -> None:
    with RedisServer() as redis:
        settings = {"RATE_LIMIT_PER_MIN": "10", "REDIS_URL": redis.url}
        one, two = (home_with_graphs(embedding.home, tmp_path / name) for name in ("one", "two"))
        with running(one, "serve", "embedding", **settings) as a, running(two, "serve", "embedding", **settings) as b:
            a.wait()
            b.wait()
            with a.client("carol") as first, b.client("carol") as second, ThreadPoolExecutor(8) as pool:
                fresh = first.post("/embed", json={"text": "asked of both"})
                known = second.post("/embed", json={"text": "asked of both"})
                sends = [pool.submit((first, second)[n % 2].post, "/embed", json={"text": f"{n}"}) for n in range(20)]
                codes = sorted(send.result().status_code for send in sends)
            assert fresh.headers["x-cache"] == "miss" and known.headers["x-cache"] == "hit"
            assert known.json() == fresh.json()
            assert codes == [200] * 8 + [429] * 12


def test_without_redis_requests_are_served(home) -> None:
    with RedisServer() as redis, running(
        home, "serve", "embedding", RATE_LIMIT_PER_MIN="1000", REDIS_URL=redis.url
    ) as server:  # fmt: skip
        server.wait()
        with server.client() as client:
            assert client.post("/embed", json={"text": "with"}).status_code == 200
            redis.kill()
            codes = [client.post("/embed", json={"text": f"without {n}"}).status_code for n in range(20)]
            assert codes == [200] * 20
            assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
            redis.start()
            for n in range(200):
                assert client.post("/embed", json={"text": f"back {n}"}).status_code == 200
        assert server.log().count("is not answering") == 1
