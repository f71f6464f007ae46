"""The forecast service's settings."""

from __future__ import annotations

from dataclasses import dataclass

from maru.engine.types import Limits
from maru.services.forecast.pickled import Host


@dataclass(frozen=True, slots=True)
class Configuration:
    """`poll_s` 0 asks the registry for a moved alias only when its webhook says so.

    While there is no model at the start, it is tried for `ready_for_s`, every `ready_every_s`. With `pickled`,
    models that are not ONNX are loaded too, and run in there.
    """

    name: str = "BTC_LSTM_Production"
    alias: str = "staging"
    seq_len: int = 12
    n_features: int = 18
    poll_s: float = 0.0
    timeout_s: float = 30.0
    pickled: Host | None = None
    ready_for_s: float = 300.0
    ready_every_s: float = 5.0
    registry_timeout_s: float = 120.0

    def limits(self) -> Limits:
        return Limits(running=256, waiting=4096, deadline_s=self.timeout_s, max_batch_size=64)
