"""The style service's endpoints (document 000)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from starlette.responses import Response

from maru.engine.engine import Engine
from maru.engine.types import Result
from maru.http.call import Call, Caller
from maru.http.endpoint import Reply, Route
from maru.http.problem import Problem
from maru.http.sse import EventStream
from maru.services.style import schemas
from maru.services.style.answers import scored, seen
from maru.services.style.images import FORM, MULTIPART, image_request
from maru.services.style.model import Seen, in_batches, readings_of
from maru.services.style.service import Styles
from maru.services.style.streams import TextReading, describing, states

REFUSALS = (413, 503, 504, 507)
SMALL, LARGE = 256 * 1024, 2**20
"""The largest bodies of one text and of many, in bytes."""
EVENT = {
    "type": "object",
    "properties": {"data": {"type": "string", "contentMediaType": "application/json"}, "event": {"type": "string"}},
    "required": ["data"],
}
EVENTS = {"text/event-stream": {"schema": EVENT}}
FAILED = "모델 추론 중에 오류가 났습니다"

Interval = Annotated[float, Field(ge=0.1, le=60, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Routes:
    """Handlers over one `Styles`."""

    styles: Styles
    engine: Engine

    async def infer(self, call: Caller, body: schemas.InferRequest) -> Reply:
        """How well a text matches the furniture style that it matches best."""
        began = self.engine.clock()
        result = await self.styles.read_text(call, body.text, began=began)
        return self._reply(call, result, scored(result.outputs[0][0]), began)

    async def infer_image(self, call: Caller, body: schemas.ImageRequest) -> Reply:
        """The style, the colours and the light of an image, given as a URL, as base64, or as an upload
        (`multipart/form-data`, the part `file`)."""
        began = self.engine.clock()
        picture = await self.styles.picture(call, body)
        fetched = self.engine.clock()
        result = await self.styles.read(call, [picture], began=began)
        found: Seen = result.outputs[0]
        reply = self._reply(call, result, seen(found, body.options), began)
        reply.headers["server-timing"] = (
            f"fetch;dur={(fetched - began) * 1e3:.3f}, decode;dur={found.decode_s * 1e3:.3f}, "
            f"colors;dur={found.colors_s * 1e3:.3f}, model;dur={found.model_s * 1e3:.3f}"
        )
        return reply

    async def infer_batch(self, call: Caller, body: schemas.BatchRequest) -> Reply:
        """Several texts, in order. A bad one has an error in its place."""
        began = self.engine.clock()
        results: list[dict[str, Any]] = [{"id": item.id} for item in body.items]
        good: list[dict[str, Any]] = []
        texts: list[str] = []
        for item, told in zip(body.items, results, strict=True):
            try:
                texts.append(schemas.text_of(item.text))
                good.append(told)
            except schemas.NotAText as error:
                told["error"] = f"text: {error}"
        for told, found in zip(good, await self._read_all(call, texts, body.batch_size, began), strict=True):
            told.update(found)
        failed = sum("error" in told for told in results)
        content = {"results": results, "total_processed": len(results) - failed, "failed": failed}
        return self._reply(call, call.result, content, began)

    async def stream_infer(self, call: Caller, body: schemas.StreamInferRequest) -> Response:
        """A text read a few words further with each event; each partial result is an inference on what was read."""
        reading = TextReading(self.styles, call, body.text, body.stream_interval, self.engine.clock)
        await reading.begin()
        ending = self.engine.lifecycle.ending
        return EventStream(reading.opened(), ending=ending, describe=describing(call), headers=call.receipt())

    async def stream(self, call: Caller, interval: Interval = 1.0) -> Response:
        """The state of the service, its queue and its machine: at once, and then every `interval` seconds."""
        ending = self.engine.lifecycle.ending
        return EventStream(states(self.styles, interval), ending=ending, describe=describing(call))

    async def readyz(self, call: Caller) -> Reply:
        """Ready: a request would be served now."""
        state = self.styles.state()
        return Reply(state) if state.model_ready else Reply(state, 503, {"retry-after": "1"})

    async def _read_all(self, call: Call, texts: list[str], size: int, began: float) -> list[dict[str, Any]]:
        """Of each text what was found, or an error."""
        batches = in_batches(texts, size)
        if not batches:
            return []
        if len(batches) > self.styles.places:
            most = self.styles.places * size
            raise Problem(400, "BAD_REQUEST", f"batch_size {size}로는 한 번에 {most}개까지입니다")
        result = await self.styles.read(call, batches, began=began, partial=True)
        found = readings_of(batches, result)
        if all(isinstance(each, Exception) for each in found):
            raise next(each for each in found if isinstance(each, Exception))
        return [{"error": FAILED} if isinstance(each, Exception) else scored(each) for each in found]

    def _reply(self, call: Call, result: Result | None, content: dict[str, Any], began: float) -> Reply:
        content["processing_time"] = seconds = round(self.engine.clock() - began, 6)
        content["model_version"] = result.ref.version if result else None
        self.styles.completed(call, seconds)
        return Reply(content)

    def routes(self) -> list[Route]:
        own, streams = ("inference",), ("streams",)
        return [
            Route(
                "POST", "/infer", self.infer, schemas.InferResponse, REFUSALS,
                max_body_bytes=SMALL, tags=own,
            ),
            Route(
                "POST", "/infer/image", self.infer_image, schemas.ImageResponse, (422, 502, *REFUSALS),
                decode=image_request, media_types=("application/json", MULTIPART), form=FORM, tags=own,
            ),
            Route(
                "POST", "/infer/batch", self.infer_batch, schemas.BatchResponse, REFUSALS,
                max_body_bytes=LARGE, tags=own,
            ),
            Route(
                "POST", "/stream/infer", self.stream_infer, errors=REFUSALS, content=EVENTS,
                max_body_bytes=SMALL, tags=streams,
            ),
            Route("GET", "/stream", self.stream, content=EVENTS, tags=streams),
            Route(
                "GET", "/readyz", self.readyz, schemas.ModelState,
                protected=False, tags=("operations",), also={503: schemas.ModelState},
            ),
        ]  # fmt: skip
