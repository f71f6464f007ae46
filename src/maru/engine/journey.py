"""One request's time on the road: counted as running work, ended at its deadline, reported once."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from maru.engine.cutoff import Cutoff
from maru.engine.errors import DeadlineExceeded, EngineError, InputError, ModelNotFound, Refused
from maru.engine.events import Events, Outcome, RequestFinished
from maru.engine.lifecycle import Lifecycle
from maru.engine.types import CacheState, Clock, ModelRef, Request


class Journey:
    """`with` it, around all that is done for a request. Raises DeadlineExceeded when time is up."""

    def __init__(self, request: Request, lifecycle: Lifecycle, events: Events, clock: Clock) -> None:
        self._request = request
        self._lifecycle = lifecycle
        self._events = events
        self._clock = clock
        self._cutoff = Cutoff()
        self._started = 0.0
        self.ref: ModelRef | None = None
        self.cache: CacheState | None = None

    def __enter__(self) -> Self:
        self._started = self._clock()
        try:
            self._lifecycle.__enter__()
        except Refused as error:
            self._report(error)
            raise
        self._cutoff.__enter__()
        self._cutoff.after(self._request.deadline - self._started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lifecycle.__exit__()
        try:
            self._cutoff.__exit__(kind, error, trace)
        except TimeoutError:
            late = DeadlineExceeded(self._request.stage)
            self._report(late)
            raise late from None
        self._report(error)

    def _report(self, error: BaseException | None) -> None:
        self._request.timings.total_s = self._clock() - self._started
        self._events.emit(RequestFinished(self._request, self.ref, _outcome(error), self.cache, error))


def _outcome(error: BaseException | None) -> Outcome:
    match error:
        case None:
            return "ok"
        case Refused():
            return "refused"
        case DeadlineExceeded():
            return "deadline"
        case InputError() | ModelNotFound():
            return "input"
        case EngineError():
            return "failed"
        case Exception():
            return "failed"
        case _:
            return "cancelled"
