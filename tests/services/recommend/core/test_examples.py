"""What rankers learn from."""

from __future__ import annotations

import numpy as np
import pytest

from maru.services.recommend.core.events import TYPES
from maru.services.recommend.core.examples import Visit, gather_examples
from maru.services.recommend.core.features import FEATURE_NAMES
from maru.services.recommend.core.kernel import History, Kernel


def test_every_candidate_with_its_label(index, visits):
    examples = gather_examples(index, visits[:40], rate=1.0)
    assert examples.drawn.all() and examples.visits == 40
    for at in (0, 7, 39):
        rows = np.flatnonzero(examples.visit == at)
        codes = index.codes(visits[at].aids)
        proposed = Kernel(index).propose(History.of(codes, visits[at].ts, visits[at].types), codes)
        assert examples.place[rows].tolist() == list(range(len(proposed.codes)))
        assert (examples.features[rows] == proposed.features).all()
        aids = index.arrays.catalogue[proposed.codes]
        for kind, name in enumerate(TYPES):
            assert (examples.labels[rows, kind] == np.isin(aids, visits[at].later[name])).all()
    assert examples.labels.sum(axis=0).min() > 0
    assert examples.reached.tolist() == [(examples.place == place).sum() for place in range(100)]


def test_positives_are_all_kept_and_the_rest_by_their_rate(index, visits):
    whole = gather_examples(index, visits, rate=1.0)
    part = gather_examples(index, visits, rate=0.15, seed=4)
    assert part.labels.sum() == whole.labels.sum()
    assert part.drawn.sum() / len(whole.labels) == pytest.approx(0.15, abs=0.01)
    assert (part.drawn | part.labels.any(axis=1)).all()
    assert (part.reached == whole.reached).all()
    assert part.features.shape == (len(part.visit), len(FEATURE_NAMES))


def test_the_same_in_more_threads(index, visits):
    one, two = (gather_examples(index, visits, seed=4, threads=threads) for threads in (1, 2))
    for name in ("features", "labels", "place", "visit", "drawn", "reached"):
        assert (getattr(one, name) == getattr(two, name)).all()


def test_visits_of_which_nothing_is_known(index, visits):
    unknown = Visit(np.array([7, 8]), np.array([1, 2]), np.array([0, 0]), {"clicks": np.array([1003])})
    examples = gather_examples(index, [unknown, visits[0]], rate=1.0)
    assert set(examples.visit.tolist()) == {1} and examples.visits == 2
    nothing = gather_examples(index, [unknown])
    assert nothing.features.shape == (0, 256) and nothing.labels.shape == (0, 3) and not nothing.reached.any()
    assert gather_examples(index, []).features.shape == (0, 256)
