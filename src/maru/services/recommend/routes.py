"""The recommendation service's endpoints: document 002's own, feedback, and taking up what was promoted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field

from maru.engine.errors import InputError
from maru.http.call import Caller
from maru.http.endpoint import Reply, Route
from maru.http.problem import Problem
from maru.services.recommend import responses, schemas
from maru.services.recommend.model import SCORES, Asked
from maru.services.recommend.queries import ask_for, choice
from maru.services.recommend.recording import Recorder
from maru.services.recommend.service import Answer, Recommendations, ReloadFailed
from maru.services.recommend.sessions import Embedding
from maru.services.recommend.variants import VariantMetrics
from maru.storage.feedback import FeedbackEvent

T = TypeVar("T")

REFUSALS = (413, 429, 503, 504, 507)

QUICK_EVENTS = 500
"""Of which something can be made in under a millisecond."""
EVENTS_A_SESSION = 20
"""What a session costs beside its events, in events."""

PathId = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


@dataclass(frozen=True, slots=True)
class Routes:
    """Handlers over one `Recommendations`, the `Recorder` of its feedback, and the metrics of its variants."""

    recommendations: Recommendations
    recorder: Recorder
    metrics: VariantMetrics

    async def recommend(self, call: Caller, body: schemas.RecommendRequest) -> Reply:
        """What a session is likely to click, put into the cart and order next: items that are new to it."""
        asked = await _made(len(body.events) + _listed(body), lambda: ask_for(choice(body), body.events))
        (answer,) = await self.recommendations.recommend(call, [(body.session_id, asked)], body.variant, partial=False)
        assert isinstance(answer, Answer)
        return Reply({"session_id": body.session_id, **_told(answer, scores=True)})

    async def batch_recommend(self, call: Caller, body: schemas.BatchRequest) -> Reply:
        """The same for many sessions. One that can't be answered has an error, and the others their answers."""
        good = [session for session in body.sessions if isinstance(session, schemas.Session)]
        size = sum(EVENTS_A_SESSION + len(session.events) for session in good) + _listed(body)

        def questions() -> list[tuple[int, Asked]]:
            chosen = choice(body)
            return [(session.session_id, ask_for(chosen, session.events)) for session in good]

        asked = await _made(size, questions)
        answers = await self.recommendations.recommend(call, asked, body.variant, partial=True)
        return Reply(await _made(size, lambda: Reply(_batch(body, answers)).encoded()))

    async def item_embedding(self, call: Caller, aid: PathId) -> Reply:
        """An item's vector. Near vectors are items that the same sessions were interested in."""
        found = await self.recommendations.item(aid)
        if found is None:
            raise Problem(404, "NOT_FOUND", "there is no such item")
        return Reply({"aid": aid, **_vector(found)})

    async def session_embedding(self, call: Caller, session_id: PathId) -> Reply:
        """The vector of a session that the bundle was trained on, or that was recommended for in the last 24 hours."""
        found = await self.recommendations.session(session_id)
        if found is None:
            raise Problem(404, "NOT_FOUND", "there is no such session")
        return Reply({"session_id": session_id, **_vector(found)})

    async def stats(self, call: Caller) -> Reply:
        """What the live bundle holds."""
        return Reply(await self.recommendations.stats())

    async def health(self, call: Caller) -> Reply:
        """The process answers, and whether its bundle is loaded."""
        return Reply(self.recommendations.health())

    async def events(self, call: Caller, body: schemas.FeedbackRequest) -> Reply:
        """What sessions did, kept for the next training. Sent again, it changes nothing."""
        events = []
        for event in body.events:
            session = body.session_id if event.session_id is None else event.session_id
            assert session is not None  # the schema has seen to it
            variant = self.recommendations.variant_of(session)
            events.append(FeedbackEvent(session, event.aid, event.ts, event.type, event.id, variant))
        added = await self.recorder.record(events)
        self.metrics.happened(added)
        return Reply({"accepted": len(added), "duplicates": len(events) - len(added)})

    async def reload(self, call: Caller) -> Reply:
        """Serve what was promoted, without waiting for it to be noticed. Nothing fails meanwhile."""
        try:
            served = await self.recommendations.reload()
        except ReloadFailed as error:
            raise Problem(500, "RELOAD_FAILED", str(error)) from error
        return Reply(responses.ReloadResponse(model_version=served.live, candidate_version=served.candidate))

    def routes(self) -> list[Route]:
        own, embeddings, operations = ("recommendations",), ("embeddings",), ("operations",)
        return [
            Route("POST", "/recommend", self.recommend, responses.RecommendResponse, (404, *REFUSALS), tags=own),
            Route(
                "POST", "/batch_recommend", self.batch_recommend, responses.BatchResponse, (404, *REFUSALS),
                tags=own,
            ),
            Route(
                "GET", "/items/{aid}/embedding", self.item_embedding, responses.ItemEmbedding, (404, 503),
                tags=embeddings,
            ),
            Route(
                "GET", "/sessions/{session_id}/embedding", self.session_embedding, responses.SessionEmbedding,
                (404, 503), tags=embeddings,
            ),
            Route("GET", "/stats", self.stats, responses.StatsResponse, (503,), tags=operations),
            Route("GET", "/health", self.health, responses.HealthResponse, protected=False, tags=operations),
            Route("POST", "/events", self.events, responses.FeedbackResponse, (413, 429, 503), tags=("feedback",)),
            Route("POST", "/reload", self.reload, responses.ReloadResponse, (500, 503), tags=operations),
        ]  # fmt: skip


async def _made(size: int, make: Callable[[], T]) -> T:
    """What `make` makes of so many events: in a thread, where that takes longer than the event loop may be held up."""
    return make() if size <= QUICK_EVENTS else await asyncio.to_thread(make)


def _listed(options: schemas.Options) -> int:
    """What the lists of a request cost, in events."""
    return (len(options.exclude) + len(options.include or ())) // 8


def _batch(body: schemas.BatchRequest, answers: Sequence[Answer | Exception]) -> dict[str, Any]:
    made = iter(answers)
    results: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for index, session in enumerate(body.sessions):
        answer = session.error if isinstance(session, schemas.Rejected) else next(made)
        if isinstance(answer, Answer):
            results.append({"session_id": session.session_id, **_told(answer, scores=body.scores)})
        else:
            errors.append({"session_id": session.session_id, "error": _why(answer), "index": index})
    counts = {"total": len(body.sessions), "success": len(results), "failed": len(errors)}
    return {"results": results, "errors": errors, **counts}


def _told(answer: Answer, *, scores: bool) -> dict[str, Any]:
    made = answer.made
    told: dict[str, Any] = {"recommendations": made.aids}
    if scores:
        told["scores"] = {name: made.scores[name] for name in SCORES}
    told |= {"fallback": made.fallback, "variant": answer.variant, "model_version": answer.version}
    if made.found is not None:
        told["explain"] = [
            {"aid": aid, "sources": [asdict(found) for found in ways]}
            for aid, ways in zip(made.aids.tolist(), made.found, strict=True)
        ]
    return told


def _vector(found: Embedding) -> dict[str, Any]:
    return {"embedding": found.vector, "dimension": len(found.vector), "model_version": found.version}


def _why(answer: str | Exception) -> str:
    """What of an error is for the caller."""
    if isinstance(answer, (str, InputError)):
        return str(answer)
    return "the model could not answer"
