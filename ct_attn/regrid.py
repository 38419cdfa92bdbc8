"""A mask brought onto another grid, for comparing masks that were drawn on different ones."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ct_attn.volume import Grid, Mask

#: A place this close (in voxels) to the middle between two voxels counts as in the middle, so that
#: the rounding of matrices doesn't decide which voxel is taken.
_ROUNDING_VOXELS = 1e-6


def nearest_on(mask: Mask, grid: Grid, beyond: Literal["background", "border"] = "background") -> Mask:
    """``mask`` on ``grid``: every voxel takes the code of the voxel of ``mask`` it lies in.

    Nearest neighbour, so no code appears that wasn't there; in the middle between two
    voxels the upper one is taken. Outside of ``mask`` there is background, or what its
    border has. Grids may be turned, oblique or sheared against each other.
    """
    to_source = np.linalg.inv(mask.grid.affine) @ grid.affine
    labels = np.zeros(grid.shape, dtype=np.uint8)
    i, j = np.meshgrid(np.arange(grid.shape[0]), np.arange(grid.shape[1]), indexing="ij", sparse=True)
    for k in range(grid.shape[2]):  # slab by slab: coordinates take 30 times the room of labels
        places = [_round(a * i + b * j + (c * k + d)) for a, b, c, d in to_source[:3]]
        if beyond == "border":
            sizes = mask.grid.shape
            places = [np.clip(place, 0, size - 1) for place, size in zip(places, sizes, strict=True)]
        inside = np.logical_and.reduce(
            [(place >= 0) & (place < size) for place, size in zip(places, mask.grid.shape, strict=True)]
        )
        labels[:, :, k][inside] = mask.labels[tuple(place[inside] for place in places)]
    return Mask(labels=labels, grid=grid)


def share_inside(mask: Mask, grid: Grid) -> float:
    """The share of the voxels with a code in ``mask`` that lie in a voxel of ``grid``.

    1 where there are none. What lies outside is lost when ``mask`` is brought onto ``grid``.
    """
    to_grid = np.linalg.inv(grid.affine) @ mask.grid.affine
    n_inside, n_all = 0, 0
    for k in range(mask.grid.shape[2]):  # slab by slab, as in nearest_on
        i, j = np.nonzero(mask.labels[:, :, k])
        places = np.stack([_round(a * i + b * j + (c * k + d)) for a, b, c, d in to_grid[:3]])
        inside = ((places >= 0) & (places < np.array(grid.shape)[:, None])).all(axis=0)
        n_inside, n_all = n_inside + int(inside.sum()), n_all + inside.size
    return n_inside / n_all if n_all else 1.0


def _round(places: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.floor(places + (0.5 + _ROUNDING_VOXELS)).astype(np.intp)
