"""The Open Inference Protocol v2 in front of a service's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel

from maru import __version__
from maru.engine.engine import Engine
from maru.engine.errors import ModelNotReady
from maru.engine.types import Result
from maru.http.call import Call, Caller
from maru.http.endpoint import Reply, Route
from maru.http.health import Health
from maru.http.problem import Problem
from maru.http.tensors import HEADER_LENGTH, InferenceRequest, InferenceResponse, encode


class TensorModel(Protocol):
    """What a service does to be reached through tensors."""

    def resolve(self, name: str, version: str | None) -> str:
        """The engine's name of the model that a caller names; ModelNotFound for others."""
        ...

    async def infer(self, call: Call, model: str, request: InferenceRequest) -> Result:
        """Send the tensors down the engine's road."""
        ...

    def outputs(self, result: Result) -> Mapping[str, np.ndarray[Any, Any]]:
        """The result as tensors."""
        ...


class Shape(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[Shape]
    outputs: list[Shape]
    parameters: dict[str, Any] = {}


class ServerMetadata(BaseModel):
    name: str = "maru"
    version: str = __version__
    extensions: Sequence[str] = ("binary_tensor_data",)


class Live(BaseModel):
    live: bool = True


class Ready(BaseModel):
    ready: bool
    name: str | None = None


class TensorProblem(BaseModel):
    error: str


def envelope(problem: Problem) -> dict[str, Any]:
    """The protocol's own error shape."""
    return {"error": problem.message}


@dataclass(frozen=True, slots=True)
class OpenInference:
    """The protocol's routes for one service."""

    engine: Engine
    health: Health
    models: TensorModel

    async def server(self, call: Caller) -> Reply:
        """Which server this is."""
        return Reply(ServerMetadata())

    async def live(self, call: Caller) -> Reply:
        """The server answers."""
        return Reply(Live())

    async def ready(self, call: Caller) -> Reply:
        """Every model of the service would answer now."""
        ready = self.health.readiness().status == "ready"
        return Reply(Ready(ready=ready).model_dump(exclude_none=True), 200 if ready else 503)

    async def metadata(self, call: Caller, model: str) -> Reply:
        """The model's tensors."""
        return self._metadata(model, None)

    async def metadata_of_version(self, call: Caller, model: str, version: str) -> Reply:
        """The tensors of one version."""
        return self._metadata(model, version)

    async def model_ready(self, call: Caller, model: str) -> Reply:
        """Whether the model would answer now."""
        return self._model_ready(model, None)

    async def version_ready(self, call: Caller, model: str, version: str) -> Reply:
        """Whether one version would answer now."""
        return self._model_ready(model, version)

    async def infer(self, call: Caller, model: str, body: InferenceRequest) -> Reply:
        """Infer with the model's current version."""
        return await self._infer(call, model, None, body)

    async def infer_version(self, call: Caller, model: str, version: str, body: InferenceRequest) -> Reply:
        """Infer with one version."""
        return await self._infer(call, model, version, body)

    def _metadata(self, model: str, version: str | None) -> Reply:
        spec = self.engine.repository.resolve(self.models.resolve(model, version))
        resident = self.engine.manager.get(spec.ref)
        if resident is None:
            raise ModelNotReady("the model is not loaded yet", self.engine.manager.ready_in_s(spec))
        tensors = resident.model.metadata
        described = ModelMetadata(
            name=model,
            versions=[s.ref.version for s in self.engine.repository if s.ref.name == spec.ref.name],
            platform=str(tensors.get("platform", "maru")),
            inputs=tensors["inputs"],
            outputs=tensors["outputs"],
            parameters=dict(tensors.get("parameters", {})),
        )
        return Reply(described)

    def _model_ready(self, model: str, version: str | None) -> Reply:
        ready = self.health.loaded(self.models.resolve(model, version))
        return Reply(Ready(name=model, ready=ready), 200 if ready else 503)

    async def _infer(self, call: Call, model: str, version: str | None, body: InferenceRequest) -> Reply:
        result = await self.models.infer(call, self.models.resolve(model, version), body)
        outputs = dict(self.models.outputs(result))
        content, headers, media_type = encode(body, model, result.ref.version, outputs)
        return Reply(content, headers=headers, media_type=media_type)

    def routes(self) -> list[Route]:
        def get(path: str, handler: Any, answer: Any, *errors: int, also: Any = None) -> Route:
            return Route(
                "GET", path, handler, answer, errors, protected=False, envelope=envelope,
                problem_schema=TensorProblem, tags=("open inference protocol",), also=also or {},
            )  # fmt: skip

        def infer(path: str, handler: Any) -> Route:
            return Route(
                "POST", path, handler, InferenceResponse, (404, 503, 504, 507), envelope=envelope,
                problem_schema=TensorProblem, tags=("open inference protocol",), decode=_decode,
                media_types=("application/json", "application/octet-stream", ""),
            )  # fmt: skip

        of_model = "/v2/models/{model}"
        of_version = "/v2/models/{model}/versions/{version}"
        unready = {503: Ready}
        return [
            get("/v2", self.server, ServerMetadata),
            get("/v2/health/live", self.live, Live),
            get("/v2/health/ready", self.ready, Ready, also=unready),
            get(of_model, self.metadata, ModelMetadata, 404, 503),
            get(of_version, self.metadata_of_version, ModelMetadata, 404, 503),
            get(of_model + "/ready", self.model_ready, Ready, 404, also=unready),
            get(of_version + "/ready", self.version_ready, Ready, 404, also=unready),
            infer(of_model + "/infer", self.infer),
            infer(of_version + "/infer", self.infer_version),
        ]


def _decode(call: Call, data: bytes) -> InferenceRequest:
    return InferenceRequest.read(data, call.header(HEADER_LENGTH.encode()))
