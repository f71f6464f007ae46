"""The heaviest few, beside a sort of everything."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from maru.services.recommend.core.selection import strongest


@settings(max_examples=200, deadline=None)
@given(weights=st.lists(st.integers(0, 6), min_size=1, max_size=60), keep=st.integers(1, 70), seed=st.integers(0, 99))
def test_like_a_sort(weights, keep, seed):
    weight = np.array(weights, np.float32)
    ids = np.random.default_rng(seed).permutation(len(weights)).astype(np.int32)
    out = np.full(keep, -9, np.int32)
    count = strongest(weight, ids, len(ids), keep, out)
    wanted = np.lexsort((np.arange(len(weights)), -weight))[:keep]
    assert count == len(wanted)
    assert out[:count].tolist() == wanted.tolist()
    assert (out[count:] == -9).all()


def test_of_nothing():
    assert strongest(np.zeros(3, np.float32), np.zeros(0, np.int32), 0, 5, np.zeros(5, np.int32)) == 0
