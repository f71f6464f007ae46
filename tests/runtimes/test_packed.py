from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maru.runtimes.onnx.packed import FILLED_RUN, FULL_RUN, POOLINGS, SPREAD, Pooling, pack, runs

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=80)


@given(LENGTHS)
def test_runs_hold_every_sequence_once_and_are_never_too_large(lengths: list[int]) -> None:
    groups = runs(lengths)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[place] for place in group) <= FULL_RUN


@given(LENGTHS)
def test_a_run_that_is_full_enough_pads_little(lengths: list[int]) -> None:
    for group in runs(lengths):
        *before, last = (lengths[place] for place in group)
        if sum(before) >= FILLED_RUN:
            assert before[0] <= SPREAD * last


def test_texts_of_one_kind_share_runs() -> None:
    assert len(runs([8] * 64)) == 1
    assert len(runs([256] * 4)) == 2
    assert len(runs([250, 6])) == 2 and len(runs([100, 6])) == 1


def pooled(sequences: list[list[int]], skip: list[int], pooling: Pooling) -> list[list[float]]:
    weights = pack(sequences, skip, pooling)["pool"]
    starts = np.cumsum([0, *map(len, sequences)])
    assert all(not row[: starts[i]].any() and not row[starts[i + 1] :].any() for i, row in enumerate(weights))
    return [row[starts[i] : starts[i + 1]].round(6).tolist() for i, row in enumerate(weights)]


def test_pooling_weights() -> None:
    sequences, skip = [[5, 6, 7, 8], [9]], [2, 0]
    assert pooled(sequences, skip, "mean") == [[0, 0, 0.5, 0.5], [1]]
    assert pooled(sequences, skip, "cls") == [[0, 0, 1, 0], [1]]
    assert pooled(sequences, skip, "lasttoken") == [[0, 0, 0, 1], [1]]
    assert pooled(sequences, [0, 0], "weightedmean")[0] == np.float32([0.1, 0.2, 0.3, 0.4]).round(6).tolist()
    root = float(np.float32(2**-0.5).round(6))
    assert pooled(sequences, skip, "mean_sqrt_len_tokens") == [[0, 0, root, root], [1]]
    assert len(POOLINGS) == 5


def test_rows_find_their_way_there_and_back() -> None:
    sequences = [[1, 2, 3], [4], [5, 6]]
    inputs = pack(sequences, [0, 0, 0], "mean")
    rows = inputs["ids"]
    padded = rows[inputs["side_by_side"]]
    assert [row[:length].tolist() for row, length in zip(padded, inputs["lengths"], strict=True)] == sequences
    assert padded.reshape(-1)[inputs["in_a_row"]].tolist() == rows.tolist()
    assert inputs["positions"].tolist() == [0, 1, 2, 0, 0, 1]
