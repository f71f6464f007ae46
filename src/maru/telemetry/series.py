"""A bounded number of time series."""

from __future__ import annotations

from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

M = TypeVar("M", bound=MetricWrapperBase)

OTHER = "other"


class Series:
    """Makes labelled metrics in one registry, and at most `most` series over all of them.

    Each metric may have one child more, which counts what came when the budget was spent.
    """

    def __init__(self, registry: CollectorRegistry, most: int) -> None:
        self._registry = registry
        self.left = most

    def counter(self, name: str, text: str, *labels: str) -> Family[Counter]:
        return Family(Counter(name, text, labels, registry=self._registry), self, 1)

    def gauge(self, name: str, text: str, *labels: str) -> Family[Gauge]:
        return Family(Gauge(name, text, labels, registry=self._registry), self, 1)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Family[Histogram]:
        metric = Histogram(name, text, labels, buckets=buckets, registry=self._registry)
        return Family(metric, self, len(buckets) + 3)


class Family(Generic[M]):
    """The children of one labelled metric, each found with one dictionary lookup.

    prometheus_client's own `labels()` costs five times as much as counting does, and makes a series of
    whatever it is given. Here a child is paid for from the budget, `cost` series each; once that is spent,
    new label values are counted under one child whose labels are all "other".
    """

    def __init__(self, metric: M, budget: Series, cost: int) -> None:
        self._metric = metric
        self._budget = budget
        self._cost = cost
        self._children: dict[tuple[str, ...], M] = {}

    def child(self, *values: str) -> M:
        found = self._children.get(values)
        return self._add(values) if found is None else found

    def remove(self, *first: str) -> None:
        """Forget the children whose label values begin with `first`."""
        for values in [values for values in self._children if values[: len(first)] == first]:
            del self._children[values]
            self._metric.remove(*map(_clean, values))
            self._budget.left += self._cost

    def _add(self, values: tuple[str, ...]) -> M:
        if self._budget.left < self._cost:
            return self._metric.labels(*(OTHER for _ in values))
        self._budget.left -= self._cost
        child = self._children[values] = self._metric.labels(*map(_clean, values))
        return child


def _clean(value: str) -> str:
    """A label value that is not long, and that can be written as UTF-8."""
    return value[:128].encode("utf-8", "replace").decode()
