"""Distances between the contours that two structures have on each axial slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from ct_attn.metrics.overlap import require_pair

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContourDistances:
    """Means over the ``n_slices`` on which both structures have a contour.

    ``s2s_mm`` is the mean of both directed averages, ``hd_mm`` the Hausdorff distance.
    """

    s2s_mm: float
    hd_mm: float
    n_slices: int


def contour_distances(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], steps_mm: Floats, *, slice_axis: int = 2
) -> ContourDistances | None:
    """The distances of the contours of two bool arrays [I, J, K]; None without a slice in common.

    ``distance_metric`` in ``utils/metrics.py`` of ``ozan-oktay/Attention-Gated-Networks``
    measures so: slice by slice across ``slice_axis``, in the slice's plane only; slices on
    which just one structure shows are left out, as are contours of holes. The spacing is
    the true one along both axes (there: one number). A pixel that OpenCV's tracing passes
    twice, where a structure is one pixel thin, counts once. ``steps_mm`` [3, 3] holds the
    step to the next voxel along each axis as columns. Raises ``ValueError`` when the
    masks are not bool [I, J, K] of one shape.
    """
    require_pair(truth, predicted)
    if truth.ndim != 3:
        raise ValueError(f"expected masks [I, J, K], got {truth.shape}")
    in_plane_mm = np.delete(steps_mm, slice_axis, axis=1)
    averages_mm, greatest_mm = [], []
    for slices in zip(*(np.moveaxis(mask, slice_axis, 0) for mask in (truth, predicted)), strict=True):
        if not all(plane.any() for plane in slices):
            continue
        one, other = (np.argwhere(_outer_contour(plane)) @ in_plane_mm.T for plane in slices)
        there, back = cKDTree(other).query(one)[0], cKDTree(one).query(other)[0]
        averages_mm.append((there.mean() + back.mean()) / 2)
        greatest_mm.append(max(there.max(), back.max()))
    if not averages_mm:
        return None
    return ContourDistances(
        s2s_mm=float(np.mean(averages_mm)), hd_mm=float(np.mean(greatest_mm)), n_slices=len(averages_mm)
    )


def _outer_contour(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of ``plane`` [I, J] with a side on the background around it (not in a hole)."""
    padded = np.pad(plane, 1)
    filled = ndimage.binary_fill_holes(padded)
    return np.asarray((filled & ~ndimage.binary_erosion(filled))[1:-1, 1:-1])
