"""What rankers learn from: the candidates of past visits, and which of them were clicked, carted, ordered later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maru.services.recommend.core.events import TYPES, Floats, Int8s, Int64s
from maru.services.recommend.core.features import CANDIDATES, FEATURE_NAMES
from maru.services.recommend.core.index import Index, Progress
from maru.services.recommend.core.kernel import History, Kernel

Flags = NDArray[np.bool_]

_CHUNK = 256
"""Visits that are computed in one go; each chunk draws its own random numbers, whichever thread computes it."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A session cut in two. `aids`, `ts`, `types` are what was seen of it (item ids, seconds, places in `TYPES`);
    `later`, by the names of `TYPES`, the item ids that followed and were not in what was seen."""

    aids: Int64s
    ts: Int64s
    types: Int8s
    later: Mapping[str, Int64s]


@dataclass(frozen=True, slots=True)
class Examples:
    """Candidates of visits, one a row, in the order of the visits and of the fused order within one.

    `features` float32 [n, 256], `labels` bool [n, 3] by `TYPES`, `place` int16 [n] in the fused order, `visit`
    int32 [n]. Every positive is there; of all candidates each was drawn with probability `rate`, and `drawn` bool [n]
    says which rows the draw took, positive or not. `reached` int64 [100]: how many visits have a candidate at each
    place. `visits` is how many there were, those without a row among them.
    """

    features: Floats
    labels: Flags
    place: NDArray[np.int16]
    visit: NDArray[np.int32]
    drawn: Flags
    rate: float
    reached: Int64s
    visits: int


def gather_examples(
    index: Index,
    visits: Sequence[Visit],
    *,
    rate: float = 0.15,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> Examples:
    """Examples from visits that the index has not seen: none of their events may be among its own.

    Visits in the order of time, as the last ones decide when the training stops. A visit of whose items the index
    knows none has no candidates. The same whatever `threads` is. It needs about 15 kB a visit at the
    usual rate, and twice that while the parts are put together.
    """
    parts: list[Examples] = []
    with ThreadPoolExecutor(threads) as pool:
        work = pool.map(lambda start: _chunk(index, visits, start, rate, seed), range(0, len(visits), _CHUNK))
        for done, part in enumerate(work, 1):
            parts.append(part)
            if progress is not None:
                progress("examples", min(1.0, done * _CHUNK / len(visits)))
    return _joined(parts, rate, len(visits))


def _chunk(index: Index, visits: Sequence[Visit], start: int, rate: float, seed: int) -> Examples:
    kernel, random = Kernel(index), np.random.default_rng((seed, start))
    parts = [
        part
        for at in range(start, min(start + _CHUNK, len(visits)))
        for part in _rows(index, kernel, visits[at], at, rate, random)
    ]
    return _joined(parts, rate, 0)


def _rows(
    index: Index, kernel: Kernel, visit: Visit, at: int, rate: float, random: np.random.Generator
) -> Iterator[Examples]:
    codes = index.codes(visit.aids)
    history = History.of(codes, visit.ts, visit.types)
    if not len(history):
        return
    proposed = kernel.propose(history, codes[codes >= 0])
    later = [index.codes(visit.later.get(name, ())) for name in TYPES]
    labels = np.stack([np.isin(proposed.codes, wanted) for wanted in later], axis=1)
    drawn = random.random(len(labels)) < rate
    kept = np.flatnonzero(drawn | labels.any(axis=1))
    yield Examples(
        proposed.features[kept],
        labels[kept],
        kept.astype(np.int16),
        np.full(len(kept), at, np.int32),
        drawn[kept],
        rate,
        (np.arange(CANDIDATES) < len(labels)).astype(np.int64),
        1,
    )


def _joined(parts: Sequence[Examples], rate: float, visits: int) -> Examples:
    return Examples(
        np.concatenate([part.features for part in parts] or [np.zeros((0, len(FEATURE_NAMES)), np.float32)]),
        np.concatenate([part.labels for part in parts] or [np.zeros((0, len(TYPES)), bool)]),
        np.concatenate([part.place for part in parts] or [np.zeros(0, np.int16)]),
        np.concatenate([part.visit for part in parts] or [np.zeros(0, np.int32)]),
        np.concatenate([part.drawn for part in parts] or [np.zeros(0, bool)]),
        rate,
        np.sum([part.reached for part in parts] or [np.zeros(CANDIDATES, np.int64)], axis=0),
        visits,
    )
