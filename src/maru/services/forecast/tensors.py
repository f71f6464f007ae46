"""The forecast model through tensors: one window [T, F] or many [N, T, F] in, a close for each [N, 1] out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from maru.engine.errors import InputError
from maru.engine.types import Result
from maru.http.call import Call
from maru.http.tensors import InferenceRequest
from maru.services.forecast.model import INPUT, OUTPUT
from maru.services.forecast.schemas import MAX_WINDOWS
from maru.services.forecast.service import Forecasts


@dataclass(frozen=True, slots=True)
class ForecastTensors:
    """`maru.http.oip.TensorModel` over one `Forecasts`."""

    forecasts: Forecasts

    def resolve(self, name: str, version: str | None) -> str:
        model = self.forecasts.resolve(name)
        return f"{model}@{version}" if version else model

    async def infer(self, call: Call, model: str, request: InferenceRequest) -> Result:
        given = request.tensor(INPUT).array()
        shape = self.forecasts.shape
        one = (shape.seq_len, shape.n_features)
        if given.shape[-2:] != one or given.ndim not in (2, 3) or not 1 <= len(given.reshape(-1, *one)) <= MAX_WINDOWS:
            raise InputError(f"input {INPUT} must be of shape [n, {one[0]}, {one[1]}], n from 1 to {MAX_WINDOWS}")
        with np.errstate(over="ignore"):
            windows = given.reshape(-1, *one).astype(np.float32)
        if not np.isfinite(windows).all():
            raise InputError(f"input {INPUT} holds a number that is not finite")
        return await self.forecasts.predict(call, list(windows), model=model)

    def outputs(self, result: Result) -> Mapping[str, np.ndarray[Any, Any]]:
        return {OUTPUT: np.array(result.outputs, np.float32)[:, None]}
