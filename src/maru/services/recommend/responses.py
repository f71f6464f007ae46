"""What comes back from the recommendation service (document 002)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from maru.services.recommend.variants import Variant


class Scores(BaseModel):
    """`clicks[i]` is how likely it is, from 0 to 1, that the session clicks `recommendations[i]` next, `carts[i]`
    and `orders[i]` that it will put it into the cart and order it. `combined` is their weighted mean."""

    clicks: list[float]
    carts: list[float]
    orders: list[float]
    combined: list[float]


class Source(BaseModel):
    """By which source an item was found, at which place of its list (from 1; 0 when it only fills up), and for which
    item of the session (null for what is popular with everybody)."""

    source: str
    rank: int
    because: int | None


class Explanation(BaseModel):
    """How a recommendation was found, the strongest source first."""

    aid: int
    sources: list[Source]


class RecommendResponse(BaseModel):
    """`recommendations` are new to the session, the best first. `fallback` says that nothing of the session was
    known, so that they are what is popular. `variant` and `model_version` say which bundle made them."""

    session_id: int
    recommendations: list[int]
    scores: Scores
    fallback: bool
    variant: Variant
    model_version: str
    explain: list[Explanation] | None = None


class BatchResult(BaseModel):
    session_id: int
    recommendations: list[int]
    scores: Scores | None = None
    fallback: bool
    variant: Variant
    model_version: str
    explain: list[Explanation] | None = None


class BatchError(BaseModel):
    """`index` is the session's place in `sessions`. `session_id` is null when it has none that is an integer."""

    session_id: int | None
    error: str
    index: int


class BatchResponse(BaseModel):
    """`results` are in the order of the sessions that could be recommended for; the others are in `errors`."""

    results: list[BatchResult]
    errors: list[BatchError]
    total: int
    success: int
    failed: int


class ItemEmbedding(BaseModel):
    aid: int
    embedding: list[float]
    dimension: int
    model_version: str


class SessionEmbedding(BaseModel):
    session_id: int
    embedding: list[float]
    dimension: int
    model_version: str


class HealthResponse(BaseModel):
    """`status` is healthy as long as the process answers; `models_loaded` says whether it can recommend.

    `feature_columns` is 0 until then. `candidate_version` is that of the second bundle while two are live.
    `training` is the stage of the training of the first bundle while there is none; `load_error` why the last
    bundle that was promoted is not served.
    """

    status: Literal["healthy"] = "healthy"
    models_loaded: bool
    embeddings_loaded: bool
    feature_columns: int
    model_version: str | None = None
    candidate_version: str | None = None
    training: str | None = None
    load_error: str | None = None


class StatsResponse(BaseModel):
    """Of the bundle that is live. `rankers` says what each score comes from: a ranker, or the fused candidates
    where no ranker was better."""

    models: list[str]
    total_items: int
    total_sessions: int
    embedding_dimension: int
    feature_dimension: int
    rankers: dict[str, str]
    model_version: str
    candidate_version: str | None = None


class FeedbackResponse(BaseModel):
    """`accepted` events are on disk. `duplicates` were there already."""

    accepted: int
    duplicates: int


class ReloadResponse(BaseModel):
    """What is served now."""

    status: Literal["reloaded"] = "reloaded"
    model_version: str
    candidate_version: str | None = None


class Problem(BaseModel):
    """Every error of this service."""

    error: str
