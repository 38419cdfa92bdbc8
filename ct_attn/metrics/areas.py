"""How much surface a 2x2x2 neighbourhood of voxel centres holds, by which of them are inside."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ct_attn.volume import Spacing3

Floats = NDArray[np.float64]
Point = tuple[int, int, int]
Triangle = tuple[Point, Point, Point]

#: The neighbour code of a neighbourhood that is all inside.
WHOLE = 255

_CORNERS: tuple[Point, ...] = tuple((i, j, k) for i, j, k in product((0, 1), repeat=3))
_MOST_TRIANGLES = 4


def step_vectors_mm(spacing_mm: Spacing3, directions: Floats | None = None) -> Floats:
    """The step to the next voxel along each axis in mm, as the columns of [3, 3].

    Without ``directions`` (unit vectors as columns) the axes are at right angles.
    Raises ``ValueError`` when the spacing is not three numbers above 0.
    """
    if len(spacing_mm) != 3 or not min(spacing_mm) > 0:
        raise ValueError(f"expected three spacings above 0 mm, got {spacing_mm}")
    return (np.eye(3) if directions is None else directions) * np.asarray(spacing_mm, dtype=np.float64)


def area_table_mm2(steps_mm: Floats) -> Floats:
    """Surface area in mm2 [256] inside a 2x2x2 neighbourhood, by its neighbour code.

    ``steps_mm`` is what :func:`step_vectors_mm` gives. Corner (i, j, k) of the
    neighbourhood, each 0 or 1, stands for the bit 128 >> (4 i + 2 j + k), set when the
    corner is inside.
    """
    i, j, k = steps_mm.T
    faces_mm2 = np.stack([np.cross(j, k), np.cross(k, i), np.cross(i, j)])
    return np.asarray(np.linalg.norm(_triangle_areas() @ faces_mm2, axis=-1).sum(axis=-1))


def neighbour_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The code of every neighbourhood that touches ``mask`` [I, J, K]: uint8 [I+1, J+1, K+1]."""
    padded = np.pad(mask, 1).view(np.uint8)
    i, j, k = (size + 1 for size in mask.shape)
    codes = np.zeros((i, j, k), dtype=np.uint8)
    for a, b, c in _CORNERS:
        codes <<= 1
        codes |= padded[a : a + i, b : b + j, c : c + k]
    return codes


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
    for code in range(1, WHOLE):
        inside = _inside(code)
        polygons = _polygons(inside, cut_off=sum(inside.values()) <= 4)
        triangles = [triangle for polygon in polygons for triangle in _split(polygon)]
        # half of the cross product, in whole voxels instead of half ones
        areas[code, : len(triangles)] = np.array([_normal(triangle) for triangle in triangles]) / (2 * 4)
    areas.flags.writeable = False
    return areas


@cache
def closed_triangles() -> tuple[tuple[Triangle, ...], ...]:
    """Triangles of every neighbour code that make a closed surface, all turned alike.

    Points are in half voxels from the neighbourhood's first corner; each lies on an edge
    between an inside and an outside corner. Where a face has its inside corners on one
    diagonal they are always cut off from each other, so that neighbours agree, which those
    of the area table need not.
    """
    return tuple(
        tuple(triangle for polygon in _polygons(_inside(code), cut_off=True) for triangle in _split(polygon))
        for code in range(256)
    )


def _inside(code: int) -> dict[Point, bool]:
    return {corner: bool(code & (128 >> n)) for n, corner in enumerate(_CORNERS)}


def _polygons(inside: dict[Point, bool], *, cut_off: bool) -> list[list[Point]]:
    """The closed lines where the surface cuts the cube's faces, through the middles of edges.

    On a face whose inside corners lie on one diagonal, inside corners are cut off from each
    other, or with ``cut_off`` False outside ones. Points are in half voxels, with coordinates
    from 0 to 2.
    """
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
