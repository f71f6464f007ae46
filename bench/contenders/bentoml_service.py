"""BentoML: one worker. It learns how long to wait; `max_latency_ms` is a limit, set out of the way."""

from __future__ import annotations

import bentoml
import models

settings = {"workers": 1, "traffic": {"timeout": 60}, "logging": {"access": {"enabled": False}}}

if models.chosen() == "echo":

    @bentoml.service(**settings)
    class Bench:
        @bentoml.api(route="/predict")
        async def predict(self, data: list[list[float]]) -> float:
            return models.value(data)

else:

    @bentoml.service(**settings)
    class Bench:
        def __init__(self) -> None:
            self.device = models.Device()

        @bentoml.api(route="/predict", batchable=True, batch_dim=0, max_batch_size=models.BATCH, max_latency_ms=1000)
        def predict(self, data: list[list[list[float]]]) -> list[float]:
            return self.device(data)
