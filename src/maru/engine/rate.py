"""How fast a model really is, so that waiting times can be told instead of guessed."""

from __future__ import annotations


class ServiceRate:
    """Cost completed per second while requests were waiting, that is, while the model was the bottleneck.

    Both sums fade with a half-life, so that a model that slows down is soon believed. While nothing waits, and
    until something has waited for as long as an item takes, Little's law (L = λ·W, with all slots taken) on the
    measured time in the slots stands in: what was measured under pressure may be long past, and a rate that
    keeps everybody away would never be measured again.
    """

    def __init__(self, slots: int, half_life_s: float = 10.0) -> None:
        self._slots = slots
        self._half_life = half_life_s
        self._seconds = 0.0
        self._cost = 0.0
        self._held_s = 0.0
        self._held_cost = 0.0
        self._since: float | None = None

    def pressed(self, now: float, waiting: bool) -> None:
        """Note that from `now` on something is waiting, or nothing is."""
        if self._since is not None:
            elapsed = now - self._since
            fade = 0.5 ** (elapsed / self._half_life)
            self._seconds = self._seconds * fade + elapsed
            self._cost *= fade
        self._since = now if waiting else None

    def completed(self, now: float, cost: float, count: int, held_s: float) -> None:
        """Note that `count` items of that cost each left their slots after `held_s` seconds."""
        if self._since is not None:
            self.pressed(now, True)  # what is done now has not faded yet
            self._cost += cost * count
        self._held_s += 0.2 * (held_s - self._held_s) if self._held_s else held_s
        self._held_cost += 0.2 * (cost - self._held_cost) if self._held_cost else cost

    def per_second(self) -> float | None:
        """Cost per second, or None when nothing has been measured yet."""
        if self._since is not None and self._cost > 0 and self._seconds > self._held_s:
            return self._cost / self._seconds
        if self._held_s > 0:
            return self._slots * self._held_cost / self._held_s
        return None

    def seconds_for(self, cost: float) -> float | None:
        rate = self.per_second()
        return cost / rate if rate else None
