"""What can be measured of each organ in a mask: volume, HU, extent, place, and whether it is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ct_attn.labels import KIDNEYS, LabelScheme
from ct_attn.prediction.sides import tell_apart
from ct_attn.strict_model import FrozenModel
from ct_attn.volume import Grid, Mask, Volume, bounding_box

#: No tissue and no air: what a scanner or a converter puts beyond the reconstructed circle.
PADDING_HU = -1500

#: The direction of the patient in which each letter of an orientation points away.
_OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "I": "S", "S": "I"}

PADDING = "padding"


class OrganStatistics(FrozenModel):
    """One organ of one scan.

    ``mean_hu`` and ``std_hu`` (over voxels, population), ``extent_mm`` (along the scan's
    axes closest to R, A and S) and ``centroid_mm`` (RAS) are None where the organ is not
    found. ``cut``: faces of the field of view that the organ touches (letters of L, R, A, P,
    I, S), or ``padding`` where it reaches what was never reconstructed; its volume is then
    too small. ``doubts`` of left and right: see :class:`~ct_attn.prediction.sides.Sides`.
    """

    organ: str
    voxels: int
    volume_ml: float
    mean_hu: float | None = None
    std_hu: float | None = None
    extent_mm: tuple[float, float, float] | None = None
    centroid_mm: tuple[float, float, float] | None = None
    cut: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    confidence: float | None = None


def organ_statistics(
    volume: Volume, mask: Mask, scheme: LabelScheme, confidence: Mapping[str, float | None]
) -> tuple[OrganStatistics, ...]:
    """The statistics of every structure of ``scheme`` in ``mask``, which lies on the grid of ``volume``.

    A structure that is both kidneys is followed by each of them.
    """
    found = []
    for structure in scheme.structures:
        organ = mask.labels == structure.code
        sure = confidence.get(structure.name)
        found.append(measure(organ, volume, structure.name, confidence=sure))
        if set(structure.organs) == set(KIDNEYS):
            sides = tell_apart(organ, volume)
            found += [
                measure(side, volume, name, doubts=sides.doubts, confidence=sure)
                for name, side in sides.masks.items()
            ]
    return tuple(found)


def measure(
    organ: NDArray[np.bool_],
    volume: Volume,
    name: str,
    *,
    doubts: Sequence[str] = (),
    confidence: float | None = None,
) -> OrganStatistics:
    """The statistics of ``organ`` [I, J, K], True on voxels of ``volume``."""
    box = bounding_box(organ)
    if box is None:
        return OrganStatistics(
            organ=name, voxels=0, volume_ml=0.0, doubts=tuple(doubts), confidence=confidence
        )
    grid, inside = volume.grid, organ[box]
    hu = volume.hu[box][inside].astype(np.float64)
    voxels = np.argwhere(inside) + [side.start for side in box]
    x, y, z = grid.to_mm(voxels.mean(axis=0)).tolist()
    return OrganStatistics(
        organ=name,
        voxels=int(hu.size),
        volume_ml=hu.size * grid.voxel_volume_mm3 / 1000,
        mean_hu=float(hu.mean()),
        std_hu=float(hu.std()),
        extent_mm=_extent_mm(box, grid),
        centroid_mm=(x, y, z),
        cut=(*_faces_touched(box, grid), *_touches_padding(organ, volume, box)),
        doubts=tuple(doubts),
        confidence=confidence,
    )


def _extent_mm(box: tuple[slice, slice, slice], grid: Grid) -> tuple[float, float, float]:
    order = [next(axis for axis in range(3) if grid.orientation[axis] in pair) for pair in ("LR", "PA", "IS")]
    r, a, s = ((box[axis].stop - box[axis].start) * grid.spacing_mm[axis] for axis in order)
    return r, a, s


def _faces_touched(box: tuple[slice, slice, slice], grid: Grid) -> tuple[str, ...]:
    """Directions of the patient in which the organ reaches the last voxels of the scan."""
    faces = []
    for side, size, letter in zip(box, grid.shape, grid.orientation, strict=True):
        faces += [_OPPOSITE[letter]] if side.start == 0 else []
        faces += [letter] if side.stop == size else []
    return tuple(sorted(faces))


def _touches_padding(
    organ: NDArray[np.bool_], volume: Volume, box: tuple[slice, slice, slice]
) -> tuple[str, ...]:
    wider = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
    padding = volume.hu[wider] <= PADDING_HU
    if not padding.any():
        return ()
    near = ndimage.binary_dilation(organ[wider], structure=np.ones((3, 3, 3), dtype=bool))
    return (PADDING,) if bool((near & padding).any()) else ()
