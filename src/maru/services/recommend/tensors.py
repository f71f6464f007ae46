"""The recommender through tensors.

In go `aids`, `ts` and `types` (integers, [n, length] or [length]): the events of n sessions, those that are shorter
filled up with events of type -1. Types are 0 for clicks, 1 for carts, 2 for orders. Out come `recommendations`
[n, top_k], filled up with -1 where the catalogue has no more, and the scores `clicks`, `carts`, `orders` and
`combined`. Options stand in the request's `parameters`, as in `/recommend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from maru.engine.errors import InputError
from maru.engine.types import Result
from maru.http.call import Call
from maru.http.tensors import InferenceRequest
from maru.services.recommend.core.events import TYPES, Int64s
from maru.services.recommend.model import SCORES, Recommended
from maru.services.recommend.queries import ask, choice
from maru.services.recommend.schemas import LAST_MILLISECOND, MAX_EVENTS, MAX_SESSIONS, Options, said
from maru.services.recommend.service import Recommendations

FILLING = -1
_OPTIONS = {"top_k", "weights", "exclude", "include", "categories"}


@dataclass(frozen=True, slots=True)
class RecommendTensors:
    """`maru.http.oip.TensorModel` over one `Recommendations`."""

    recommendations: Recommendations

    def resolve(self, name: str, version: str | None) -> str:
        model = self.recommendations.resolve(name)
        return f"{model}@{version}" if version else model

    async def infer(self, call: Call, model: str, request: InferenceRequest) -> Result:
        try:
            options = Options.model_validate({k: v for k, v in (request.parameters or {}).items() if k in _OPTIONS})
        except ValidationError as error:
            raise InputError(said(error)) from None
        columns = [_column(request, name) for name in ("aids", "ts", "types")]
        aids, ts, types = columns
        if not aids.shape == ts.shape == types.shape:
            raise InputError("aids, ts and types must be of one shape")
        if len(aids) > MAX_SESSIONS or aids.shape[1] > MAX_EVENTS or not len(aids):
            raise InputError(f"1 to {MAX_SESSIONS:,} sessions of up to {MAX_EVENTS:,} events can be asked for")
        if types.size and not (types.min() >= FILLING and types.max() < len(TYPES)):
            raise InputError(f"types must be from 0 to {len(TYPES) - 1}, or {FILLING} to fill up")
        there = types != FILLING
        if (ts[there] < 0).any() or (ts[there] > LAST_MILLISECOND).any():
            raise InputError("ts must be Unix times")
        chosen = choice(options)
        asked = [ask(chosen, aids[row][known], ts[row][known], types[row][known]) for row, known in enumerate(there)]
        return await self.recommendations.infer(call, asked, model=model)

    def outputs(self, result: Result) -> Mapping[str, np.ndarray[Any, Any]]:
        found: list[Recommended] = result.outputs
        width = max(len(each.aids) for each in found)
        aids = np.full((len(found), width), FILLING, np.int64)
        scores = {name: np.zeros((len(found), width), np.float32) for name in SCORES}
        for row, each in enumerate(found):
            aids[row, : len(each.aids)] = each.aids
            for name, values in scores.items():
                values[row, : len(each.aids)] = each.scores[name]
        return {"recommendations": aids, **scores}


def _column(request: InferenceRequest, name: str) -> Int64s:
    """The tensor of that name as int64 [n, length]."""
    given = request.tensor(name).array()
    if given.dtype.kind not in "iu" or given.ndim not in (1, 2):
        raise InputError(f"input {name} must hold integers, [n, length] or [length]")
    if given.dtype == np.uint64 and given.size and given.max() > np.iinfo(np.int64).max:
        raise InputError(f"input {name} holds a number beyond 63 bits")
    return np.atleast_2d(given).astype(np.int64)
