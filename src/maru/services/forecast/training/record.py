"""What is written down of a training: for callers, for those who compare models, and to make it again."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from maru.services.forecast.training.data import Candles
from maru.services.forecast.training.scaling import Scaling
from maru.services.forecast.training.windows import Fold, Windows

UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


def metadata(candles: Candles, windows: Windows, fold: Fold, scaling: Scaling, shrinkage: float) -> dict[str, Any]:
    """JSON values. `features` are in the order in which the model takes them, of bars `interval` long;
    `close_index` is the place of the close among them; `warmup` is how many bars before a window its features
    need to be as they were in training."""
    features = scaling.features
    shown = hashlib.sha256("\n".join(features.names).encode())
    shown.update(windows.inputs.astype("<f4").tobytes())
    stretches = {"train": fold.train, "validation": fold.validation, "holdout": fold.test}
    return {
        "feature_set": features.name,
        "features": list(features.names),
        "seq_len": windows.inputs.shape[1],
        "n_features": len(features.names),
        "close_index": features.close_index,
        "interval": _interval(candles.interval_s),
        "warmup": features.warmup,
        "target": "the close of the bar after the window",
        "data_sha256": candles.sha256,
        "features_sha256": shown.hexdigest(),
        "data": {"candles": len(candles), "runs": len(candles.runs()), **_span(candles.time)},
        "split": {
            name: {"windows": part.stop - part.start, **_span(windows.time[part])} for name, part in stretches.items()
        },
        "scaling": {
            "prices": "logarithm relative to the window's last close",
            "volumes": "logarithm of 1 + volume, relative to its mean in the window",
            "mean": scaling.mean.tolist(),
            "spread": scaling.spread.tolist(),
            "target_spread": scaling.target_spread,
            "bound": scaling.bound,
            "shrinkage": shrinkage,
        },
    }


def moment(seconds: int) -> datetime:
    """Of Unix time."""
    return datetime.fromtimestamp(int(seconds), UTC)


def _span(times: Any) -> dict[str, str]:
    return {"from": moment(times[0]).isoformat(), "to": moment(times[-1]).isoformat()}


def _interval(seconds: int) -> str:
    unit = next(unit for unit, length in UNITS.items() if seconds % length == 0)
    return f"{seconds // UNITS[unit]}{unit}"
