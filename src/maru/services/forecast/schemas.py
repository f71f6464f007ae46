"""What is sent to the forecast service and what comes back (document 001)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from maru.http.addresses import MAX_URL_LENGTH, parse_url
from maru.services.forecast.window import Window

MAX_WINDOWS = 1024
MAX_ALIAS = 255


@dataclass(frozen=True, slots=True)
class Shape:
    """Of one window: so many steps of so many features. Given as the validation's context."""

    seq_len: int
    n_features: int

    def __str__(self) -> str:
        return f"[{self.seq_len}, {self.n_features}]"


class NotAWindow(ValueError):
    """The message, in Korean, says what was expected and what came, and quotes no number of it."""


def window(given: Any, shape: Shape) -> Window:
    """A window as an array, or NotAWindow."""
    expected = f"{shape} 형식의 2차원 숫자 배열이어야 합니다"
    if type(given) is not list or any(type(row) is not list for row in given):
        raise NotAWindow(f"{expected} (받은 값은 배열의 배열이 아닙니다)")
    lengths = {len(row) for row in given}
    if len(lengths) > 1:
        raise NotAWindow(f"{expected} (받은 행의 길이가 {min(lengths)}에서 {max(lengths)}까지 서로 다릅니다)")
    if len(given) != shape.seq_len or lengths != {shape.n_features}:
        raise NotAWindow(f"{expected} (받은 형식: [{len(given)}, {max(lengths, default=0)}])")
    if not {kind for row in given for kind in map(type, row)} <= {float, int}:
        raise NotAWindow(f"{expected} (숫자가 아닌 값이 있습니다)")
    with np.errstate(over="ignore"):  # of what float32 can't hold, which is found below
        array = np.array(given, np.float32)
    if not np.isfinite(array).all():
        raise NotAWindow(f"{expected} (float32로 나타낼 수 없는 큰 값이 있습니다)")
    return array


def _window(given: Any, info: ValidationInfo) -> Window:
    assert isinstance(info.context, Shape)
    try:
        return window(given, info.context)
    except NotAWindow as error:
        raise PydanticCustomError("window", "{said}", {"said": str(error)}) from None


def _windows(given: Any, info: ValidationInfo) -> list[Window | NotAWindow]:
    assert isinstance(info.context, Shape)
    if type(given) is not list or not 1 <= len(given) <= MAX_WINDOWS:
        said = f"{info.context} 형식의 배열을 1개에서 {MAX_WINDOWS}개까지 담은 배열이어야 합니다"
        raise PydanticCustomError("windows", "{said}", {"said": said})
    found: list[Window | NotAWindow] = []
    for each in given:
        try:
            found.append(window(each, info.context))
        except NotAWindow as error:
            found.append(error)
    return found


def _web_url(given: str) -> str:
    try:
        parse_url(given)
    except ValueError:
        raise PydanticCustomError("url", "유효한 HTTP/HTTPS URL이어야 합니다") from None
    return given


_WINDOW_SCHEMA: dict[str, Any] = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
_EXAMPLE: list[JsonValue] = [[45_000.0 + 10 * step] * 18 for step in range(12)]


class Strict(BaseModel):
    """A request: a field that it does not have is a mistake, and is told."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class PredictPayload(Strict):
    model_config = ConfigDict(json_schema_extra={"examples": [{"X": _EXAMPLE}]})

    X: Annotated[Window, PlainValidator(_window), WithJsonSchema(_WINDOW_SCHEMA)] = Field(
        description="`[T, F]`: SEQ_LEN_REQUIRED steps of N_FEATURES_REQUIRED features, the oldest first."
    )
    callback_url: Annotated[StrictStr, Field(max_length=MAX_URL_LENGTH), AfterValidator(_web_url)] | None = Field(
        None, description="Where the prediction is sent, too: an http or https URL of a public host."
    )
    metadata: dict[str, Any] | None = Field(None, description="Sent back in the callback as it is.")


class PredictResponse(BaseModel):
    pred_btc_close_next: float
    posted_to_callback: bool
    model_alias: str
    model_version: str


class BatchPayload(Strict):
    model_config = ConfigDict(json_schema_extra={"examples": [{"X": [_EXAMPLE, _EXAMPLE]}]})

    X: Annotated[
        list[Any], PlainValidator(_windows), WithJsonSchema({"type": "array", "items": _WINDOW_SCHEMA, "minItems": 1})
    ] = Field(description=f"`[N, T, F]`: up to {MAX_WINDOWS:,} windows, each as in `/predict`.")


class Prediction(BaseModel):
    """Of one window: a prediction, or why there is none."""

    pred_btc_close_next: float | None = None
    error: str | None = None


class BatchResponse(BaseModel):
    """`predictions[i]` is that of `X[i]`. One version of the model has made all of them."""

    predictions: list[Prediction]
    count: int
    failed: int
    model_alias: str
    model_version: str


class ReloadRequest(Strict):
    alias: Annotated[StrictStr, Field(min_length=1, max_length=MAX_ALIAS)] | None = Field(
        None, description="Of the model in the registry; without one, MODEL_ALIAS."
    )


class ReloadResponse(BaseModel):
    status: Literal["reloaded"] = "reloaded"
    model_alias: str
    model_version: str


class HealthResponse(BaseModel):
    """`status` is ok as long as the process answers; `model_loaded` says whether it can predict.

    `source` is where the registry has the model from. `reload_error` is why the last reload failed, null when it
    did not.
    """

    status: Literal["ok"] = "ok"
    model_loaded: bool
    model_alias: str | None = None
    model_version: str | None = None
    model_name: str
    source: str | None = None
    seq_len: int
    n_features: int
    features: list[str] | None = None
    close_index: int | None = None
    interval: str | None = None
    reload_error: str | None = None


class RegistryEvent(BaseModel):
    """What MLflow sends when something changes in its registry. Fields that are not needed here are let be."""

    entity: Annotated[str, Field(max_length=64)]
    action: Annotated[str, Field(max_length=64)]
    data: dict[str, Any] = {}


class EventResponse(BaseModel):
    """`following` when the event may have moved the alias that is served, which is now looked at."""

    status: Literal["following", "ignored"]


class Problem(BaseModel):
    """Every error of this service."""

    detail: str
