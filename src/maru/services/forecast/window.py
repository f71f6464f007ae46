"""What a forecast is made from."""

from __future__ import annotations

from typing import Any

import numpy as np

Window = np.ndarray[Any, np.dtype[np.float32]]
"""`[T, F]`: T steps of F features, the oldest first."""
