"""How images come in: from a URL, or with the request as base64 or as a multipart upload."""

from __future__ import annotations

from typing import Any

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from maru.engine.engine import Engine
from maru.engine.errors import QueueFull
from maru.http.call import Call
from maru.http.fetch import Fetcher
from maru.http.problem import Problem
from maru.http.strict_json import loads
from maru.services.style.model import NAME
from maru.services.style.schemas import MAX_FILE_BYTES, TASKS, ImageRequest, too_large

MULTIPART = "multipart/form-data"
ACCEPT = "image/jpeg, image/png, image/webp"
FIELD_BYTES = 4096

FORM: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "A JPEG, PNG or WebP file, 10 MiB at most."},
        "task": {"type": "string", "enum": list(TASKS)},
        "options": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/ImageOptions"},
        },
    },
    "required": ["file"],
}
"""An image as `multipart/form-data`."""


class Images:
    """Fetches images for requests on their way to the model.

    Together with those that run and wait there are no more of them than the line has places: who would find no place
    with an image is refused before it is fetched.
    """

    def __init__(self, engine: Engine, fetcher: Fetcher) -> None:
        self._engine = engine
        self._fetcher = fetcher
        self.fetching = 0

    async def fetch(self, url: str) -> bytes:
        """The file at `url`. FetchError; QueueFull, ModelNotReady before anything is fetched."""
        status = self._engine.status(NAME)
        if status.running + status.waiting + self.fetching >= status.max_running + status.max_waiting:
            wait = status.estimated_wait_s
            raise QueueFull("the queue is full", wait or 1.0, wait)
        self.fetching += 1
        try:
            return (await self._fetcher.get(url, accept=ACCEPT, max_bytes=MAX_FILE_BYTES)).body
        finally:
            self.fetching -= 1


def image_request(call: Call, data: bytes) -> ImageRequest:
    """A body in JSON or as a form."""
    content_type = call.header(b"content-type") or ""
    kind, options = parse_options_header(content_type)
    if kind.lower() != MULTIPART:
        return ImageRequest.model_validate(loads(data))
    fields = _fields(data, options.get("boundary", ""))
    if "file" not in fields:
        raise Problem(400, "BAD_REQUEST", "이미지를 담은 file이 없습니다")
    rest: dict[str, Any] = {name: value.decode(errors="replace") for name, value in fields.items() if name != "file"}
    if "options" in rest:
        rest["options"] = loads(fields["options"])
    return ImageRequest.of_file(fields["file"], rest)


def _fields(data: bytes, boundary: str) -> dict[str, bytes]:
    """The fields of a form (RFC 7578), in memory: an image is never written to disk."""
    fields: dict[str, bytearray] = {}
    current = bytearray()
    try:
        with PushMultipartParser(boundary, max_segment_count=8, strict=True) as parser:
            for event in parser.parse(data):
                if isinstance(event, MultipartSegment):
                    name = str(event.name)
                    if name in fields:
                        raise Problem(400, "BAD_REQUEST", "같은 항목이 두 번 있습니다")
                    current = fields[name] = bytearray()
                elif event:
                    current += event
    except MultipartError:
        raise Problem(400, "BAD_REQUEST", "본문이 올바른 multipart/form-data가 아닙니다") from None
    for name, value in fields.items():
        if len(value) > (MAX_FILE_BYTES if name == "file" else FIELD_BYTES):
            raise too_large()
    return {name: bytes(value) for name, value in fields.items()}
