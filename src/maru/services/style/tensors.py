"""The style model through tensors: `text` (BYTES, [n] or [n, 1]) in, `score`, `confidence` (FP32, [n]) and `style`
(INT32, [n], the place among the model's `styles`) out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from maru.engine.engine import Engine
from maru.engine.errors import InputError
from maru.engine.types import Result
from maru.http.call import Call
from maru.http.tensors import InferenceRequest
from maru.services.style.model import in_batches, readings_of
from maru.services.style.reading import Reading
from maru.services.style.schemas import BATCH_SIZE, MAX_ITEMS, NotAText, text_of
from maru.services.style.service import Styles


@dataclass(frozen=True, slots=True)
class StyleTensors:
    """`maru.http.oip.TensorModel` over one `Styles`."""

    styles: Styles
    engine: Engine

    def resolve(self, name: str, version: str | None) -> str:
        model = self.styles.resolve(name)
        return f"{model}@{version}" if version else model

    async def infer(self, call: Call, model: str, request: InferenceRequest) -> Result:
        began = self.engine.clock()
        given = request.tensor("text").texts()
        if not 1 <= len(given) <= MAX_ITEMS:
            raise InputError(f"input text must hold 1 to {MAX_ITEMS} texts")
        try:
            texts = [text_of(each) for each in given]
        except NotAText as error:
            raise InputError(f"text: {error}") from None
        batches = in_batches(texts, BATCH_SIZE)
        result = await self.styles.read(call, batches, began=began, model=model)
        for reading in readings_of(batches, result):
            if isinstance(reading, Exception):
                raise reading
        return result

    def outputs(self, result: Result) -> Mapping[str, np.ndarray[Any, Any]]:
        readings: list[Reading] = [reading for output in result.outputs for reading in output]
        place = {style: index for index, style in enumerate(self.styles.styles)}
        return {
            "score": np.array([reading.score for reading in readings], np.float32),
            "confidence": np.array([reading.confidence for reading in readings], np.float32),
            "style": np.array([place.get(reading.style, -1) for reading in readings], np.int32),
        }
