"""Linear interpolation along one axis after the other, as small matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def is_separable(mapping: NDArray[np.float64]) -> bool:
    """Whether each axis that the 4x4 ``mapping`` leads to depends on one axis only."""
    scale = np.abs(mapping[:3, :3])
    return bool((np.sort(scale, axis=1)[:, :2] < 1e-6 * scale.max()).all())


def interpolation_weights(positions: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """Weights [len(positions), size] of samples 0 to ``size`` - 1: linear between, held at both ends."""
    held = np.clip(positions, 0, size - 1)
    lower = held.astype(np.int64)
    upper = np.minimum(lower + 1, size - 1)
    weights = np.zeros((len(positions), size), dtype=np.float32)
    rows = np.arange(len(positions))
    weights[rows, lower] += 1 - (held - lower)
    weights[rows, upper] += held - lower
    return weights
