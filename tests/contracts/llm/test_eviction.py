"""More models than there is room for, all asked at once: every answer is its own model's, or is refused."""

from __future__ import annotations

import asyncio
import random

import httpx
from tests.contracts.llm.conftest import generating
from tests.fixtures_llm import reciting_gguf

SAYINGS = {
    "numbers": "one two three four five",
    "colours": "red green blue white black",
    "beasts": "cat dog cow hen fox",
    "winds": "north east south west calm",
    "meals": "bread rice soup fish plum",
}


def test_five_models_in_room_for_two(tmp_path) -> None:
    for name, words in SAYINGS.items():
        reciting_gguf(tmp_path / "models" / f"{name}.gguf", words)
    with generating(tmp_path, slots=4) as server:
        server.wait()
        found = asyncio.run(_crowd(server.url))
        loaded = [model for model in server.open().get("/api/v1/models").json()["data"] if model["loaded"]]
        assert len(loaded) <= 2
        server.wait_until(lambda: not any(server.held(name) for name in SAYINGS), 5)
    assert {name for name, status in found if status == 200} == set(SAYINGS)


async def _crowd(url: str) -> list[tuple[str, int]]:
    """Name and status of each request. Whoever is refused comes back after a little while."""
    found: list[tuple[str, int]] = []

    async def visitor(client: httpx.AsyncClient, number: int) -> None:
        chance = random.Random(number)
        for name in chance.sample(sorted(SAYINGS), k=len(SAYINGS)):
            asked = {"model_id": name, "prompt": "?", "max_tokens": 50}
            for _ in range(200):
                streamed = chance.random() < 0.5
                path = "/api/v1/generate/stream" if streamed else "/api/v1/generate"
                answer = await client.post(url + path, json=asked)
                found.append((name, answer.status_code))
                if answer.status_code == 200:
                    assert _text(answer, streamed) == SAYINGS[name]
                    break
                assert answer.status_code == 503 and answer.headers["retry-after"], answer.text
                await asyncio.sleep(chance.uniform(0.05, 0.2))

    async with httpx.AsyncClient(timeout=60) as client, asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(visitor(client, number))
    return found


def _text(answer: httpx.Response, streamed: bool) -> str:
    if not streamed:
        return str(answer.json()["data"]["text"])
    tokens, done, _ = answer.text.partition("event: done")
    assert done, answer.text
    return "".join(event.removeprefix("data: ") for event in tokens.split("\n\n")[:-1])
