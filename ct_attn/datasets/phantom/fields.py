"""Smooth functions of a position: uniform cubic B-splines over a coarse lattice.

A field is continuous (twice differentiable) and can be sampled at any point; on
the regular points of a scan it costs a few operations per point, axis by axis.
Plain elementwise arithmetic keeps it the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Axes = tuple[Float64, Float64, Float64]

#: Standard deviation of a cubic B-spline field with independent unit coefficients.
_UNIT_NOISE_SD = 0.332


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatticeField:
    """``coefficients`` float32 [Z, Y, X] at ``origin_mm`` + index * ``step_mm`` (x, y, z).

    Outside the lattice the border coefficients continue.
    """

    origin_mm: Float64
    step_mm: float
    coefficients: Float32

    def sample(self, axes_mm: Axes) -> Float32:
        """Values [nz, ny, nx] at every combination of the x, y and z positions in ``axes_mm``."""
        values = self.coefficients
        places = [(axes_mm[axis] - self.origin_mm[axis]) / self.step_mm for axis in range(3)]
        for axis in range(3):
            values, places[axis] = _cropped(values, places[axis], axis=2 - axis)
        # z last: it then combines whole contiguous planes
        for axis in range(3):
            values = _along(values, places[axis], axis=2 - axis)
        return values

    def at(self, points_mm: Float64) -> Float64:
        """Values [n] at scattered points [n, 3] (x, y, z)."""
        index = (points_mm - self.origin_mm) / self.step_mm
        return np.asarray(
            ndimage.map_coordinates(
                self.coefficients, index.T[::-1], order=3, mode="nearest", prefilter=False, output=np.float64
            )
        )


def lattice_axes(low_mm: Float64, high_mm: Float64, step_mm: float) -> Axes:
    """Lattice positions that carry a field on the box from ``low_mm`` to ``high_mm``."""
    sizes = np.ceil((high_mm - low_mm) / step_mm).astype(int) + 4
    x, y, z = (low_mm[axis] + step_mm * (np.arange(sizes[axis]) - 1.0) for axis in range(3))
    return x, y, z


def noise_field(
    rng: np.random.Generator, low_mm: Float64, high_mm: Float64, *, step_mm: float, sd: float
) -> LatticeField:
    """Random field on a box with standard deviation ``sd``; details are about 2 ``step_mm`` wide."""
    axes = lattice_axes(low_mm, high_mm, step_mm)
    shape = (len(axes[2]), len(axes[1]), len(axes[0]))
    coefficients = rng.standard_normal(shape, dtype=np.float32) * np.float32(sd / _UNIT_NOISE_SD)
    return _on_axes(axes, step_mm, coefficients)


def function_field(
    function: Callable[[Axes], Float32], low_mm: Float64, high_mm: Float64, *, step_mm: float
) -> LatticeField:
    """A smooth ``function`` (of lattice axes, to [nz, ny, nx]) as a field on a box."""
    axes = lattice_axes(low_mm, high_mm, step_mm)
    return _on_axes(axes, step_mm, np.asarray(function(axes), dtype=np.float32))


def _on_axes(axes: Axes, step_mm: float, coefficients: Float32) -> LatticeField:
    origin_mm = np.array([positions[0] for positions in axes])
    return LatticeField(origin_mm=origin_mm, step_mm=step_mm, coefficients=coefficients)


def _cropped(values: Float32, places: Float64, *, axis: int) -> tuple[Float32, Float64]:
    """The part of ``values`` along one axis that ``places`` need, and the places in it."""
    last = values.shape[axis] - 1
    first = int(np.clip(np.floor(places.min()) - 1, 0, last))
    stop = int(np.clip(np.floor(places.max()) + 3, first + 1, last + 1))
    cut = [slice(None)] * 3
    cut[axis] = slice(first, stop)
    return values[tuple(cut)], places - first


def _along(values: Float32, places: Float64, *, axis: int) -> Float32:
    """Interpolate ``values`` along one axis at fractional indices ``places``."""
    below = np.floor(places).astype(int)
    weights = _weights((places - below).astype(np.float32))
    last = values.shape[axis] - 1
    if axis == 0:
        return _combine_planes(values, below, weights, last)
    view = [1, 1, 1]
    view[axis] = len(places)
    total = np.zeros(1, dtype=np.float32)
    for tap in range(4):
        taken = values.take(np.clip(below + tap - 1, 0, last), axis=axis)
        taken *= weights[tap].reshape(view)
        total = taken if tap == 0 else np.add(total, taken, out=total)
    return total


def _combine_planes(values: Float32, below: NDArray[np.int_], weights: Float32, last: int) -> Float32:
    result = np.empty((len(below), *values.shape[1:]), dtype=np.float32)
    term = np.empty(values.shape[1:], dtype=np.float32)
    for k, index in enumerate(below.tolist()):
        np.multiply(values[min(max(index - 1, 0), last)], weights[0, k], out=result[k])
        for tap in (1, 2, 3):
            np.multiply(values[min(max(index + tap - 1, 0), last)], weights[tap, k], out=term)
            result[k] += term
    return result


def _weights(t: Float32) -> Float32:
    """Cubic B-spline weights [4, n] of the four nearest nodes at fraction ``t`` [n]."""
    s = 1 - t
    weights = np.stack([s**3, 4 - 3 * t**2 * (2 - t), 4 - 3 * s**2 * (2 - s), t**3])
    return np.asarray(weights / 6, dtype=np.float32)
