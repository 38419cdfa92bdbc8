"""Solids as signed distances: millimetres to the surface, negative inside.

Distances are exact for tubes and close to it near the surface of the others,
which is where they are used. All functions take body coordinates float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from ct_attn.datasets.phantom.fields import Float32, Float64

Point = tuple[float, float, float]


class Solid(Protocol):
    """One convex piece of an organ."""

    def distance(self, x: Float32, y: Float32, z: Float32) -> Float32:
        """Signed distance in mm at the points (x, y, z) mm."""

    def hull(self) -> tuple[Float64, float]:
        """Points [n, 3] mm and a radius in mm: the solid lies within the radius of the points' box."""


def _unrotated() -> NDArray[np.float64]:
    return np.eye(3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ellipsoid:
    """``radii_mm`` along the rows of ``rotation``."""

    centre_mm: Point
    radii_mm: Point
    rotation: NDArray[np.float64] = field(default_factory=_unrotated)

    def distance(self, x: Float32, y: Float32, z: Float32) -> Float32:
        parts = [
            _squared(local, 1 / radius)
            for local, radius in zip(_local(self, x, y, z), self.radii_mm, strict=True)
        ]
        once = np.sqrt(parts[0] + parts[1] + parts[2])
        for part, radius in zip(parts, self.radii_mm, strict=True):
            np.multiply(part, np.float32(1 / radius**2), out=part)
        twice = np.sqrt(parts[0] + parts[1] + parts[2]) + np.float32(1e-6)
        return np.asarray(once * (once - 1) / twice, dtype=np.float32)

    def hull(self) -> tuple[Float64, float]:
        return _box_corners(self.centre_mm, self.radii_mm, self.rotation), 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drum:
    """An elliptic cylinder: ``radii_mm`` are the two half-axes and half the height."""

    centre_mm: Point
    radii_mm: Point
    rotation: NDArray[np.float64] = field(default_factory=_unrotated)

    def distance(self, x: Float32, y: Float32, z: Float32) -> Float32:
        u, v, w = _local(self, x, y, z)
        a, b, height = self.radii_mm
        radial = np.sqrt((u / np.float32(a)) ** 2 + (v / np.float32(b)) ** 2)
        radial -= 1
        radial *= np.float32((a * b) ** 0.5)
        # the end plates are hollow, as those of a vertebra
        np.abs(w, out=w)
        w -= np.float32(height)
        return np.asarray(np.maximum(radial, w), dtype=np.float32)

    def hull(self) -> tuple[Float64, float]:
        return _box_corners(self.centre_mm, self.radii_mm, self.rotation), 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundCone:
    """A straight piece of tube from ``start_mm`` to ``end_mm`` with round ends.

    ``flatten`` divides distances along x, y and z: above 1 the tube is wider there.
    """

    start_mm: Point
    end_mm: Point
    start_radius_mm: float
    end_radius_mm: float
    flatten: Point = (1.0, 1.0, 1.0)

    def distance(self, x: Float32, y: Float32, z: Float32) -> Float32:
        scale = 1 / np.array(self.flatten)
        start = np.array(self.start_mm)
        along = (np.array(self.end_mm) - start) * scale
        dx, dy, dz = (
            (values - np.float32(origin)) * np.float32(by)
            for values, origin, by in zip((x, y, z), start, scale, strict=True)
        )
        t = _project(dx, dy, dz, along)
        squares = [
            _squared(np.subtract(offset, t * np.float32(step), out=offset), 1.0)
            for offset, step in zip((dx, dy, dz), along, strict=True)
        ]
        distance = np.sqrt(squares[0] + squares[1] + squares[2])
        t *= np.float32(self.end_radius_mm - self.start_radius_mm)
        distance -= t
        distance -= np.float32(self.start_radius_mm)
        return np.asarray(distance, dtype=np.float32)

    def hull(self) -> tuple[Float64, float]:
        radius = max(self.start_radius_mm, self.end_radius_mm) * max(self.flatten)
        return np.array([self.start_mm, self.end_mm]), radius


def tube(
    points_mm: ArrayLike, radii_mm: ArrayLike, *, flatten: Point = (1.0, 1.0, 1.0), step_mm: float = 8.0
) -> list[Solid]:
    """A tapered tube along the smooth curve through ``points_mm`` [n, 3], radius ``radii_mm`` [n] at each."""
    points, radii = smooth_path(points_mm, radii_mm, step_mm=step_mm)
    return [
        RoundCone(
            start_mm=as_point(points[i]),
            end_mm=as_point(points[i + 1]),
            start_radius_mm=float(radii[i]),
            end_radius_mm=float(radii[i + 1]),
            flatten=flatten,
        )
        for i in range(len(points) - 1)
    ]


def smooth_path(points_mm: ArrayLike, radii_mm: ArrayLike, *, step_mm: float) -> tuple[Float64, Float64]:
    """Points about ``step_mm`` apart on a smooth curve through the given ones, and radii there."""
    points = np.asarray(points_mm, dtype=np.float64)
    radii = np.broadcast_to(np.asarray(radii_mm, dtype=np.float64), len(points))
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    knots = np.concatenate([[0.0], np.cumsum(lengths)])
    places = np.linspace(0.0, knots[-1], max(2, int(np.ceil(knots[-1] / step_mm)) + 1))
    curve = CubicSpline(knots, points, bc_type="natural")(places) if len(points) > 2 else None
    if curve is None:
        curve = points[0] + (places / knots[-1])[:, None] * (points[1] - points[0])
    return np.asarray(curve), np.interp(places, knots, radii)


def rotation(degrees_x: float, degrees_y: float, degrees_z: float) -> NDArray[np.float64]:
    """Rotation matrix about x, then y, then z."""
    result = np.eye(3)
    for axis, degrees in enumerate((degrees_x, degrees_y, degrees_z)):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.eye(3)
        i, j = ((1, 2), (2, 0), (0, 1))[axis]
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        result = turn @ result
    return result


def as_point(values: ArrayLike) -> Point:
    x, y, z = np.asarray(values, dtype=np.float64).tolist()
    return x, y, z


def _local(solid: Ellipsoid | Drum, x: Float32, y: Float32, z: Float32) -> tuple[Float32, Float32, Float32]:
    """Fresh arrays of the coordinates along the rows of the solid's rotation."""
    offsets = [v - np.float32(c) for v, c in zip((x, y, z), solid.centre_mm, strict=True)]
    if np.array_equal(solid.rotation, np.eye(3)):
        return offsets[0], offsets[1], offsets[2]
    u, v, w = (
        np.float32(row[0]) * offsets[0] + np.float32(row[1]) * offsets[1] + np.float32(row[2]) * offsets[2]
        for row in solid.rotation
    )
    return u, v, w


def _squared(values: Float32, factor: float) -> Float32:
    """``(factor * values) ** 2``, in the memory of ``values``."""
    if factor != 1.0:
        values *= np.float32(factor)
    return np.multiply(values, values, out=values)


def _project(dx: Float32, dy: Float32, dz: Float32, along: Float64) -> Float32:
    """How far along the axis the nearest axis point lies, 0 to 1."""
    weights = (along / max(float(along @ along), 1e-9)).astype(np.float32)
    t = dx * weights[0]
    t += dy * weights[1]
    t += dz * weights[2]
    return np.asarray(np.clip(t, 0, 1, out=t))


def _box_corners(centre: Point, radii: Point, turn: NDArray[np.float64]) -> Float64:
    signs = np.array(np.meshgrid(*[(-1, 0, 1)] * 3)).reshape(3, -1).T
    return np.asarray(np.array(centre) + (signs * np.array(radii)) @ turn)
