"""What is sent to the style service and what comes back (document 000)."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from maru.http.addresses import MAX_URL_LENGTH
from maru.http.problem import Problem as AnyProblem

MAX_CHARACTERS = 2_000
MAX_ITEMS = 100
BATCH_SIZE = 10
MAX_FILE_BYTES = 10 * 2**20
TASKS = ("style_analysis",)


class NotAText(ValueError):
    """The message, in Korean, says what is wrong with a text and quotes nothing of it."""


def text_of(given: Any) -> str:
    """The text, or NotAText."""
    if not isinstance(given, str):
        raise NotAText("문자열이어야 합니다")
    if not given.strip():
        raise NotAText("비어 있습니다")
    if len(given) > MAX_CHARACTERS:
        raise NotAText(f"너무 깁니다: {MAX_CHARACTERS:,}자까지입니다")
    return given


def _text(given: str) -> str:
    try:
        return text_of(given)
    except NotAText as error:
        raise PydanticCustomError("text", "{said}", {"said": str(error)}) from None


def _task(given: str) -> str:
    if given not in TASKS:
        raise PydanticCustomError("task", "모르는 작업입니다: {known} 중 하나여야 합니다", {"known": ", ".join(TASKS)})
    return given


_TEXT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS, "pattern": r"\S"}

Text = Annotated[StrictStr, AfterValidator(_text), WithJsonSchema(_TEXT_SCHEMA)]
Seconds = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Task = Annotated[StrictStr, AfterValidator(_task), WithJsonSchema({"type": "string", "enum": list(TASKS)})]


class Strict(BaseModel):
    """A request: a field that it does not have is a mistake, and is told."""

    model_config = ConfigDict(extra="forbid")


class InferRequest(Strict):
    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "모던한 거실에 어울리는 의자"}]})

    text: Text


class StyleMatch(BaseModel):
    style: str
    score: float
    confidence: float


class Scored(BaseModel):
    """`score`: how well the input matches `style`, the style it matches best. `confidence`: the calibrated
    probability that the style is this one. Both in [0, 1]. `matches` are the three best."""

    score: float
    confidence: float
    style: str
    matches: list[StyleMatch]


class InferResponse(Scored):
    """`processing_time` is in seconds, the time in the queue included."""

    processing_time: float
    model_version: str


class ImageOptions(Strict):
    extract_features: StrictBool = Field(True, description="Answer with `features`.")
    return_embeddings: StrictBool = Field(False, description="Answer with `embedding`.")


class ImageRequest(Strict):
    """Exactly one of `image_url` and `image_base64`. As `multipart/form-data` the image is the part `file`, `task` is
    a field, and `options` a field that holds JSON."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["image_url"]}, {"required": ["image_base64"]}],
            "examples": [
                {
                    "image_url": "https://cdn.gajogagu.com/room_images/room_123.jpg",
                    "task": "style_analysis",
                    "options": {"extract_features": True, "return_embeddings": False},
                }
            ],
        }
    )

    image_url: Annotated[
        Annotated[StrictStr, Field(min_length=1, max_length=MAX_URL_LENGTH)] | None,
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_URL_LENGTH}),
    ] = Field(None, description="A JPEG, PNG or WebP file on a public host, 10 MiB at most.")
    image_base64: Annotated[StrictStr | None, WithJsonSchema({"type": "string", "contentEncoding": "base64"})] = Field(
        None, description="The file itself."
    )
    task: Task = "style_analysis"
    options: ImageOptions = ImageOptions()
    _file: bytes | None = PrivateAttr(None)

    @property
    def file(self) -> bytes | None:
        """The image file, where it came with the request."""
        return self._file

    @classmethod
    def of_file(cls, file: bytes, rest: dict[str, Any]) -> ImageRequest:
        """One whose image was uploaded."""
        if len(file) > MAX_FILE_BYTES:
            raise too_large()
        if "image_url" in rest or "image_base64" in rest:
            raise AnyProblem(400, "BAD_REQUEST", _ONE_IMAGE)
        asked: ImageRequest = cls.model_construct(**ImageTask.model_validate(rest).__dict__)
        asked._file = file
        return asked

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if (self.image_url is None) == (self.image_base64 is None):
            raise PydanticCustomError("one_image", _ONE_IMAGE)
        if self.image_base64 is not None:
            if len(self.image_base64) > -(-MAX_FILE_BYTES // 3) * 4:
                raise too_large()
            try:
                self._file = base64.b64decode(self.image_base64, validate=True)
            except (binascii.Error, ValueError):
                raise PydanticCustomError("base64", "image_base64가 올바른 base64가 아닙니다") from None
            self.image_base64 = ""  # it is not needed twice
        return self


_ONE_IMAGE = "image_url, image_base64, file 중 하나만 있어야 합니다"


class ImageTask(Strict):
    """What an upload says beside the image."""

    task: Task = "style_analysis"
    options: ImageOptions = ImageOptions()


class Features(BaseModel):
    """Each in [0, 1]. `brightness`: the mean of CIE L*. `contrast`: the standard deviation of L* over its greatest.
    `saturation`: the mean of HSV saturation, weighted with value."""

    brightness: float
    contrast: float
    saturation: float


class ImageResponse(BaseModel):
    """`colors` are the three dominant colours, most area first. `features` is left out where `extract_features` is
    false; `embedding` is there where `return_embeddings` is true, and null for a model that has none."""

    style: str
    colors: Annotated[list[str], Field(min_length=3, max_length=3)]
    features: Features | None = None
    confidence: float
    processing_time: float
    score: float
    matches: list[StyleMatch]
    model_version: str
    embedding: list[float] | None = None


class BatchItem(Strict):
    """`text` is checked item by item: a bad one fails alone."""

    id: Annotated[StrictStr, Field(min_length=1, max_length=256)]
    text: Annotated[Any, WithJsonSchema(_TEXT_SCHEMA)] = None


class BatchRequest(Strict):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [{"id": "item_1", "text": "클래식한 책상"}, {"id": "item_2", "text": "미니멀한 소파"}],
                    "batch_size": 10,
                }
            ]
        }
    )

    items: Annotated[list[BatchItem], Field(min_length=1, max_length=MAX_ITEMS)]
    batch_size: Annotated[StrictInt, Field(ge=1, le=MAX_ITEMS)] = Field(
        BATCH_SIZE, description="The most items that the model is given at once. Each such batch takes one place."
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({item.id for item in self.items}) != len(self.items):
            raise PydanticCustomError("duplicate_id", "items의 id는 서로 달라야 합니다")
        return self


class BatchResult(BaseModel):
    """Of one item: what was found, or why nothing was."""

    id: str
    score: float | None = None
    confidence: float | None = None
    style: str | None = None
    matches: list[StyleMatch] | None = None
    error: str | None = None


class BatchResponse(BaseModel):
    """`results[i]` is that of `items[i]`. `total_processed` counts those without an error."""

    results: list[BatchResult]
    total_processed: int
    failed: int
    processing_time: float
    model_version: str | None


class StreamInferRequest(Strict):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": "실시간으로 분석할 텍스트", "stream_interval": 0.1}]}
    )

    text: Text
    stream_interval: Annotated[Seconds, Field(ge=0, le=5)] = Field(
        0.1, description="The least time between events, in seconds."
    )


class QueueStatus(BaseModel):
    """`estimated_wait_time` is how long a request that comes now is expected to take, in seconds; 0 until that has
    been measured."""

    active_requests: int
    queued_requests: int
    max_concurrent: int
    estimated_wait_time: float


class ModelState(BaseModel):
    """Whether a request would be served now, by which version, and beside how many others. `stand_in` and `quality`
    are what the model says of itself."""

    model_ready: bool
    model_version: str | None
    gpu_available: bool
    concurrent_requests: int
    queue_size: int
    queue_status: QueueStatus
    state: Literal["starting", "ready", "draining", "stopped"]
    stand_in: bool | None = None
    quality: str | None = None
    styles: tuple[str, ...] = ()


class Problem(BaseModel):
    """Every error of this service. `error` is the machine's word for it."""

    error: str
    message: str
    details: dict[str, Any]


def too_large() -> AnyProblem:
    """An image file that is too large."""
    return AnyProblem(413, "PAYLOAD_TOO_LARGE", f"the image is larger than {MAX_FILE_BYTES} bytes")
