"""The starter behind LitServe: one worker, `fast_queue`. KIND=infer|batch python style_litserve.py PORT"""

from __future__ import annotations

import os
import sys
from typing import Any

import litserve as ls
from style_model import Matcher

BATCH = os.environ["KIND"] == "batch"


class Style(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.matcher = Matcher()

    def decode_request(self, request):  # an annotation here would become the schema
        return request["items"] if BATCH else request["text"]

    def predict(self, given: Any) -> dict[str, Any]:
        return self.matcher.many(given) if BATCH else self.matcher.one(given)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    api = Style(api_path="/infer/batch" if BATCH else "/infer")
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="warning",
        generate_client_file=False, access_log=False,
    )  # fmt: skip
