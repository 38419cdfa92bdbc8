"""What one scores without looking at the image: a ball where each organ usually lies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ct_attn.labels import LabelScheme
from ct_attn.volume import Grid, Mask


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UsualPlace:
    """Where and how large a structure is on average.

    ``offset_mm``: from the centre of the scan's grid to the structure's centroid, RAS.
    """

    code: int
    offset_mm: NDArray[np.float64]
    volume_mm3: float


def usual_places(masks: Iterable[Mask], scheme: LabelScheme) -> list[UsualPlace]:
    """The mean place and volume of every structure of ``scheme`` over the ``masks`` that hold it."""
    offsets: dict[int, list[NDArray[np.float64]]] = {code: [] for code in scheme.codes.values()}
    volumes: dict[int, list[float]] = {code: [] for code in scheme.codes.values()}
    for mask in masks:
        for code in scheme.codes.values():
            voxels = np.argwhere(mask.labels == code)
            if len(voxels):
                centroid_mm = mask.grid.to_mm(voxels.mean(axis=0))
                offsets[code].append(centroid_mm - mask.grid.centre_mm)
                volumes[code].append(len(voxels) * mask.grid.voxel_volume_mm3)
    return [
        UsualPlace(
            code=code, offset_mm=np.mean(offsets[code], axis=0), volume_mm3=float(np.mean(volumes[code]))
        )
        for code in offsets
        if offsets[code]
    ]


def guess_mask(grid: Grid, places: Iterable[UsualPlace]) -> Mask:
    """A ball of the usual volume at the usual place for every structure, on ``grid``."""
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for place in places:
        radius_mm = (3 * place.volume_mm3 / (4 * np.pi)) ** (1 / 3)
        box = _box(grid, grid.centre_mm + place.offset_mm, radius_mm)
        voxels = np.stack(
            np.meshgrid(*(np.arange(side.start, side.stop) for side in box), indexing="ij"), axis=-1
        )
        distance_mm = np.linalg.norm(grid.to_mm(voxels) - (grid.centre_mm + place.offset_mm), axis=-1)
        labels[box][distance_mm <= radius_mm] = place.code
    return Mask(labels=labels, grid=grid)


def _box(grid: Grid, centre_mm: NDArray[np.float64], radius_mm: float) -> tuple[slice, slice, slice]:
    """Indices of a box of ``grid`` that holds the ball."""
    centre = grid.to_voxels(centre_mm)
    reach = radius_mm * np.linalg.norm(np.linalg.inv(grid.affine)[:3, :3], axis=1)
    low = np.clip(np.floor(centre - reach), 0, grid.shape).astype(int)
    high = np.clip(np.ceil(centre + reach) + 1, low, grid.shape).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])
