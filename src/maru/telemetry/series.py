"""A bounded number of time series, counted on one thread.

prometheus_client exposes them. Its own counters take a lock and a walk over all buckets at each step, which for
the twenty steps of a request is as much as a small model's answer costs; events come on the event loop alone, and a
scrape may see a request half counted, so neither is needed here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

OTHER = "other"


class Counter:
    """What only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, by: float = 1.0) -> None:
        self.value += by


class Gauge:
    """What rises and falls, or is read where it is kept."""

    __slots__ = ("_read", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._read: Callable[[], float] | None = None

    @property
    def value(self) -> float:
        return self._value if self._read is None else self._read()

    def inc(self) -> None:
        self._value += 1

    def dec(self) -> None:
        self._value -= 1

    def set(self, value: float) -> None:
        self._value = value

    def set_function(self, read: Callable[[], float]) -> None:
        """Ask `read` for the value, from the thread of a scrape."""
        self._read = read


class Histogram:
    """How many observations there were up to each of the ascending `bounds`, and their sum."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Of each bound, and of infinity, as it is written: how many were not above it."""
        rows: list[tuple[str, float]] = []
        below = 0
        for bound, count in zip((*self._bounds, float("inf")), list(self.counts), strict=True):
            below += count
            rows.append((str(floatToGoString(bound)), below))  # type: ignore[no-untyped-call]
        return rows


M = TypeVar("M", bound=Counter | Gauge | Histogram)
Children = Iterable[tuple[tuple[str, ...], M]]
Told = Callable[[Sequence[str], Children[M]], Metric]
"""Puts the children of a metric, with their label values, into what prometheus_client writes."""


class Series:
    """Makes labelled metrics in one registry, and at most `most` series over all of them.

    Each metric may have one child more, which counts what came when the budget was spent.
    """

    def __init__(self, registry: CollectorRegistry, most: int) -> None:
        self._registry = registry
        self.left = most

    def counter(self, name: str, text: str, *labels: str) -> Family[Counter]:
        def told(labels: Sequence[str], children: Children[Counter]) -> Metric:
            family = CounterMetricFamily(name, text, labels=labels)
            for values, child in children:
                family.add_metric(values, child.value)
            return family

        return self._added(Family(labels, Counter, told, self, 1))

    def gauge(self, name: str, text: str, *labels: str) -> Family[Gauge]:
        def told(labels: Sequence[str], children: Children[Gauge]) -> Metric:
            family = GaugeMetricFamily(name, text, labels=labels)
            for values, child in children:
                family.add_metric(values, child.value)
            return family

        return self._added(Family(labels, Gauge, told, self, 1))

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Family[Histogram]:
        def told(labels: Sequence[str], children: Children[Histogram]) -> Metric:
            family = HistogramMetricFamily(name, text, labels=labels)
            for values, child in children:
                family.add_metric(values, child.buckets(), child.sum)
            return family

        return self._added(Family(labels, lambda: Histogram(buckets), told, self, len(buckets) + 3))

    def _added(self, family: Family[M]) -> Family[M]:
        self._registry.register(family)
        return family


class Family(Collector, Generic[M]):
    """The children of one labelled metric, each found with one dictionary lookup.

    A child is paid for from the budget, `cost` series each; once that is spent, new label values are counted under
    one child whose labels are all "other".
    """

    def __init__(self, labels: Sequence[str], make: Callable[[], M], told: Told[M], budget: Series, cost: int) -> None:
        self._labels = labels
        self._make = make
        self._told = told
        self._budget = budget
        self._cost = cost
        self._children: dict[tuple[str, ...], M] = {}
        self._rest: M | None = None

    def child(self, *values: str) -> M:
        found = self._children.get(values)
        return self._add(values) if found is None else found

    def remove(self, *first: str) -> None:
        """Forget the children whose label values begin with `first`."""
        first = tuple(map(_clean, first))
        for values in [values for values in self._children if values[: len(first)] == first]:
            del self._children[values]
            self._budget.left += self._cost

    def collect(self) -> Iterable[Metric]:
        children = list(self._children.items())
        if self._rest is not None:
            children.append(((OTHER,) * len(self._labels), self._rest))
        yield self._told(self._labels, children)

    def _add(self, values: tuple[str, ...]) -> M:
        if len(values) != len(self._labels):
            raise ValueError(f"{len(self._labels)} label values are needed")
        if (clean := tuple(map(_clean, values))) != values:
            return self.child(*clean)
        if self._budget.left < self._cost:
            if self._rest is None:
                self._rest = self._make()
            return self._rest
        self._budget.left -= self._cost
        child = self._children[values] = self._make()
        return child


def _clean(value: str) -> str:
    """A label value that is not long, and that can be written as UTF-8."""
    return value[:128].encode("utf-8", "replace").decode()
