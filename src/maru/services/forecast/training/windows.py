"""Windows on the bars, and which of them train, choose and measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from maru.services.forecast.training.data import Candles
from maru.services.forecast.training.errors import TooFewCandles
from maru.services.forecast.training.features import FeatureSet

Singles = npt.NDArray[np.float32]

FOLD_STARTS = (4, 5, 6, 7, 8)
"""Where the tests begin, in tenths of all windows; the last is the holdout."""
LEAST = 300


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows in the order of time. All figures are float32, as a served model is given them.

    `inputs` [n, seq_len, features]; `last` the close of each window's last bar, `time` when that bar opened
    (Unix seconds); `next` the close of the bar after, which is to be forecast.
    """

    inputs: Singles
    last: Singles
    next: Singles
    time: npt.NDArray[np.int64]

    @classmethod
    def cut(cls, candles: Candles, features: FeatureSet, seq_len: int) -> Windows:
        """Every window that lies within one run of bars, behind its warm-up, with a bar after it.

        TooFewCandles when they are too few to train and measure.
        """
        parts = [part for run in candles.runs() if (part := _within(run, features, seq_len))]
        count = sum(len(part) for part in parts)
        if count < LEAST:
            raise TooFewCandles(
                f"the candles give {count} windows of {seq_len} bars without a gap, {features.warmup} bars behind "
                f"the start or a gap; at least {LEAST} are needed"
            )
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, part: slice) -> Windows:
        return Windows(self.inputs[part], self.last[part], self.next[part], self.time[part])

    @property
    def returns(self) -> npt.NDArray[np.float64]:
        """Logarithm of the next close over the last."""
        return np.log(self.next.astype(np.float64) / self.last)


def _within(run: Candles, features: FeatureSet, seq_len: int) -> Windows | None:
    if len(run) <= features.warmup + seq_len:
        return None
    table = features.compute(run)[features.warmup :].astype(np.float32)
    close = run.close[features.warmup :].astype(np.float32)
    inputs = sliding_window_view(table, seq_len, axis=0)[:-1].transpose(0, 2, 1)
    time = run.time[features.warmup :]
    return Windows(inputs, close[seq_len - 1 : -1], close[seq_len:], time[seq_len - 1 : -1])


@dataclass(frozen=True, slots=True)
class Fold:
    """Three stretches of windows, one after the other: to train on, to stop the training by, to measure on.

    A window's forecast is one bar ahead, so no stretch holds a close that is to be forecast in another.
    """

    train: slice
    validation: slice
    test: slice


def walk_forward(windows: int) -> Iterator[Fold]:
    """Folds whose training stretch grows, their tests one behind the other; the last test is the holdout, the
    newest fifth, the others are a tenth each. The 15% of all windows before a test are the validation."""
    for tenths in FOLD_STARTS:
        start = windows * tenths // 10
        chosen = start - windows * 15 // 100
        stop = windows if tenths == FOLD_STARTS[-1] else windows * (tenths + 1) // 10
        yield Fold(slice(0, chosen), slice(chosen, start), slice(start, stop))
