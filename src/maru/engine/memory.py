"""What is in memory, what is on its way there, and what must leave for it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from maru.engine.batcher import Batcher
from maru.engine.errors import NoRoom
from maru.engine.model import Model, ModelSpec
from maru.engine.types import ModelRef


@dataclass(slots=True, eq=False)
class Resident:
    """A model in memory, warm, with its batcher. `used` is when it was last asked for."""

    spec: ModelSpec
    model: Model
    batcher: Batcher
    used: float


@dataclass(slots=True)
class Load:
    """A load under way. `begun` once there is room for it."""

    spec: ModelSpec
    since: float
    task: asyncio.Task[Resident]
    begun: bool = False


@dataclass(slots=True)
class Memory:
    """Room for `max_models` and `max_bytes` (0: no bound). `leases` counts the holders of each version."""

    max_models: int
    max_bytes: int
    residents: dict[ModelRef, Resident] = field(default_factory=dict)
    loads: dict[ModelRef, Load] = field(default_factory=dict)
    leases: dict[ModelRef, int] = field(default_factory=dict)

    def coming(self) -> list[ModelSpec]:
        """What is being loaded into room that was made for it."""
        return [load.spec for load in self.loads.values() if load.begun]

    def bytes(self, coming: Iterable[ModelSpec] = ()) -> int:
        """What the models in memory hold, and those coming will."""
        return sum(resident.model.memory_bytes for resident in self.residents.values()) + sum(
            spec.memory_bytes for spec in coming
        )

    def crowded(self, need: int) -> bool:
        """Whether a model of that size does not fit beside all that is in memory now, or on its way there."""
        return bool(self.max_bytes) and self.bytes(self.coming()) + need > self.max_bytes

    def victims(self, need: int, coming: Collection[ModelSpec], outgoing: Collection[ModelRef]) -> list[Resident]:
        """The least recently used models that must go for one of `need` bytes, beside those `coming`; those
        `outgoing` leave of themselves, so that they don't count as models.

        NoRoom, before anything is touched, when those that nobody holds are not enough.
        """
        if self.max_bytes and need > self.max_bytes:
            raise NoRoom("the model is larger than the memory that models may take", retry_after_s=60.0)
        staying = len(self.residents.keys() - outgoing)
        count = staying + len(coming) + 1 - self.max_models if self.max_models else 0
        size = self.bytes(coming) + need - self.max_bytes if self.max_bytes else 0
        idle = [r for r in self.residents.values() if not r.spec.pinned and not self.leases.get(r.spec.ref)]
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
