"""The models through tensors: `text` (BYTES, [n] or [n, 1]) in, what each goes on with as `text` (BYTES, [n]) out."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError

from maru.engine.errors import InputError, ModelNotFound
from maru.engine.types import Result
from maru.http.call import Call
from maru.http.endpoint import Reply
from maru.http.oip import ModelMetadata, OpenInference, Ready, Shape
from maru.http.problem import Problem
from maru.http.tensors import HEADER_LENGTH, InferenceRequest
from maru.runtimes.generation.types import Prompt
from maru.services.llm.schemas import GenerateRequest
from maru.services.llm.service import Generations
from maru.services.llm.several import collect

NAME = "text"
MOST = 16
_OPTIONS = GenerateRequest.model_fields.keys() - {"prompt", "model_id"}


def asked(text: str, model: str, parameters: Mapping[str, Any] | None) -> Prompt:
    """The prompt, with those of the protocol's parameters that `/api/v1/generate` has too. InputError."""
    options = {name: value for name, value in (parameters or {}).items() if name in _OPTIONS}
    try:
        return GenerateRequest(prompt=text, model_id=model, **options).asked()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InputError(f"{first['loc'][0] if first['loc'] else NAME}: {first['msg']}") from None


@dataclass(frozen=True, slots=True)
class TextTensors:
    """`maru.http.oip.TensorModel` over one `Generations`. Options stand in the request's `parameters`."""

    generations: Generations

    def resolve(self, name: str, version: str | None) -> str:
        if version not in (None, self.generations.models.spec(name).ref.version):
            raise ModelNotFound("no model of that version")
        return name

    async def infer(self, call: Call, model: str, request: InferenceRequest) -> Result:
        texts = request.tensor(NAME).texts()
        if not 1 <= len(texts) <= MOST:
            raise InputError(f"input {NAME} must hold 1 to {MOST} texts")
        prompts = [asked(text, model, request.parameters) for text in texts]
        answers = await collect([self.generations.stream(prompt, model, call=call) for prompt in prompts])
        first_of = answers[0].generation
        return Result([answer.text for answer in answers], first_of.ref, "miss", first_of.timings)

    def outputs(self, result: Result) -> Mapping[str, np.ndarray[Any, Any]]:
        return {NAME: np.array(result.outputs, np.object_)}


@dataclass(frozen=True, slots=True)
class TextInference(OpenInference):
    """The protocol for models that are loaded when they are asked, and answer in text."""

    models: TextTensors

    def _metadata(self, model: str, version: str | None) -> Reply:
        name = self.models.resolve(model, version)
        status = self.models.generations.models.status(name)
        tensors = [Shape(name=NAME, datatype="BYTES", shape=[-1])]
        known = {"context_length": status.context_length, **status.details}
        return Reply(
            ModelMetadata(
                name=name, versions=[status.version or ""], platform=f"maru_{status.type}",
                inputs=tensors, outputs=tensors, parameters=known,
            )
        )  # fmt: skip

    def _model_ready(self, model: str, version: str | None) -> Reply:
        """Who asks it has it loaded: it is ready as long as it can be used."""
        return Reply(Ready(name=self.models.resolve(model, version), ready=True))

    async def _infer(self, call: Call, model: str, version: str | None, body: InferenceRequest) -> Reply:
        if any(wanted.name != NAME for wanted in body.outputs or ()):
            raise Problem(400, "INVALID_TENSOR", f"the only output is {NAME}")
        result = await self.models.infer(call, self.models.resolve(model, version), body)
        texts: list[str] = result.outputs
        tensor: dict[str, Any] = {"name": NAME, "datatype": "BYTES", "shape": [len(texts)]}
        binary = b""
        if body.wants_binary(NAME):
            binary = b"".join(struct.pack("<I", len(raw)) + raw for raw in (text.encode() for text in texts))
            tensor["parameters"] = {"binary_data_size": len(binary)}
        else:
            tensor["data"] = texts
        content: dict[str, Any] = {"model_name": model, "model_version": result.ref.version, "outputs": [tensor]}
        if body.id is not None:
            content["id"] = body.id
        header = orjson.dumps(content)
        if not binary:
            return Reply(header)
        length = {HEADER_LENGTH: str(len(header))}
        return Reply(header + binary, headers=length, media_type="application/octet-stream")
