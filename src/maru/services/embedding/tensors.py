"""The embedding model through tensors: `text` (BYTES, [n] or [n, 1]) in, `embedding` (FP32, [n, dimension]) out."""

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
from maru.services.embedding.model import Text
from maru.services.embedding.schemas import BatchEmbedRequest
from maru.services.embedding.service import Embeddings


@dataclass(frozen=True, slots=True)
class EmbeddingTensors:
    """`maru.http.oip.TensorModel` over one `Embeddings`. Options stand in the request's `parameters`."""

    embeddings: Embeddings

    def resolve(self, name: str, version: str | None) -> str:
        model = self.embeddings.resolve(name)
        return f"{model}@{version}" if version else model

    async def infer(self, call: Call, model: str, request: InferenceRequest) -> Result:
        texts = request.tensor("text").texts()
        options = {k: v for k, v in (request.parameters or {}).items() if k in BatchEmbedRequest.model_fields}
        try:
            asked = BatchEmbedRequest.model_validate({**options, "texts": texts})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise InputError(f"{first['loc'][0] if first['loc'] else 'text'}: {first['msg']}") from None
        chosen = (asked.task, asked.dimensions, asked.normalize, asked.truncate)
        return await self.embeddings.embed(call, [Text(text, *chosen) for text in asked.texts], model)

    def outputs(self, result: Result) -> Mapping[str, np.ndarray[Any, Any]]:
        return {"embedding": np.stack([embedding.vector for embedding in result.outputs])}
