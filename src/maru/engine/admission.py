"""Slots, a bounded waiting line, and a fair order between callers.

Every item of a request needs a slot, so a list of n items obeys the same rule as n single requests: it is
taken whole or refused whole, and its items then get their slots one by one, in turn with other callers'.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from maru.engine.errors import DeadlineUnreachable, QueueFull, TooManyItems
from maru.engine.events import Events, QueueChanged
from maru.engine.rate import ServiceRate
from maru.engine.types import Clock, Limits, Request


class Admitted:
    """A request's items on their way through one line. Leaving the context gives back all it holds."""

    def __init__(self, line: Line, request: Request, positions: Sequence[int]) -> None:
        self.request = request
        self.positions = positions
        self.line = line
        self.granted = 0
        self._taken = 0
        self.released = 0
        self._entered = 0.0
        self._granted_at = 0.0
        self._wake: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> int:
        return len(self.positions) - self.granted

    def cost(self, index: int) -> float:
        """The door's estimate for the index-th of these items."""
        costs = self.request.costs
        return costs[self.positions[index]] if costs is not None else 1.0

    async def __aenter__(self) -> Self:
        """Wait for the first slot. QueueFull, DeadlineUnreachable or TooManyItems at once, when
        there can be none."""
        self._entered = self.line.clock()
        self.line.join(self)
        try:
            await self._slot()
        except BaseException:
            self.line.leave(self)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.granted > self.released:
            self.release(self.granted - self.released)  # a stream's: its time in the slot is measured too
        self.line.leave(self)

    async def _slot(self) -> None:
        while self._taken == self.granted:
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    async def more(self) -> Sequence[int]:
        """The positions that got a slot since the last call, waiting for one if need be; none after the last."""
        if self._taken < len(self.positions):
            await self._slot()
        start, self._taken = self._taken, self.granted
        return self.positions[start : self._taken]

    def grant(self, now: float, count: int = 1) -> None:
        self.granted += count
        self._granted_at = now
        self.request.timings.queue_s = now - self._entered
        self.wake()

    def wake(self, error: Exception | None = None) -> None:
        if self._wake is not None and not self._wake.done():
            if error is None:
                self._wake.set_result(None)
            else:
                self._wake.set_exception(error)

    def release(self, count: int) -> None:
        """Give back the slots of that many finished items, while the others go on."""
        cost = sum(self.cost(i) for i in range(self.released, self.released + count))
        self.released += count
        self.line.release(count, cost, self._granted_at)


@dataclass(slots=True)
class _Caller:
    """One caller's waiting requests. `finish` is its place in virtual time (start-time fair queueing,
    Goyal, Vin and Cheng, 1996)."""

    weight: float
    finish: float
    items: int = 0
    cost: float = 0.0
    requests: deque[Admitted] = field(default_factory=deque)


class Line:
    """The slots of one model and the line in front of them."""

    def __init__(self, model: str, limits: Limits, events: Events, clock: Clock) -> None:
        self.model = model
        self.limits = limits
        self.clock = clock
        self.running = 0
        self.waiting = 0
        self._running_cost = 0.0
        self._waiting_cost = 0.0
        self._events = events
        self._rate = ServiceRate(limits.running)
        self._callers: dict[str, _Caller] = {}
        self._several: dict[str, _Caller] = {}
        self._turns: list[tuple[float, int, str]] = []
        self._turn = 0
        self._promised = 0.0
        self._virtual_time = 0.0
        self._finishes: dict[str, float] = {}

    def estimated_wait_s(self, cost: float = 1.0, tenant: str = "", weight: float = 1.0) -> float | None:
        """Seconds until work of that cost, arriving now from that caller, would be done; None when unknown."""
        return self._rate.seconds_for(self._ahead(cost, tenant, weight))

    def join(self, admitted: Admitted) -> None:
        request, count = admitted.request, len(admitted.positions)
        room = self.limits.running + self.limits.waiting
        if count > room:  # it would be refused for ever
            raise TooManyItems(f"the request has {count} items, and {room} are taken at once")
        excess = self.running + self.waiting + count - self.limits.running - self.limits.waiting
        victims = self._displaceable(request, count, excess) if excess > 0 else []
        if victims is None:
            wait = self._rate.seconds_for(self._running_cost + self._waiting_cost + self._mean_cost())
            raise QueueFull("the queue is full", self._retry_after_s(excess), wait)
        cost = sum(admitted.cost(i) for i in range(count))
        if self.running + self.waiting:
            self._check_deadline(request, cost)
        if not self.waiting and self.running + count <= self.limits.running:
            self._admit(admitted, count, cost)
            return
        for victim in victims:
            self._displace(victim)
        caller = self._callers.get(request.tenant)
        if caller is None:
            finish = max(self._virtual_time, self._finishes.get(request.tenant, 0.0))
            caller = self._callers[request.tenant] = _Caller(request.weight, finish)
            self._enqueue(request.tenant, caller)
        caller.requests.append(admitted)
        if len(caller.requests) == 2:
            self._several[request.tenant] = caller
        caller.items += count
        caller.cost += cost
        self.waiting += count
        self._waiting_cost += cost
        self._serve()

    def _admit(self, admitted: Admitted, count: int, cost: float) -> None:
        """Slots for all at once: where nobody waits there is no order to keep."""
        self.running += count
        self._running_cost += cost
        admitted.grant(self.clock(), count)
        self._events.emit(QueueChanged(self.model, self.running, self.waiting))

    def _check_deadline(self, request: Request, cost: float) -> None:
        """DeadlineUnreachable if it is. The fair order is only looked at when the whole line would take too long."""
        now = self.clock()
        wait = self._rate.seconds_for(self._running_cost + self._waiting_cost + cost)
        if wait is None or now + wait <= request.deadline:
            return
        wait = self.estimated_wait_s(cost, request.tenant, request.weight)
        if wait is not None and now + wait > request.deadline:
            late = now + wait - request.deadline
            raise DeadlineUnreachable("the answer would come after the deadline", late, wait)

    def leave(self, admitted: Admitted) -> None:
        if admitted.released == len(admitted.positions):
            return
        self.running -= admitted.granted - admitted.released
        self._running_cost -= sum(admitted.cost(i) for i in range(admitted.released, admitted.granted))
        if admitted.waiting:
            self._forget(admitted)
        admitted.granted = admitted.released = len(admitted.positions)
        self._serve()

    def release(self, count: int, cost: float, granted_at: float) -> None:
        self.running -= count
        self._running_cost -= cost
        now = self.clock()
        self._rate.completed(now, cost / count, count, now - granted_at)
        self._serve()

    def _serve(self) -> None:
        """Give free slots to waiting items, fairest first."""
        now = self.clock()
        while self._callers and self.running < self.limits.running:
            start, _, tenant = heapq.heappop(self._turns)
            caller = self._callers.get(tenant)
            if caller is None or start != caller.finish:
                continue
            admitted = caller.requests[0]
            cost = admitted.cost(admitted.granted)
            self._virtual_time = start
            caller.finish += max(cost, 1e-9) / caller.weight
            caller.items -= 1
            caller.cost -= cost
            self.running += 1
            self._running_cost += cost
            self.waiting -= 1
            self._waiting_cost -= cost
            admitted.grant(now)
            if not admitted.waiting:
                caller.requests.popleft()
                self._fewer(tenant, caller)
            self._enqueue(tenant, caller) if caller.requests else self._dismiss(tenant)
        self._rate.pressed(now, self.waiting > 0)
        self._events.emit(QueueChanged(self.model, self.running, self.waiting))

    def _enqueue(self, tenant: str, caller: _Caller) -> None:
        self._turn += 1
        heapq.heappush(self._turns, (caller.finish, self._turn, tenant))

    def _dismiss(self, tenant: str) -> None:
        """Forget a caller with nothing waiting, but not how far ahead of the others it was served."""
        self._finishes[tenant] = self._callers.pop(tenant).finish
        if len(self._finishes) > 1024:
            self._finishes = {t: f for t, f in self._finishes.items() if f > self._virtual_time}
        if not self._callers:
            self._turns.clear()
            self._finishes.clear()
            self._virtual_time = self._waiting_cost = 0.0

    def _fewer(self, tenant: str, caller: _Caller) -> None:
        if len(caller.requests) == 1:
            del self._several[tenant]

    def _forget(self, admitted: Admitted) -> None:
        tenant = admitted.request.tenant
        caller = self._callers[tenant]
        cost = sum(admitted.cost(i) for i in range(admitted.granted, len(admitted.positions)))
        caller.requests.remove(admitted)
        self._fewer(tenant, caller)
        caller.items -= admitted.waiting
        caller.cost -= cost
        self.waiting -= admitted.waiting
        self._waiting_cost -= cost
        if not caller.requests:
            self._dismiss(tenant)
            if len(self._turns) > 2 * len(self._callers) + 64:
                callers = self._callers
                self._turns = [t for t in self._turns if t[2] in callers and callers[t[2]].finish == t[0]]
                heapq.heapify(self._turns)

    def _displaceable(self, request: Request, count: int, excess: int) -> list[Admitted] | None:
        """In a full line, the newest requests of those callers who have more than this one would have: those
        that must be refused to make room. None when they are not room enough. A caller's last request is safe."""
        own = self._callers.get(request.tenant)
        share = ((own.items if own else 0) + count) / request.weight
        victims: list[Admitted] = []
        for caller in sorted(self._several.values(), key=lambda c: -c.items / c.weight):
            left = caller.items
            for waiting in reversed(caller.requests):
                if excess <= 0 or waiting.granted or (left - waiting.waiting) / caller.weight < share:
                    break
                left -= waiting.waiting
                excess -= waiting.waiting
                victims.append(waiting)
        return victims if excess <= 0 else None

    def _displace(self, victim: Admitted) -> None:
        wait = self._retry_after_s(victim.waiting)
        self._forget(victim)
        victim.granted = victim.released = len(victim.positions)
        victim.wake(QueueFull("the queue is full, and others wait with less", wait))

    def _retry_after_s(self, places: int) -> float:
        """Seconds until that many places are free: slots are given back together, so what runs may have to end
        first. A place that was told of before is somebody else's, so that those who are refused together don't
        come back together; nobody is told more than the whole line takes.
        """
        now, mean = self.clock(), self._mean_cost()
        wait = self._rate.seconds_for(places * mean)
        first = self._rate.seconds_for(self._running_cost + places * mean)
        last = self._rate.seconds_for((self.running + self.waiting + places) * mean)
        if wait is None or first is None or last is None:
            return 1.0
        self._promised = min(max(now + first, self._promised + wait), now + last)
        return self._promised - now

    def _ahead(self, cost: float, tenant: str, weight: float) -> float:
        """The cost served until this request is done: what runs, the caller's own, and of every other
        caller's what a fair order puts before it."""
        own = self._callers.get(tenant)
        mine = cost + (own.cost if own else 0.0)
        others = (
            min(other.cost, mine * other.weight / weight) for name, other in self._callers.items() if name != tenant
        )
        return self._running_cost + mine + sum(others)

    def _mean_cost(self) -> float:
        count = self.running + self.waiting
        return (self._running_cost + self._waiting_cost) / count if count else 1.0


class Admission:
    """The lines of all models."""

    def __init__(self, events: Events, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._lines: dict[str, Line] = {}

    def line(self, model: str, limits: Limits) -> Line:
        """The line of that model. New limits take the place of the old once the line is empty."""
        line = self._lines.get(model)
        if line is None or (line.limits != limits and not line.running and not line.waiting):
            line = self._lines[model] = Line(model, limits, self._events, self._clock)
        return line

    def enter(self, model: str, limits: Limits, request: Request, positions: Sequence[int]) -> Admitted:
        """`async with` it: slots for the items of `request` at `positions`."""
        return Admitted(self.line(model, limits), request, positions)
