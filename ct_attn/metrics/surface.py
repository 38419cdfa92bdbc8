"""Distances between the surfaces of two structures, weighted by area.

Nikolov et al. 2021 (J Med Internet Res 23(7):e26151, section "Surface DSC") and
their ``google-deepmind/surface-distance`` define them so: every 2x2x2
neighbourhood of voxel centres whose corners are neither all inside nor all
outside holds one surface element. It lies at the middle of the neighbourhood;
its area is that of the marching-cubes triangles in there. Counting elements
instead would depend on how voxels lie to the surface, and on the spacing.

The elements of a surface that doesn't follow the voxels form a layer about one
voxel thick, and the closest of them counts: surfaces apart come out up to about
half a voxel closer than they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ct_attn.metrics.overlap import require_pair
from ct_attn.volume import Spacing3

Floats = NDArray[np.float64]
Point = tuple[int, int, int]
Triangle = tuple[Point, Point, Point]

#: Distances closer than this to a tolerance count as equal to it. Spacings come from
#: matrices: on an oblique 1 mm grid they are 1.0000000002 as often as 1, and without
#: slack every element at exactly 2 mm would change sides with that rounding.
ROUNDING_MM = 1e-6

#: The same for shares of an area, which are sums of thousands of floats.
ROUNDING_SHARE = 1e-12

_CORNERS: tuple[Point, ...] = tuple((i, j, k) for i, j, k in product((0, 1), repeat=3))
_MOST_TRIANGLES = 4
_WHOLE = 255


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SurfaceDistances:
    """For every surface element: the distance to the other surface, and its area.

    All arrays are float64, [N] for the N elements of the truth's surface and [M]
    for the M of the predicted surface, in the order of the voxels.
    """

    distances_truth_to_predicted_mm: Floats
    areas_truth_mm2: Floats
    distances_predicted_to_truth_mm: Floats
    areas_predicted_mm2: Floats


def surface_distances(
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    spacing_mm: Spacing3,
    *,
    directions: Floats | None = None,
) -> SurfaceDistances:
    """The distances between the surfaces of two bool arrays [I, J, K].

    ``directions`` are the unit vectors (columns) along the three axes, as in
    ``Grid.directions``, and matter only where the axes are not at right angles
    (a tilted gantry). What lies beyond the array is background, so a structure that
    touches the edge is closed there. Raises ``ValueError`` when a mask is empty
    (it has no surface), when the masks are not bool [I, J, K] of one shape, or when
    the spacing is not three numbers above 0.
    """
    require_pair(truth, predicted)
    if truth.ndim != 3:
        raise ValueError(f"expected masks [I, J, K], got {truth.shape}")
    if not truth.any() or not predicted.any():
        raise ValueError("an empty mask has no surface: tell missed and spurious structures apart first")
    steps_mm = _steps_mm(spacing_mm, directions)
    areas_mm2 = _area_table_mm2(steps_mm)
    box = _bounding_box(truth | predicted)
    codes_truth, codes_predicted = _neighbour_codes(truth[box]), _neighbour_codes(predicted[box])
    at_truth, at_predicted = _surface_points(codes_truth), _surface_points(codes_predicted)
    return SurfaceDistances(
        distances_truth_to_predicted_mm=_distances_mm(at_truth, at_predicted, steps_mm),
        areas_truth_mm2=areas_mm2[codes_truth[tuple(at_truth.T)]],
        distances_predicted_to_truth_mm=_distances_mm(at_predicted, at_truth, steps_mm),
        areas_predicted_mm2=areas_mm2[codes_predicted[tuple(at_predicted.T)]],
    )


def average_symmetric_surface_distance_mm(d: SurfaceDistances) -> float:
    """The mean distance over both surfaces together, every element weighted by its area.

    Heimann et al. 2009 (IEEE Trans Med Imaging 28:1251), their ASD, with areas in
    place of voxel counts. Not the mean of the two directed averages, which gives
    the smaller surface more weight than its area.
    """
    distances_mm = np.concatenate([d.distances_truth_to_predicted_mm, d.distances_predicted_to_truth_mm])
    areas_mm2 = np.concatenate([d.areas_truth_mm2, d.areas_predicted_mm2])
    return float(np.average(distances_mm, weights=areas_mm2))


def hausdorff_mm(d: SurfaceDistances, percentile: float = 95) -> float:
    """The greater of both directed Hausdorff distances, made robust by a percentile.

    A directed one is the smallest distance within which at least ``percentile`` %
    of the surface's area lies (``compute_robust_hausdorff`` of surface-distance);
    100 gives the Hausdorff distance itself (Huttenlocher et al. 1993, IEEE TPAMI
    15:850). Raises ``ValueError`` when the percentile is not above 0 and up to 100.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"a percentile is above 0 and at most 100, got {percentile}")
    return max(
        _percentile_mm(d.distances_truth_to_predicted_mm, d.areas_truth_mm2, percentile),
        _percentile_mm(d.distances_predicted_to_truth_mm, d.areas_predicted_mm2, percentile),
    )


def surface_dsc(d: SurfaceDistances, tolerance_mm: float) -> float:
    """The part of both surfaces' area no further than ``tolerance_mm`` from the other one.

    Nikolov et al. 2021, also called normalised surface distance (NSD); 0 to 1.
    Raises ``ValueError`` when the tolerance is negative.
    """
    if not tolerance_mm >= 0:
        raise ValueError(f"a tolerance is at least 0 mm, got {tolerance_mm}")
    limit_mm = tolerance_mm + ROUNDING_MM
    near_mm2 = d.areas_truth_mm2[d.distances_truth_to_predicted_mm <= limit_mm].sum()
    near_mm2 += d.areas_predicted_mm2[d.distances_predicted_to_truth_mm <= limit_mm].sum()
    return float(near_mm2 / (d.areas_truth_mm2.sum() + d.areas_predicted_mm2.sum()))


def area_table_mm2(spacing_mm: Spacing3) -> Floats:
    """Surface area in mm2 [256] inside a 2x2x2 neighbourhood, by its neighbour code.

    Corner (i, j, k) of the neighbourhood, each 0 or 1, stands for the bit
    128 >> (4 i + 2 j + k), set when the corner is inside. Raises ``ValueError`` when
    the spacing is not three numbers above 0.
    """
    return _area_table_mm2(_steps_mm(spacing_mm, None))


def _steps_mm(spacing_mm: Spacing3, directions: Floats | None) -> Floats:
    """The step to the next voxel along each axis in mm, as the columns of [3, 3]."""
    if len(spacing_mm) != 3 or not min(spacing_mm) > 0:
        raise ValueError(f"expected three spacings above 0 mm, got {spacing_mm}")
    return (np.eye(3) if directions is None else directions) * np.asarray(spacing_mm, dtype=np.float64)


def _area_table_mm2(steps_mm: Floats) -> Floats:
    i, j, k = steps_mm.T
    faces_mm2 = np.stack([np.cross(j, k), np.cross(k, i), np.cross(i, j)])
    return np.asarray(np.linalg.norm(_triangle_areas() @ faces_mm2, axis=-1).sum(axis=-1))


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box around what is set in ``mask`` [I, J, K]."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)


def _neighbour_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The code of every neighbourhood that touches ``mask`` [I, J, K]: uint8 [I+1, J+1, K+1]."""
    padded = np.pad(mask, 1).view(np.uint8)
    i, j, k = (size + 1 for size in mask.shape)
    codes = np.zeros((i, j, k), dtype=np.uint8)
    for a, b, c in _CORNERS:
        codes <<= 1
        codes |= padded[a : a + i, b : b + j, c : c + k]
    return codes


def _surface_points(codes: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Where the surface elements are, as indices [N, 3] into ``codes``."""
    return np.argwhere((codes != 0) & (codes != _WHOLE))


def _distances_mm(points: NDArray[np.intp], others: NDArray[np.intp], steps_mm: Floats) -> Floats:
    """How far each of ``points`` [N, 3] is from the closest of ``others`` [M, 3].

    A tree over the few surface points needs less time and memory than a distance
    transform of the box. The distance is taken from whole-numbered differences, not
    from positions, so that it doesn't depend on where in the array the points lie.
    """
    # Unbalanced and with loose nodes: on one surface well inside the other, where nearly all
    # points are equally far, seven times as fast as the default; no slower in any other case tried.
    tree = cKDTree(others @ steps_mm.T, balanced_tree=False, compact_nodes=False)
    _, nearest = tree.query(points @ steps_mm.T)
    return np.asarray(np.linalg.norm((points - others[nearest]) @ steps_mm.T, axis=1))


def _percentile_mm(distances_mm: Floats, areas_mm2: Floats, percentile: float) -> float:
    order = np.argsort(distances_mm)
    share = np.cumsum(areas_mm2[order])
    wanted = (percentile / 100 - ROUNDING_SHARE) * share[-1]
    return float(distances_mm[order[np.searchsorted(share, wanted)]])


@cache
def _triangle_areas() -> Floats:
    """Area vectors [256, 4, 3] of the triangles of every neighbour code, unit spacing.

    Lorensen and Cline 1987 (Computer Graphics 21:163) leave two choices open.
    Those made here give the areas of surface-distance's table for all 256 codes:

    * where a face has its inside corners on one diagonal, the rarer kind of corner
      (inside or outside, of all eight) is cut off from its like;
    * a polygon that is not flat is split so that its area is largest.

    The table is the same from every side, and for a structure and its complement.
    """
    areas = np.zeros((256, _MOST_TRIANGLES, 3))
    for code in range(1, _WHOLE):
        inside = {corner: bool(code & (128 >> n)) for n, corner in enumerate(_CORNERS)}
        triangles = [triangle for polygon in _polygons(inside) for triangle in _split(polygon)]
        # half of the cross product, in whole voxels instead of half ones
        areas[code, : len(triangles)] = np.array([_normal(triangle) for triangle in triangles]) / (2 * 4)
    areas.flags.writeable = False
    return areas


def _polygons(inside: dict[Point, bool]) -> list[list[Point]]:
    """The closed lines where the surface cuts the cube's faces, through the middles of edges.

    Points are in half voxels, with coordinates from 0 to 2.
    """
    cut_off = sum(inside.values()) <= 4
    following: dict[Point, Point] = {}
    for ring in _faces():
        following.update(_segments(ring, [inside[corner] == cut_off for corner in ring]))
    polygons = []
    while following:
        start, point = following.popitem()
        polygon = [start]
        while point != start:
            polygon.append(point)
            point = following.pop(point)
        polygons.append(polygon)
    return polygons


def _faces() -> Iterator[list[Point]]:
    """The corners of each face of the cube, in rings that turn alike seen from outside."""
    for axis, side in product(range(3), (0, 1)):
        around = [(0, 0), (1, 0), (1, 1), (0, 1)][:: 1 if side else -1]
        corners = [(side, u, v) for u, v in around]
        # turning (side, u, v) into place keeps the cyclic order, and with it the handedness
        yield [(corner[-axis], corner[1 - axis], corner[2 - axis]) for corner in corners]


def _segments(ring: list[Point], cut_off: list[bool]) -> Iterator[tuple[Point, Point]]:
    """For each run of corners to cut off: from the edge that enters it to the one that leaves."""
    middles = [(a + d, b + e, c + f) for (a, b, c), (d, e, f) in zip(ring, ring[1:] + ring[:1], strict=True)]
    for start in range(4):
        if cut_off[start] and not cut_off[start - 1]:
            length = next(n for n in range(1, 4) if not cut_off[(start + n) % 4])
            yield middles[start - 1], middles[(start + length - 1) % 4]


def _split(polygon: list[Point]) -> list[Triangle]:
    """The triangulation of largest total area; where there are several, any of them.

    Those that tie have the same area on every spacing: they split flat parts
    differently, or have the same parallel triangles in other sizes.
    """
    return max(_triangulations(polygon), key=lambda triangles: sum(map(_doubled_area, triangles)))


def _triangulations(polygon: list[Point]) -> Iterator[list[Triangle]]:
    """Every way to split ``polygon`` into triangles between its corners."""
    if len(polygon) < 3:
        yield []
    for n in range(1, len(polygon) - 1):
        for before, after in product(_triangulations(polygon[: n + 1]), _triangulations(polygon[n:])):
            yield [*before, (polygon[0], polygon[n], polygon[-1]), *after]


def _doubled_area(triangle: Triangle) -> float:
    return math.hypot(*_normal(triangle))


def _normal(triangle: Triangle) -> Point:
    """The cross product of two sides: twice the area long."""
    (a, b, c), (d, e, f), (g, h, i) = triangle
    u, v = (d - a, e - b, f - c), (g - a, h - b, i - c)
    return u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]
