"""Co-visitation on a Ray cluster: ranges of items, each wherever there is room. Needs the extra `ray`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from maru.services.recommend.core.covisitation import Covisit, Occurrences, Pairs, Reach, partners
from maru.services.recommend.core.events import Events
from maru.services.recommend.core.features import KINDS
from maru.services.recommend.training.errors import RayUnavailable

RANGES_PER_CPU = 8
"""Small ranges, as a few popular items are most of the work."""
AHEAD = 2
"""Ranges that wait, for each that runs."""


@contextmanager
def on_ray(
    address: str | None = None,
    *,
    told: Callable[[str, float], None] | None = None,
    reach: Reach | None = None,
    folder: str | None = None,
) -> Iterator[Covisit]:
    """Co-visitation on the cluster at `address`, or on one that is started on this machine and ended with the block.

    The answer is the same, bit for bit, as that of `covisitation.in_threads`: an item's partners are added up by one
    task in the order of the events, wherever it runs. The events are put into the cluster once, and each node reads
    them from its shared memory. Every node needs this version of Maru installed. `folder`, there on every node, keeps
    the machine code; by default it is compiled anew by each worker.

    RayUnavailable when Ray is not installed, or there is no cluster at the address.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise RayUnavailable('Ray is not installed: pip install "maru[ray]"') from None
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address or "local", log_to_driver=False)
        except ConnectionError:
            raise RayUnavailable("there is no Ray cluster at that address") from None
    try:
        yield _Cluster(ray, told, reach, folder).covisit
    finally:
        if ours:
            ray.shutdown()


class _Cluster:
    """Runs ranges of items on the nodes of an initialised Ray."""

    def __init__(
        self, ray: Any, told: Callable[[str, float], None] | None, reach: Reach | None, folder: str | None
    ) -> None:
        self._ray = ray
        self._told = told
        self._reach = reach
        settings = {"env_vars": {"NUMBA_CACHE_DIR": folder}} if folder else {}
        self._task = ray.remote(num_cpus=1, max_retries=3, runtime_env=settings)(_range)
        self._put: tuple[Occurrences, Any] | None = None

    def covisit(self, occurrences: Occurrences, kind: int, keep: int) -> Pairs:
        """See `covisitation.Covisit`."""
        items = len(occurrences.events.catalogue)
        ids, weights = np.empty((items, keep), np.int32), np.empty((items, keep), np.float32)
        cpus = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        step = max(64, items // (cpus * RANGES_PER_CPU) + 1)
        starts = iter(range(0, items, step))
        events = self._shared(occurrences)
        running: dict[Any, tuple[int, int]] = {}
        done = 0
        while True:
            while len(running) < cpus * AHEAD and (start := next(starts, None)) is not None:
                stop = min(start + step, items)
                running[self._task.remote(events, kind, start, stop, keep, self._reach)] = (start, stop)
            if not running:
                return ids, weights
            (ready,), _ = self._ray.wait(list(running), num_returns=1)
            start, stop = running.pop(ready)
            ids[start:stop], weights[start:stop] = self._ray.get(ready)
            done += stop - start
            if self._told is not None:
                self._told(f"co-visitation, {KINDS[kind]}", done / items)

    def _shared(self, occurrences: Occurrences) -> Any:
        """The events in the cluster's shared memory; the four kinds share them."""
        if self._put is None or self._put[0] is not occurrences:
            e = occurrences.events
            columns = (
                *(e.session, e.aid, e.ts, e.type, e.catalogue),
                *(occurrences.starts, occurrences.session, occurrences.rows, occurrences.item_starts),
            )
            self._put = (occurrences, self._ray.put(columns))
        return self._put[1]


def _range(columns: tuple[Any, ...], kind: int, start: int, stop: int, keep: int, reach: Reach | None) -> Pairs:
    """One task: the partners of a range of items, from columns in shared memory."""
    session, aid, ts, type, catalogue, starts, of_session, rows, item_starts = columns
    events = Events(session, aid, ts, type, catalogue)
    return partners(Occurrences(events, starts, of_session, rows, item_starts), kind, start, stop, keep, reach)
