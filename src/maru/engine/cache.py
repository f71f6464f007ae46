"""Answers already computed, and those being computed.

An entry is keyed by the tenant, the model's version and artifact, the operation and the canonical input, so a
swap to another version invalidates by construction and no tenant learns what another asked. What is being
computed is computed once: those who ask meanwhile wait for it, and when whoever computes it leaves, one of
them takes over.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from maru.engine.errors import ModelLoadFailed, ModelNotReady, NoRoom
from maru.engine.events import CacheLookedUp, Events
from maru.engine.model import ModelSpec
from maru.engine.types import CacheState, Clock, ModelRef, Request, Result

log = logging.getLogger(__name__)

OVERHEAD_BYTES = 256
"""What one entry takes beside its value: the key, the tuple and the places in the dictionary."""

ABSENT = (ModelLoadFailed, ModelNotReady, NoRoom)
"""There is no model to compute anything with."""

PENDING_WRITES = 64
"""How many writes to the second level may be under way; more are left out, since a cache may forget."""


class ResultStore(Protocol):
    """A second level shared between processes. What it can't give is a miss: it should not raise, and is
    logged if it does."""

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    async def put_many(self, items: Mapping[bytes, bytes], ttl_s: float) -> None: ...


class Cache:
    """Results in process, bounded in bytes and by age, oldest use out first; and the flights under way."""

    def __init__(
        self, events: Events, clock: Clock, max_bytes: int, ttl_s: float, store: ResultStore | None = None
    ) -> None:
        self._events = events
        self._clock = clock
        self._max_bytes = max_bytes
        self._ttl = ttl_s
        self._store = store
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._writes: set[asyncio.Task[None]] = set()
        self.bytes = 0
        self.flights: dict[bytes, asyncio.Future[_Landing]] = {}

    def once(self, spec: ModelSpec, request: Request) -> Entry:
        """`with` it: what of this request is known, and what its caller must compute."""
        return Entry(self, spec, request)

    def get(self, key: bytes) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key: bytes, value: bytes) -> None:
        if key in self._entries:
            self._drop(key)
        size = len(value) + OVERHEAD_BYTES
        if size > self._max_bytes:
            return
        self._entries[key] = (self._clock() + self._ttl, value)
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    async def recall(self, keys: Sequence[bytes]) -> None:
        """Bring what only the second level knows of these keys into this one."""
        if self._store is None:
            return
        missing = [key for key in keys if key not in self._entries]
        if missing:
            try:
                values = await self._store.get_many(missing)
            except Exception:
                log.exception("the result store failed to read")
                return
            for key, value in zip(missing, values, strict=False):
                if value is not None:
                    self.put(key, value)

    def keep(self, items: Mapping[bytes, bytes]) -> None:
        """Store new results, here now and in the second level in the background."""
        for key, value in items.items():
            self.put(key, value)
        if self._store is not None and items and len(self._writes) < PENDING_WRITES:
            write = asyncio.get_running_loop().create_task(self._write(self._store, items))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)

    async def _write(self, store: ResultStore, items: Mapping[bytes, bytes]) -> None:
        try:
            await store.put_many(items, self._ttl)
        except Exception:
            log.exception("the result store failed to write")

    def looked_up(self, ref: ModelRef, hits: int, shared: int, misses: int) -> None:
        self._events.emit(CacheLookedUp(ref, hits, shared, misses))

    def _drop(self, key: bytes) -> None:
        self.bytes -= len(self._entries.pop(key)[1]) + OVERHEAD_BYTES


class _Landing:
    """How a flight ended: with an output or the error in its place, or with its leader leaving."""

    __slots__ = ("abandoned", "output")

    def __init__(self, output: Any = None, abandoned: bool = False) -> None:
        self.output = output
        self.abandoned = abandoned


class Entry:
    """One request's view of the cache."""

    def __init__(self, cache: Cache, spec: ModelSpec, request: Request) -> None:
        self._cache = cache
        self._spec = spec
        self._request = request
        self._codec = spec.codec if request.keys is not None else None
        self._keys = self._digests() if self._codec is not None else []
        self._outputs: list[Any] = [None] * len(request.inputs)
        self._leads: dict[bytes, asyncio.Future[_Landing]] = {}
        self._follows: list[tuple[int, asyncio.Future[_Landing]]] = []
        self._begun = False
        self.state: CacheState = "miss"

    def _digests(self) -> list[bytes]:
        request = self._request
        start = hashlib.sha256(repr((request.tenant, *self._spec.ref, request.operation)).encode())
        digests = []
        for key in request.keys or ():
            digest = start.copy()
            digest.update(key)
            digests.append(digest.digest())
        return digests

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Whatever was not filled is handed over; that there is no model is what all the others would find too."""
        landing = _Landing(error) if isinstance(error, ABSENT) else _Landing(abandoned=True)
        for key in list(self._leads):
            self._land(key, landing)

    async def todo(self) -> Sequence[int]:
        """The positions that the caller must compute and `fill` now; none when every output is known.

        Called again after `fill`, it waits for what others compute, and gives back what they abandoned.
        """
        todo: Sequence[int] = ()
        if not self._begun:
            self._begun = True
            todo = await self._look_up()
        while self._follows and not todo:
            follows, self._follows = self._follows, []
            await asyncio.wait({flight for _, flight in follows})
            abandoned = []
            for i, flight in follows:
                landing = flight.result()
                if landing.abandoned:
                    abandoned.append(i)
                elif isinstance(landing.output, ABSENT):
                    raise landing.output
                else:
                    self._outputs[i] = landing.output
            if todo := self._claim(abandoned):
                self.state = "miss"
        return todo

    async def _look_up(self) -> Sequence[int]:
        count = len(self._request.inputs)
        if self._codec is None:
            return range(count)
        await self._cache.recall(self._keys)
        todo = self._claim(range(count))
        hits = count - len(todo) - len(self._follows)
        self.state = "hit" if hits == count else "miss" if todo else "shared"
        self._cache.looked_up(self._spec.ref, hits, len(self._follows), len(todo))
        return todo

    def _claim(self, positions: Sequence[int]) -> list[int]:
        """Of these, take what is known, follow what is under way, and lead the rest."""
        led = []
        for i in positions:
            key = self._keys[i]
            if self._known(i, key):
                continue
            if flight := self._cache.flights.get(key):
                self._follows.append((i, flight))
            else:
                self._leads[key] = self._cache.flights[key] = asyncio.get_running_loop().create_future()
                led.append(i)
        return led

    def _known(self, i: int, key: bytes) -> bool:
        data = self._cache.get(key)
        if data is None or self._codec is None:
            return False
        try:
            self._outputs[i] = self._codec.decode(data)
        except ValueError:
            return False
        return True

    def fill(self, positions: Sequence[int], outputs: Sequence[Any]) -> None:
        """Give the outputs of what `todo` asked for. An exception among them is never cached."""
        fresh: dict[bytes, bytes] = {}
        for i, output in zip(positions, outputs, strict=True):
            self._outputs[i] = output
            if self._codec is None:
                continue
            if not isinstance(output, Exception):
                fresh[self._keys[i]] = self._codec.encode(output)
            self._land(self._keys[i], _Landing(output))
        self._cache.keep(fresh)

    def _land(self, key: bytes, landing: _Landing) -> None:
        flight = self._leads.pop(key)
        del self._cache.flights[key]
        if not flight.done():
            flight.set_result(landing)

    def result(self) -> Result:
        """All outputs. Raises the first exception among them, unless the request asked for them."""
        if not self._request.partial:
            for output in self._outputs:
                if isinstance(output, Exception):
                    raise output
        return Result(self._outputs, self._spec.ref, self.state, self._request.timings)
