"""Left and right kidney told apart by where they lie, when a model predicts both as one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ct_attn.labels import KIDNEYS
from ct_attn.prediction.filtering import connected_parts
from ct_attn.volume import Grid, Volume, bounding_box

#: What is denser is patient (or table), not air.
BODY_HU = -300
#: The body's outline needs no finer grid to find its middle.
COARSE_MM = 4.0
#: Smaller parts are no kidney: they go to their side without making the case doubtful.
SMALLEST_KIDNEY_ML = 10.0
#: A part with so much on either side of the middle is no single kidney.
CROSSING_SHARE = 0.15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sides:
    """Bool arrays [I, J, K] by organ (``left_kidney``, ``right_kidney``), and what makes them doubtful.

    ``doubts`` holds ``crosses_midline`` (a horseshoe kidney, or two that touch: it is
    split at the middle of the body) and ``one_side_only`` (two parts of a kidney's size on
    one side, none on the other).
    """

    masks: dict[str, NDArray[np.bool_]]
    doubts: tuple[str, ...]


def tell_apart(kidneys: NDArray[np.bool_], volume: Volume) -> Sides:
    """Both sides of ``kidneys`` [I, J, K], by connected parts and the body's middle.

    A part belongs to the side its centre lies on. Works on any orientation; the middle is
    the plane across the axis that runs closest to left-right.
    """
    grid = volume.grid
    axis, right_is_up = left_right_axis(grid)
    sides = {name: np.zeros(kidneys.shape, dtype=bool) for name in KIDNEYS}
    box = bounding_box(kidneys)
    if box is None:
        return Sides(masks=sides, doubts=())
    middle = body_middle(volume, box) - box[axis].start
    parts, sizes = connected_parts(kidneys[box])
    upper = np.arange(parts.shape[axis]) > middle
    upper = upper.reshape([-1 if place == axis else 1 for place in range(3)])
    above = np.bincount((parts * upper).ravel(), minlength=len(sizes) + 1)[1:]
    large_ml = SMALLEST_KIDNEY_ML * 1000 / grid.voxel_volume_mm3
    doubts, large_sides = [], []
    for number, (size, n_above) in enumerate(zip(sizes, above.tolist(), strict=True), start=1):
        part = parts == number
        share = n_above / size
        if size >= large_ml and CROSSING_SHARE < share < 1 - CROSSING_SHARE:
            doubts.append("crosses_midline")
            sides[KIDNEYS[right_is_up]][box] |= part & upper
            sides[KIDNEYS[not right_is_up]][box] |= part & ~upper
            continue
        is_right = (share > 0.5) == right_is_up
        large_sides += [is_right] * (size >= large_ml)
        sides[KIDNEYS[is_right]][box] |= part
    if len(large_sides) > 1 and len(set(large_sides)) == 1:
        doubts.append("one_side_only")
    return Sides(masks=sides, doubts=tuple(sorted(set(doubts))))


def left_right_axis(grid: Grid) -> tuple[int, bool]:
    """The axis of ``grid`` closest to left-right, and whether it runs to the right."""
    axis = next(axis for axis, letter in enumerate(grid.orientation) if letter in "LR")
    return axis, grid.orientation[axis] == "R"


def body_middle(volume: Volume, box: tuple[slice, slice, slice]) -> float:
    """The index along the left-right axis of the middle of the body, in the slices of ``box``.

    It is the centre of mass of the largest part denser than :data:`BODY_HU` on a coarse
    copy, so that neither the table nor the side of the scan the patient lies on counts.
    """
    axis, _ = left_right_axis(volume.grid)
    upright = next(axis for axis, letter in enumerate(volume.grid.orientation) if letter in "IS")
    steps = [max(1, int(COARSE_MM // step)) for step in volume.grid.spacing_mm]
    slices = [slice(None, None, step) for step in steps]
    slices[upright] = slice(box[upright].start, box[upright].stop, steps[upright])
    body = volume.hu[tuple(slices)] > BODY_HU
    opened = ndimage.binary_opening(body, iterations=1)
    parts, sizes = connected_parts(opened if opened.any() else body)
    if not sizes:
        return (volume.grid.shape[axis] - 1) / 2
    body = parts == 1 + int(np.argmax(sizes))
    profile = body.sum(axis=tuple({0, 1, 2} - {axis}))
    return float(np.average(np.arange(profile.size), weights=profile)) * steps[axis]
