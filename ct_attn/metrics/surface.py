"""Distances between the surfaces of two structures.

The convention of this project is ``area``: Nikolov et al. 2021 (J Med Internet Res
23(7):e26151, section "Surface DSC") and their ``google-deepmind/surface-distance``
define that every 2x2x2 neighbourhood of voxel centres whose corners are neither all
inside nor all outside holds one surface element. It lies at the middle of the
neighbourhood; its area is that of the marching-cubes triangles in there. Counting
elements instead would depend on how voxels lie to the surface, and on the spacing.

The elements of a surface that doesn't follow the voxels form a layer about one
voxel thick, and the closest of them counts: surfaces apart come out up to about
half a voxel closer than they are.

Published numbers often follow other conventions; ``voxel`` is here, the contours of
slices are in :mod:`ct_attn.metrics.contour`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ct_attn import volume
from ct_attn.metrics.areas import WHOLE, area_table_mm2, neighbour_codes, step_vectors_mm
from ct_attn.metrics.nearest import nearest_distances_mm
from ct_attn.metrics.overlap import require_pair
from ct_attn.volume import Spacing3

Floats = NDArray[np.float64]

#: Distances closer than this to a tolerance count as equal to it. Spacings come from
#: matrices: on an oblique 1 mm grid they are 1.0000000002 as often as 1, and without
#: slack every element at exactly 2 mm would change sides with that rounding.
ROUNDING_MM = 1e-6

#: The same for shares of an area, which are sums of thousands of floats.
ROUNDING_SHARE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SurfaceDistances:
    """For every piece of a surface: the distance to the other surface, and its weight.

    All arrays are float64, [N] for the N pieces of the truth's surface and [M] for
    the M of the predicted surface, in the order of the voxels. A weight is an
    element's area in mm2, or 1 for a boundary voxel.
    """

    truth_to_predicted_mm: Floats
    truth_weights: Floats
    predicted_to_truth_mm: Floats
    predicted_weights: Floats


def surface_distances(
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    spacing_mm: Spacing3,
    *,
    directions: Floats | None = None,
) -> SurfaceDistances:
    """The distances between the surface elements of two bool arrays [I, J, K], weighted by area.

    ``directions`` are the unit vectors (columns) along the three axes, as in
    ``Grid.directions``, and matter only where the axes are not at right angles
    (a tilted gantry). What lies beyond the array is background, so a structure that
    touches the edge is closed there. Raises ``ValueError`` when a mask is empty
    (it has no surface), when the masks are not bool [I, J, K] of one shape, or when
    the spacing is not three numbers above 0.
    """
    steps_mm = step_vectors_mm(spacing_mm, directions)
    areas_mm2 = area_table_mm2(steps_mm)
    box = _joint_box(truth, predicted)
    codes = [neighbour_codes(mask[box]) for mask in (truth, predicted)]
    surfaces = [(code != 0) & (code != WHOLE) for code in codes]
    weights = [areas_mm2[code[surface]] for code, surface in zip(codes, surfaces, strict=True)]
    return _between(surfaces[0], surfaces[1], weights[0], weights[1], steps_mm)


def voxel_surface_distances(
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    spacing_mm: Spacing3,
    *,
    directions: Floats | None = None,
) -> SurfaceDistances:
    """The distances between the boundary voxels of two bool arrays, every voxel counted once.

    A boundary voxel is inside and has a face in common with one outside; it stands for
    its centre. So MONAI (without subvoxels), MedPy and scikit-image count. Thin slices
    and slanted surfaces get more voxels for the same area. Arguments and errors are those
    of :func:`surface_distances`.
    """
    steps_mm = step_vectors_mm(spacing_mm, directions)
    box = _joint_box(truth, predicted)
    surfaces = [mask[box] & ~ndimage.binary_erosion(mask[box]) for mask in (truth, predicted)]
    weights = [np.ones(int(np.count_nonzero(surface))) for surface in surfaces]
    return _between(surfaces[0], surfaces[1], weights[0], weights[1], steps_mm)


def average_symmetric_surface_distance_mm(d: SurfaceDistances) -> float:
    """The mean distance over both surfaces together, every piece weighted.

    Heimann et al. 2009 (IEEE Trans Med Imaging 28:1251), their ASD, with areas in
    place of voxel counts. Not the mean of the two directed averages, which gives
    the smaller surface more weight than its area.
    """
    distances_mm = np.concatenate([d.truth_to_predicted_mm, d.predicted_to_truth_mm])
    weights = np.concatenate([d.truth_weights, d.predicted_weights])
    return float(np.average(distances_mm, weights=weights))


def mean_of_directed_averages_mm(d: SurfaceDistances) -> float:
    """The mean of the average from the truth to the prediction and the one back.

    MedPy's ``assd``, and what is often meant by "symmetric": both surfaces count the
    same, however large they are.
    """
    there = np.average(d.truth_to_predicted_mm, weights=d.truth_weights)
    back = np.average(d.predicted_to_truth_mm, weights=d.predicted_weights)
    return float((there + back) / 2)


def hausdorff_mm(d: SurfaceDistances, percentile: float = 95) -> float:
    """The greater of both directed Hausdorff distances, made robust by a percentile.

    A directed one is the smallest distance within which at least ``percentile`` %
    of the surface's area lies (``compute_robust_hausdorff`` of surface-distance);
    100 gives the Hausdorff distance itself (Huttenlocher et al. 1993, IEEE TPAMI
    15:850). Raises ``ValueError`` when the percentile is not above 0 and up to 100.
    """
    _require_percentile(percentile)
    return max(
        _percentile_mm(d.truth_to_predicted_mm, d.truth_weights, percentile),
        _percentile_mm(d.predicted_to_truth_mm, d.predicted_weights, percentile),
    )


def interpolated_hausdorff_mm(d: SurfaceDistances, percentile: float = 95) -> float:
    """As :func:`hausdorff_mm` for pieces that all count 1: between two ranks it interpolates.

    MONAI's ``compute_hausdorff_distance``. MedPy's ``hd95`` is another number: it takes
    the percentile of both directions pooled. Raises ``ValueError`` as its sister does.
    """
    _require_percentile(percentile)
    return float(
        max(np.percentile(one, percentile) for one in (d.truth_to_predicted_mm, d.predicted_to_truth_mm))
    )


def surface_dsc(d: SurfaceDistances, tolerance_mm: float) -> float:
    """The part of both surfaces no further than ``tolerance_mm`` from the other one.

    Nikolov et al. 2021, also called normalised surface distance (NSD); 0 to 1.
    Raises ``ValueError`` when the tolerance is negative.
    """
    if not tolerance_mm >= 0:
        raise ValueError(f"a tolerance is at least 0 mm, got {tolerance_mm}")
    limit_mm = tolerance_mm + ROUNDING_MM
    near = d.truth_weights[d.truth_to_predicted_mm <= limit_mm].sum()
    near += d.predicted_weights[d.predicted_to_truth_mm <= limit_mm].sum()
    return float(near / (d.truth_weights.sum() + d.predicted_weights.sum()))


def bounding_box(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> tuple[slice, ...]:
    """The smallest box around what is not 0 in ``mask`` [I, J, K]; an empty one around nothing."""
    return volume.bounding_box(mask) or (slice(0, 0),) * 3


def _joint_box(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> tuple[slice, ...]:
    require_pair(truth, predicted)
    if truth.ndim != 3:
        raise ValueError(f"expected masks [I, J, K], got {truth.shape}")
    if not truth.any() or not predicted.any():
        raise ValueError("an empty mask has no surface: tell missed and spurious structures apart first")
    return bounding_box(truth | predicted)


def _between(
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    truth_weights: Floats,
    predicted_weights: Floats,
    steps_mm: Floats,
) -> SurfaceDistances:
    """From where surfaces are, bool [I, J, K], and the weights of their pieces in the same order."""
    return SurfaceDistances(
        truth_to_predicted_mm=nearest_distances_mm(truth, predicted, steps_mm),
        truth_weights=truth_weights,
        predicted_to_truth_mm=nearest_distances_mm(predicted, truth, steps_mm),
        predicted_weights=predicted_weights,
    )


def _require_percentile(percentile: float) -> None:
    if not 0 < percentile <= 100:
        raise ValueError(f"a percentile is above 0 and at most 100, got {percentile}")


def _percentile_mm(distances_mm: Floats, weights: Floats, percentile: float) -> float:
    order = np.argsort(distances_mm)
    share = np.cumsum(weights[order])
    wanted = (percentile / 100 - ROUNDING_SHARE) * share[-1]
    return float(distances_mm[order[np.searchsorted(share, wanted)]])
