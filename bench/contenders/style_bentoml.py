"""The starter behind BentoML: one worker."""

from __future__ import annotations

from typing import Any

import bentoml
from style_model import Matcher


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Style:
    def __init__(self) -> None:
        self.matcher = Matcher()

    @bentoml.api(route="/infer")
    async def infer(self, text: str) -> dict[str, Any]:
        return self.matcher.one(text)

    @bentoml.api(route="/infer/batch")
    async def infer_batch(self, items: list[dict[str, str]], batch_size: int = 10) -> dict[str, Any]:
        return self.matcher.many(items)
