"""What is sent to the recommendation service (document 002)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from typing_extensions import TypedDict

from maru.http.strict_json import MAX_INTEGER
from maru.services.recommend.variants import Variant

MAX_EVENTS = 5_000
MAX_SESSIONS = 1_000
MAX_TOP_K = 1_000
MAX_LISTED = 10_000
MAX_CATEGORIES = 1_000
MAX_FEEDBACK = 1_000
MAX_WEIGHT = 1e6

MILLISECONDS = 100_000_000_000
"""A timestamp from here on can't be in seconds, of which this many pass by the year 5138."""
LAST_MILLISECOND = 253_402_300_799_999
"""Of the year 9999."""

EventType = Literal["clicks", "carts", "orders"]


def _in_seconds(ts: int) -> int:
    return ts // 1000 if ts >= MILLISECONDS else ts


Id = Annotated[StrictInt, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Timestamp = Annotated[
    StrictInt,
    Field(ge=0, le=LAST_MILLISECOND, description="Unix time in seconds; milliseconds are recognised."),
    AfterValidator(_in_seconds),
]


class Strict(BaseModel):
    """A request: a field that it does not have is a mistake, and is told."""

    model_config = ConfigDict(extra="forbid")


class Event(TypedDict):
    """One thing that a session did with an item."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    aid: Id
    ts: Timestamp
    type: EventType


Weight = Annotated[float, Field(strict=True, ge=0, le=MAX_WEIGHT, allow_inf_nan=False)]


class Weights(Strict):
    """How much each score counts in `combined`. What is not named does not count; what is, in proportion."""

    model_config = ConfigDict(frozen=True)

    clicks: Weight = 0.0
    carts: Weight = 0.0
    orders: Weight = 0.0

    @model_validator(mode="after")
    def _one_counts(self) -> Self:
        if not (self.clicks or self.carts or self.orders):
            raise ValueError("at least one weight must be greater than 0")
        return self

    def shares(self) -> tuple[float, float, float]:
        """Of clicks, carts and orders; together 1."""
        total = self.clicks + self.carts + self.orders
        return self.clicks / total, self.carts / total, self.orders / total


DEFAULT_WEIGHTS = Weights(clicks=0.1, carts=0.3, orders=0.6)


class Options(Strict):
    """How to recommend."""

    top_k: Annotated[StrictInt, Field(ge=1, le=MAX_TOP_K)] = Field(20, description="How many items to recommend.")
    weights: Weights = DEFAULT_WEIGHTS
    exclude: list[Id] = Field([], max_length=MAX_LISTED, description="Items that are not to be recommended.")
    include: list[Id] | None = Field(
        None, min_length=1, max_length=MAX_LISTED, description="The only items that may be recommended; default: all."
    )
    categories: list[Id] | None = Field(
        None,
        min_length=1,
        max_length=MAX_CATEGORIES,
        description="The only categories whose items may be recommended; default: all.",
    )
    explain: StrictBool = Field(
        False, description="Tell which source, and which item of the session, brought each recommendation."
    )
    variant: Variant | None = Field(
        None, description="The bundle that is to answer, while two are live; default: by the session's id."
    )


_SESSION: dict[str, Any] = {
    "session_id": 12345,
    "events": [
        {"aid": 1001, "ts": 1659304800, "type": "clicks"},
        {"aid": 1002, "ts": 1659304900, "type": "carts"},
    ],
}
_ASKED: dict[str, Any] = {"top_k": 20, "weights": {"clicks": 0.1, "carts": 0.3, "orders": 0.6}}

Events = Annotated[
    list[Event],
    Field(max_length=MAX_EVENTS, description="What the session did, in any order. May be empty: nothing is known."),
]


class RecommendRequest(Options):
    model_config = ConfigDict(json_schema_extra={"examples": [{**_SESSION, **_ASKED}]})

    session_id: Id
    events: Events


class Session(Strict):
    session_id: Id
    events: Events


@dataclass(frozen=True, slots=True)
class Rejected:
    """A session of a batch that is not one, and why. Its id is None when even that is missing."""

    session_id: int | None
    error: str


def _or_rejected(given: Any, validate: ValidatorFunctionWrapHandler) -> Session | Rejected:
    try:
        checked: Session = validate(given)
        return checked
    except ValidationError as error:
        id = given.get("session_id") if isinstance(given, dict) else None
        return Rejected(id if type(id) is int else None, said(error))


def said(error: ValidationError) -> str:
    """Where and what is wrong, never what was sent."""
    told = error.errors(include_url=False, include_context=False, include_input=False)[:3]
    return "; ".join(
        ": ".join(filter(None, (".".join(str(part)[:64] for part in each["loc"][:4]), each["msg"]))) for each in told
    )


if TYPE_CHECKING:
    GivenSession = Session | Rejected
else:  # described to callers as what it ought to be
    GivenSession = Annotated[Session, WrapValidator(_or_rejected)]


class BatchRequest(Options):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sessions": [
                        {"session_id": 12345, "events": [{"aid": 1001, "ts": 1659304800, "type": "clicks"}]},
                        {"session_id": 12346, "events": [{"aid": 2001, "ts": 1659304800, "type": "clicks"}]},
                    ],
                    **_ASKED,
                }
            ]
        }
    )

    sessions: list[GivenSession] = Field(max_length=MAX_SESSIONS)
    scores: StrictBool = Field(False, description="Give the scores of each recommendation, too.")


class FeedbackEvent(Strict):
    """One thing that a session did. With an `id`, whatever else is sent under it again is the same event;
    without one, the same session, item, second and type are."""

    id: Annotated[StrictStr, Field(min_length=1, max_length=128)] | None = None
    session_id: Id | None = Field(None, description="Default: that of the request.")
    aid: Id
    ts: Timestamp
    type: EventType


class FeedbackRequest(Strict):
    model_config = ConfigDict(json_schema_extra={"examples": [_SESSION]})

    session_id: Id | None = None
    events: list[FeedbackEvent] = Field(min_length=1, max_length=MAX_FEEDBACK)

    @model_validator(mode="after")
    def _all_have_sessions(self) -> Self:
        if self.session_id is None and any(event.session_id is None for event in self.events):
            raise ValueError("session_id is missing, of the request or of each event")
        return self
