"""What is in memory, what is on its way there, and what must leave for it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from maru.engine.batcher import Batcher
from maru.engine.errors import NoRoom, OutOfMemory
from maru.engine.model import Model, ModelSpec
from maru.engine.types import ModelRef


@dataclass(frozen=True, slots=True)
class Budget:
    """Room for so many models and so many bytes (0: no bound).

    A model for which there is no room, since all others are in use, waits for its turn, `patience_s` at most.
    """

    models: int = 0
    bytes: int = 0
    patience_s: float = 0.0


@dataclass(slots=True, eq=False)
class Resident:
    """A model in memory, warm, with its batcher. `used` is when it was last asked for, or last answered,
    `since` when it was loaded."""

    spec: ModelSpec
    model: Model
    batcher: Batcher
    used: float
    since: float


@dataclass(slots=True)
class Load:
    """A load under way. `begun` once there is room for it."""

    spec: ModelSpec
    since: float
    task: asyncio.Task[Resident]
    begun: bool = False


@dataclass(slots=True)
class Memory:
    """What is in memory, by group: each has a budget of its own.

    `leases` counts the holders of each version, `using` those of them that have been given the model. `parting` is the
    version of a group whose new users stand back: it may be evicted while others merely hold it.
    """

    budgets: Mapping[str, Budget]
    residents: dict[ModelRef, Resident] = field(default_factory=dict)
    loads: dict[ModelRef, Load] = field(default_factory=dict)
    leases: dict[ModelRef, int] = field(default_factory=dict)
    using: dict[ModelRef, int] = field(default_factory=dict)
    parting: dict[str, ModelRef] = field(default_factory=dict)

    def budget(self, group: str) -> Budget:
        return self.budgets.get(group) or Budget()

    def coming(self, group: str) -> list[ModelSpec]:
        """What is being loaded into room that was made for it."""
        return [load.spec for load in self.loads.values() if load.begun and load.spec.group == group]

    def bytes(self, group: str, coming: Iterable[ModelSpec] = ()) -> int:
        """What the models in memory hold, and those coming will."""
        return sum(resident.model.memory_bytes for resident in self._of(group)) + sum(
            spec.memory_bytes for spec in coming
        )

    def crowded(self, spec: ModelSpec) -> bool:
        """Whether a model does not fit beside all that is in memory now, or on its way there."""
        most, group = self.budget(spec.group).bytes, spec.group
        return bool(most) and self.bytes(group, self.coming(group)) + spec.memory_bytes > most

    def victims(
        self, group: str, need: int, coming: Collection[ModelSpec], outgoing: Collection[ModelRef]
    ) -> list[Resident]:
        """The least recently used models that must go for one of `need` bytes, beside those `coming`; those
        `outgoing` leave of themselves, so that they don't count as models.

        Before anything is touched: NoRoom, when those that nobody holds are not enough; OutOfMemory, when all
        would not be.
        """
        budget, residents = self.budget(group), self._of(group)
        if budget.bytes and need > budget.bytes:
            raise OutOfMemory("the model is larger than the memory that models may take")
        staying = sum(resident.spec.ref not in outgoing for resident in residents)
        count = staying + len(coming) + 1 - budget.models if budget.models else 0
        size = self.bytes(group, coming) + need - budget.bytes if budget.bytes else 0
        idle = [resident for resident in residents if self._idle(resident.spec)]
        victims: list[Resident] = []
        for resident in sorted(idle, key=lambda r: r.used):
            if count <= 0 and size <= 0:
                break
            victims.append(resident)
            count -= 1
            size -= resident.model.memory_bytes
        if count > 0 or size > 0:
            raise NoRoom("every model in memory is in use", retry_after_s=1.0)
        return victims

    def evictable(self, group: str, outgoing: Collection[ModelRef]) -> list[ModelRef]:
        """What may be evicted once it comes to rest, and be loaded again when it is asked for: the oldest first."""
        found = [r for r in self._of(group) if r.spec.on_demand and not r.spec.pinned and r.spec.ref not in outgoing]
        return [resident.spec.ref for resident in sorted(found, key=lambda resident: resident.since)]

    def stands_back(self, spec: ModelSpec) -> bool:
        """Whether new users of that model have to wait."""
        return self.parting.get(spec.group) == spec.ref

    def _idle(self, spec: ModelSpec) -> bool:
        held = self.using if self.stands_back(spec) else self.leases
        return not spec.pinned and not held.get(spec.ref)

    def _of(self, group: str) -> list[Resident]:
        return [resident for resident in self.residents.values() if resident.spec.group == group]
