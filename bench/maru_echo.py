"""Maru's engine and HTTP kit around models that cost nothing, or sleep.

    MODEL=echo|device|slow python -m bench.maru_echo PORT

The whole road and the whole kit, as the services have them: wire guard, request ids, disconnect watcher,
admission, lease, batcher, receipt headers, metrics. As for every contender, no credentials and no access log.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass

from pydantic import BaseModel

from bench.contenders import models
from maru import __version__
from maru.engine.engine import Engine
from maru.engine.model import Model, ModelSpec
from maru.engine.types import Limits, ModelRef
from maru.http.call import Caller
from maru.http.crowd import Bounds
from maru.http.endpoint import Reply, Route
from maru.http.health import Health
from maru.http.problem import detail
from maru.http.server import serve
from maru.http.service import Service, ServiceApp
from maru.telemetry.logs import configure
from maru.telemetry.telemetry import Telemetry


class Input(BaseModel):
    data: models.Window


class Output(BaseModel):
    value: float


class Problem(BaseModel):
    detail: str


class Echo(Model):
    """Cheaper than a thread's delay, so it runs on the loop."""

    inline = True

    def predict(self, batch: Sequence[models.Window]) -> Sequence[float]:
        return models.echo(batch)


class Device(Model):
    def __init__(self) -> None:
        self._device = models.Device()

    def predict(self, batch: Sequence[models.Window]) -> Sequence[float]:
        return self._device(batch)


class Slow(Model):
    """50 ms a request: two at a time make 40 a second (R1 of reliability-and-security.md)."""

    def predict(self, batch: Sequence[models.Window]) -> Sequence[float]:
        time.sleep(0.05)
        return models.echo(batch)


SPECS = {
    "echo": (Echo, Limits(running=256, waiting=1024, max_batch_size=models.BATCH)),
    "device": (
        Device,
        Limits(running=256, waiting=1024, max_batch_size=models.BATCH, max_queue_delay_s=models.WAIT_S),
    ),
    "slow": (Slow, Limits(running=2, waiting=10, max_batch_size=1, workers=2)),
}


@dataclass(frozen=True, slots=True)
class Routes:
    """The one endpoint."""

    model: str

    async def predict(self, call: Caller, body: Input) -> Reply:
        """A window to its value."""
        result = await call.infer(self.model, [body.data], 30.0, operation="predict")
        return Reply({"value": result.outputs[0]})

    def routes(self) -> list[Route]:
        return [Route("POST", "/predict", self.predict, Output, (503, 504))]


def main() -> None:
    """Serve the model named by MODEL on the port given."""
    name = os.environ["MODEL"]
    make, limits = SPECS[name]
    spec = ModelSpec(ModelRef(name, "1", name), make, limits)
    with (
        closing(configure("WARNING", "json")) as writer,
        Telemetry(__version__, [], writer=writer) as telemetry,
    ):
        engine = Engine()
        engine.events.subscribe(telemetry.engine)

        @asynccontextmanager
        async def opened(app: object) -> AsyncIterator[None]:
            engine.repository.add(spec)
            await engine.manager.load(spec)
            engine.lifecycle.advance("ready")
            yield
            await engine.close()

        health = Health(engine, (name,), telemetry.metrics.render)
        service = Service("bench", "Bench", __version__, "", 0, detail, Problem)
        routes = [*Routes(name).routes(), *health.routes()]
        app = ServiceApp(service, routes, engine=engine, report=telemetry.http, lifespan=opened)
        code = serve(
            app,
            port=int(sys.argv[1]),
            lifecycle_of=lambda: engine.lifecycle,
            drain_delay_s=0.0,
            bounds=Bounds(max_connections=4096),
        )
    sys.exit(code)


if __name__ == "__main__":
    main()
