"""Ray Serve: one replica behind its HAProxy, throughput options on, `@serve.batch` for `device`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

SCRATCH = os.environ["TMPDIR"]
os.environ |= {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{SCRATCH}/haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{SCRATCH}/haproxy.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": SCRATCH,
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{SCRATCH}/haproxy-state",
}

import models  # noqa: E402  after the environment that Ray reads when imported
import ray  # noqa: E402
from ray import serve  # noqa: E402
from starlette.requests import Request  # noqa: E402


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
class Echo:
    async def __call__(self, request: Request) -> dict[str, float]:
        return {"value": models.value((await request.json())["data"])}


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
class Device:
    def __init__(self) -> None:
        self._device = models.Device()

    @serve.batch(max_batch_size=models.BATCH, batch_wait_timeout_s=models.WAIT_S)
    async def _predict(self, windows: list[models.Window]) -> list[float]:
        return await asyncio.to_thread(self._device, windows)

    async def __call__(self, request: Request) -> dict[str, float]:
        return {"value": await self._predict((await request.json())["data"])}


if __name__ == "__main__":
    ray.init(include_dashboard=False, logging_level="warning", num_cpus=2, _temp_dir=SCRATCH)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[1])},
        logging_config={"enable_access_log": False},
    )
    serve.run((Echo if models.chosen() == "echo" else Device).bind(), route_prefix="/predict")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
