"""The recommenders in the engine: which bundles are live, how they get there, and how sessions are sent to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from maru.engine.engine import Engine
from maru.engine.errors import EngineError, ModelLoadFailed, ModelNotFound, ModelNotReady, Refused
from maru.engine.manager import Lease
from maru.engine.repository import LATEST
from maru.engine.types import Result
from maru.http.call import Call
from maru.services.recommend.bundles import BundleError, Bundles
from maru.services.recommend.core.features import DIMENSIONS
from maru.services.recommend.model import Asked, Recommended, RecommenderModel, limits
from maru.services.recommend.responses import HealthResponse, StatsResponse
from maru.services.recommend.sessions import MOST, Embedding, Sessions
from maru.services.recommend.starter import Starter
from maru.services.recommend.variants import CANDIDATE, LIVE, VARIANTS, Split, Variant

log = logging.getLogger(__name__)

RETRY_S = 15.0


@dataclass(frozen=True, slots=True)
class Configuration:
    """The service's settings. `bundles` is the folder of trained versions, whose aliases are looked at every
    `poll_s` seconds; machine code is kept in `compiled`.

    While there is a candidate, `candidate_share` of all sessions are given to it. The vectors of the latest
    `sessions` are kept.
    """

    bundles: Path
    compiled: Path
    poll_s: float = 2.0
    candidate_share: float = 0.5
    timeout_s: float = 30.0
    sessions: int = MOST


class ReloadFailed(Exception):
    """What was promoted is not served, and what was served before still is. The message is one for callers."""


class Promoted(NamedTuple):
    """The versions that are to answer. Without a `candidate` all sessions are the live one's."""

    live: str | None
    candidate: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one session was recommended, by which variant, and by which version that was."""

    made: Recommended
    variant: Variant
    version: str


class Recommendations:
    """The one model of the service, whose versions are bundles.

    `live` and `candidate` are aliases of the bundles and of the engine's model; without a candidate both stand for
    the live bundle in the engine. They are followed as they are moved. With a `starter`, a first bundle is trained
    where there is none.
    """

    model = "recommend"

    def __init__(self, engine: Engine, configuration: Configuration, starter: Starter | None = None) -> None:
        c = configuration
        self._engine = engine
        self._configuration = c
        self._bundles = Bundles(c.bundles)
        self._limits = limits(c.timeout_s)
        self._split = Split(c.candidate_share)
        self._starter = starter
        self._changing = asyncio.Lock()
        self._refused: Promoted | None = None
        self._error: str | None = None
        self.sessions = Sessions(engine.clock, c.sessions)
        engine.repository.expect(self.model)

    async def start(self) -> None:
        """Serve what is promoted; where nothing is, have the first bundle trained, and serve that."""
        while True:
            try:
                await self.reload()
                return
            except ReloadFailed as error:
                log.error("what is promoted can't be served: %s", str(error))
                if self._resident() is not None:  # it is the candidate that can't
                    return
            except ModelNotReady:
                if self._starter is None:
                    return  # until something is promoted, which `following` will notice
                if await self._starter.train():
                    continue
            await asyncio.sleep(RETRY_S)

    async def reload(self) -> Promoted:
        """Serve what is promoted now; when this returns, what was replaced has given its last answer.

        ReloadFailed when that can't be served; ModelNotReady when nothing is promoted.
        """
        async with self._changing:
            promoted = await self._promoted()
            if promoted.live is None:
                raise ModelNotReady("no bundle is promoted yet", retry_after_s=RETRY_S)
            await self._take(promoted)
            return promoted

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Take up what is promoted, as it is, in the background."""
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def recommend(
        self, call: Call, sessions: Sequence[tuple[int, Asked]], variant: Variant | None = None, *, partial: bool
    ) -> list[Answer | Exception]:
        """For each session, by its id and what is asked for it, an answer. `partial` has an error in the place of
        one that fails; without it the first of them is raised.

        ModelNotFound when `variant` is not live now.
        """
        if variant == CANDIDATE and self._served().candidate is None:
            raise ModelNotFound("there is no candidate now")
        chosen = [variant or self.variant_of(id) for id, _ in sessions]
        until = self._engine.clock() + self._configuration.timeout_s
        answers: dict[int, Answer | Exception] = {}
        for one in VARIANTS:
            places = [place for place, name in enumerate(chosen) if name == one]
            if not places:
                continue
            asked = [sessions[place][1] for place in places]
            left = until - self._engine.clock()
            result = await self.infer(call, asked, f"{self.model}@{one}", partial=partial, deadline_s=left)
            version = result.ref.version
            for place, made in zip(places, result.outputs, strict=True):
                if isinstance(made, Recommended):
                    self.sessions.put(sessions[place][0], made.vector, version)
                    answers[place] = Answer(made, one, version)
                else:
                    answers[place] = made
        return [answers[place] for place in range(len(sessions))]

    async def infer(
        self, call: Call, asked: Sequence[Asked], model: str, *, partial: bool = False, deadline_s: float | None = None
    ) -> Result:
        """One `Recommended` for each that is asked, in order, all by one version."""
        return await call.infer(
            model,
            asked,
            self._configuration.timeout_s if deadline_s is None else deadline_s,
            operation="recommend",
            keys=[one.key for one in asked],
            partial=partial,
        )

    def variant_of(self, session_id: int) -> Variant:
        """The variant that answers this session."""
        candidate = self._served().candidate
        return LIVE if candidate is None else self._split.of(session_id, candidate)

    def resolve(self, name: str) -> str:
        """The engine's name of the model that a caller names; ModelNotFound when the name is another's."""
        if name == self.model:
            return self.model
        raise ModelNotFound("no model of that name")

    async def item(self, aid: int) -> Embedding | None:
        """The vector of an item of the live bundle."""
        with self._lease() as lease:
            vector = (await _opened(lease)).index.item_vector(aid)
            return None if vector is None else Embedding(vector, lease.spec.ref.version)

    async def session(self, session_id: int) -> Embedding | None:
        """The vector of a session that was recommended for, or that the live bundle was trained on."""
        if seen := self.sessions.get(session_id):
            return seen
        with self._lease() as lease:
            vector = (await _opened(lease)).index.session_vector(session_id)
            return None if vector is None else Embedding(vector, lease.spec.ref.version)

    async def stats(self) -> StatsResponse:
        with self._lease() as lease:
            model = await _opened(lease)
            return StatsResponse(
                models=list(model.rankers),
                total_items=model.index.total_items,
                total_sessions=model.index.total_sessions,
                embedding_dimension=DIMENSIONS,
                feature_dimension=model.features,
                rankers=model.rankers,
                model_version=lease.spec.ref.version,
                candidate_version=self._served().candidate,
            )

    def health(self) -> HealthResponse:
        served = self._served()
        model = self._resident()
        return HealthResponse(
            models_loaded=model is not None,
            embeddings_loaded=model is not None,
            feature_columns=model.features if model else 0,
            model_version=served.live,
            candidate_version=served.candidate,
            training=self._starter.stage if self._starter else None,
            load_error=self._error,
        )

    def _served(self) -> Promoted:
        """What answers at this moment."""
        aliases = self._engine.repository.aliases(self.model)
        live, candidate = aliases.get(LIVE), aliases.get(CANDIDATE)
        return Promoted(live, None if candidate == live else candidate)

    def _lease(self) -> Lease:
        return self._engine.manager.lease(self._engine.repository.resolve(self.model))

    def _resident(self) -> RecommenderModel | None:
        try:
            resident = self._engine.manager.get(self._engine.repository.resolve(self.model).ref)
        except EngineError:
            return None
        return resident.model if resident and isinstance(resident.model, RecommenderModel) else None

    async def _follow(self) -> None:
        told = ""
        while True:
            await asyncio.sleep(self._configuration.poll_s)
            try:
                async with self._changing:
                    promoted = await self._promoted()
                    if promoted.live is not None and promoted != self._refused:
                        await self._take(promoted)
                told = ""
            except ReloadFailed as error:
                if str(error) != told:
                    log.error("what is promoted can't be served: %s", str(error))
                told = str(error)

    async def _promoted(self) -> Promoted:
        try:
            aliases = await asyncio.to_thread(self._bundles.aliases)
        except BundleError as error:
            raise self._failed(error) from error
        live, candidate = aliases.get(LIVE), aliases.get(CANDIDATE)
        return Promoted(live, None if candidate == live else candidate)

    async def _take(self, promoted: Promoted) -> None:
        """Open and swap in what is not served yet. Whatever fails, what was served is served as before."""
        before = self._served()
        ends = promoted.candidate is None and before.candidate is not None
        stays = promoted.candidate is not None and promoted.candidate == before.candidate
        try:
            if promoted.live != before.live or ends:
                await self._swap(promoted.live, LATEST, LIVE, *(() if stays else (CANDIDATE,)))
            if promoted.candidate is not None and not stays:
                await self._swap(promoted.candidate, CANDIDATE)
        except (BundleError, EngineError) as error:
            if not isinstance(error, Refused):
                self._refused = promoted  # which will not have become better when it is looked at again
            raise self._failed(error) from error
        self._refused = self._error = None

    async def _swap(self, version: str | None, *aliases: str) -> None:
        assert version is not None
        bundle = await asyncio.to_thread(self._bundles.open, version)
        spec = RecommenderModel.spec(self.model, bundle, self._limits, self._configuration.compiled)
        await self._engine.manager.swap(spec, *aliases)

    def _failed(self, error: Exception) -> ReloadFailed:
        found = error.__cause__ if type(error) is ModelLoadFailed else error
        told = str(found) if isinstance(found, (BundleError, EngineError)) else f"it failed ({type(found).__name__})"
        self._error = told
        return ReloadFailed(told)


async def _opened(lease: Lease) -> RecommenderModel:
    model = (await lease.resident()).model
    assert isinstance(model, RecommenderModel)
    return model
