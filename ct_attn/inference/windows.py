"""Where a network looks: windows that cover a box of the working grid, and how they are weighed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from ct_attn.network.configs import SlicesConfig
from ct_attn.volume import Shape3, in_order

#: Standard deviation of the blending weight in window sides, as MONAI and nnU-Net take it.
GAUSSIAN_SIGMA = 0.125

#: The smallest weight, so that every voxel has one.
LEAST_WEIGHT = 1e-3

#: Sides of chosen windows are multiples of this, so that scans share compiled networks.
SIDE_STEP = 16

#: More windows along one axis are not considered: they would be smaller than the overlap they need.
_MOST_ALONG = 64

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPlan:
    """Windows of ``size`` voxels that begin at ``starts``, by slices first, in a box of ``box`` voxels.

    Starts count from the box's first voxel and may lie before it: a window may be larger
    than the box, which then lies in its middle. Along the axis ``across`` slices that a
    network takes one by one, a voxel counts where ``halo`` slices on either side are in the
    window too, or there are none.
    """

    size: Shape3
    starts: tuple[Shape3, ...]
    box: Shape3
    overlap: Shape3
    across: int | None = None
    halo: int = 0

    @property
    def voxels(self) -> int:
        """Computed in all."""
        return len(self.starts) * prod(self.size)

    @property
    def layer(self) -> Shape3:
        """What windows of one start along the last axis cover of the box."""
        return self.box[0], self.box[1], min(self.size[2], self.box[2])

    def ordered(self, order: Shape3) -> WindowPlan:
        """The same windows where axis ``order[n]`` is called n; they follow each other along the last one."""
        starts = sorted((in_order(start, order) for start in self.starts), key=lambda at: (at[2], *at))
        return WindowPlan(
            size=in_order(self.size, order),
            starts=tuple(starts),
            box=in_order(self.box, order),
            overlap=in_order(self.overlap, order),
            across=None if self.across is None else order.index(self.across),
            halo=self.halo,
        )


def plan_windows(
    box: Shape3, size: Shape3, overlap: Shape3, *, across: int | None = None, halo: int = 0
) -> WindowPlan:
    """Windows of ``size`` that overlap by at least ``overlap`` voxels along each axis and cover ``box``.

    The last window along an axis is moved back to end with the box; along ``across`` it reaches
    beyond the box instead, since a slice computed twice would say the same again.
    """
    axes = []
    for axis, (length, side, shared) in enumerate(zip(box, size, overlap, strict=True)):
        step = max(1, side - shared)
        axes.append(_starts_along(length, side, step, beyond=axis == across))
    # By slices first, so that finished ones can be let go.
    starts = tuple((i, j, k) for k, i, j in product(axes[2], axes[0], axes[1]))
    return WindowPlan(size=size, starts=starts, box=box, overlap=overlap, across=across, halo=halo)


def overlap_voxels(patch_size: Shape3, overlap: float) -> Shape3:
    """How many voxels neighbours share that overlap by the fraction ``overlap``, as MONAI rounds it."""
    i, j, k = (side - max(1, int(side * (1 - overlap))) for side in patch_size)
    return i, j, k


def choose_windows(
    box: Shape3,
    overlap: Shape3,
    multiple: Shape3,
    fits: Callable[[Shape3], bool],
    least: Shape3 = (1, 1, 1),
) -> WindowPlan:
    """The windows whose size ``fits`` allows and that cover ``box`` with the least to compute.

    Along every axis as many windows as need be, of equal size, overlapping by at least
    ``overlap`` voxels and no shorter than ``least`` (the training's patch) or the box;
    sides are multiples of ``multiple`` and of :data:`SIDE_STEP`. Where memory is short
    for that, windows may be smaller. Where no size fits, the smallest is taken.
    """
    for step, shortest in ((SIDE_STEP, least), (1, (1, 1, 1))):
        sides = [
            _sides(length, shared, _lcm(side, step), min(short, length))
            for length, shared, side, short in zip(box, overlap, multiple, shortest, strict=True)
        ]
        fitting = [size for size in product(sides[0], sides[1], sides[2]) if fits(size)]
        if fitting:
            size = min(fitting, key=lambda size: _cost(box, size, _fitted(overlap, size)))
            return plan_windows(box, size, _fitted(overlap, size))
    size = (min(sides[0]), min(sides[1]), min(sides[2]))
    return plan_windows(box, size, _fitted(overlap, size))


def _cost(box: Shape3, size: Shape3, overlap: Shape3) -> tuple[int, int, Shape3]:
    """What is least where least is computed: voxels, then windows."""
    count = prod(
        _count_along(length, side, max(1, side - shared))
        for length, side, shared in zip(box, size, overlap, strict=True)
    )
    return count * prod(size), count, size


def _fitted(overlap: Shape3, size: Shape3) -> Shape3:
    """``overlap``, but at most half of the window."""
    i, j, k = (min(shared, side // 2) for shared, side in zip(overlap, size, strict=True))
    return i, j, k


def _sides(length: int, shared: int, step: int, shortest: int) -> list[int]:
    """Sides of one, two, three, ... windows along ``length``, each a multiple of ``step``.

    Windows that are small against ``shared`` share half of their side.
    """
    sides = set()
    for count in range(1, _MOST_ALONG + 1):
        least = (length + (count - 1) * shared) / count
        if least < 2 * shared:
            least = 2 * length / (count + 1)
        side = ceil(max(least, shortest) / step) * step
        sides.add(side)
        if side == step or least <= shortest:
            break
    return sorted(sides)


def plan_slices(
    box: Shape3, patch_size: Shape3, overlap: float, slices: SlicesConfig, most_slices: int | None = None
) -> WindowPlan:
    """Windows that hold as many slices as are to be predicted at a time, and their neighbours.

    In plane they have the sides and the ``overlap`` of training's patches; across, they
    share neighbours only. ``box`` must hold all slices of the scan, since beyond a window
    at its end there are zeros. ``most_slices`` to be predicted at a time, if given.
    """
    axis, halo = slices.axis, slices.halo
    at_a_time = min(slices.at_a_time, most_slices or slices.at_a_time)
    sides, shared = list(patch_size), list(overlap_voxels(patch_size, overlap))
    sides[axis], shared[axis] = min(at_a_time + 2 * halo, box[axis]), 2 * halo
    return plan_windows(
        box, (sides[0], sides[1], sides[2]), (shared[0], shared[1], shared[2]), across=axis, halo=halo
    )


def choose_slices(
    box: Shape3,
    patch: Shape3,
    overlap: float,
    slices: SlicesConfig,
    fits: Callable[[Shape3], bool],
) -> tuple[WindowPlan, int]:
    """Windows of as many slices at a time as ``fits`` allows, at least one; the voxels of the smallest."""
    for at_a_time in range(slices.at_a_time, 0, -1):
        plan = plan_slices(box, patch, overlap, slices, most_slices=at_a_time)
        if fits(plan.size):
            break
    thinnest = plan_slices(box, patch, overlap, slices, most_slices=1)
    return plan, prod(thinnest.size)


def _lcm(multiple: int, step: int) -> int:
    return int(np.lcm(multiple, step))


def _count_along(length: int, side: int, step: int) -> int:
    return -(-max(0, length - side) // step) + 1


def _starts_along(length: int, side: int, step: int, *, beyond: bool = False) -> list[int]:
    starts = [index * step for index in range(_count_along(length, side, step))]
    if beyond:
        return starts
    return [min(start, length - side) for start in starts] if side < length else [-((side - length) // 2)]


def window_starts(size: Shape3, patch_size: Shape3, overlap: float) -> Iterator[Shape3]:
    """The first voxel of every window, in order, so that windows cover ``size``.

    Along each axis the step is ``patch * (1 - overlap)``, at least one voxel; the last
    window is moved back to end with the volume.
    """
    shared = overlap_voxels(patch_size, overlap)
    axes = [
        _starts_along(length, side, side - by)
        for length, side, by in zip(size, patch_size, shared, strict=True)
    ]
    yield from product(axes[0], axes[1], axes[2])


def gaussian_weight(size: Shape3) -> NDArray[np.float32]:
    """The weight of each voxel of a window, float32 [*size], largest at the centre and above 0."""
    weight = np.ones(size, dtype=np.float32)
    for axis, side in enumerate(size):
        position = np.arange(side, dtype=np.float32) - (side - 1) / 2
        profile = np.exp(-0.5 * (position / (GAUSSIAN_SIGMA * side)) ** 2).astype(np.float32)
        weight *= profile.reshape([-1 if other == axis else 1 for other in range(3)])
    return np.maximum(weight, np.float32(LEAST_WEIGHT))


def take(image: NDArray[np.float32], start: Shape3, size: Shape3) -> NDArray[np.float32]:
    """The window of ``image`` [I, J, K], 0 (the image's lowest value) where it lies beyond."""
    inside = tuple(
        slice(max(0, begin), max(0, min(begin + side, length)))
        for begin, side, length in zip(start, size, image.shape, strict=True)
    )
    part = image[inside]
    if part.shape == size:
        return np.ascontiguousarray(part)
    window = np.zeros(size, dtype=np.float32)
    there = tuple(slice(s.start - begin, s.stop - begin) for s, begin in zip(inside, start, strict=True))
    window[there] = part
    return window
