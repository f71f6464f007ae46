"""LitServe: one API server, one inference worker, and `fast_queue` (ZMQ), its way to throughput."""

from __future__ import annotations

import sys

import litserve as ls
import models


class Echo(ls.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def decode_request(self, request):  # an annotation here would become the schema
        return request["data"]

    def predict(self, x: models.Window) -> float:
        return models.value(x)

    def encode_response(self, output: float) -> dict[str, float]:
        return {"value": output}


class Device(Echo):
    def setup(self, device: str) -> None:
        self.device_model = models.Device()

    def predict(self, x: list[models.Window]) -> list[float]:
        return self.device_model(x)


if __name__ == "__main__":
    api = Echo() if models.chosen() == "echo" else Device(max_batch_size=models.BATCH, batch_timeout=models.WAIT_S)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="warning",
        generate_client_file=False, access_log=False,
    )  # fmt: skip
