"""A small drawn body whose HU follow from millimetres alone, so that every grid samples the same one."""

from __future__ import annotations

import numpy as np

from ct_attn.volume import Grid
from tests.unit.grids import grid_of, voxel_centres_mm


def hu_at(points_mm: np.ndarray) -> np.ndarray:
    """Whole HU [...] of RAS mm [..., 3]: air, a ring of fat, tissue that varies along each axis, a spine."""
    x, y, z = np.moveaxis(points_mm, -1, 0)
    radius = np.hypot(x / 55, y / 40)
    tissue = 40 + 0.6 * x + 0.9 * y + 0.4 * z
    hu = np.where(radius > 1, -1000.0, np.where(radius > 0.85, -105.0, tissue))
    spine = np.hypot(x, y + 22) < 9
    return np.rint(np.where(spine, 300 + z, hu)).astype(np.int16)


def hu_on(grid: Grid) -> np.ndarray:
    return hu_at(voxel_centres_mm(grid))


def body_grid(code="RAS", **changes) -> Grid:
    """22 x 18 x 12 voxels of 6 x 6 x 7 mm, in any axis order."""
    return grid_of(code, **({"size": (22, 18, 12), "spacing_mm": (6.0, 6.0, 7.0)} | changes))
