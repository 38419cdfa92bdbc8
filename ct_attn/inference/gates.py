"""What the attention gates of a model let through: coefficients of a scan, features around one place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ct_attn.inference.backends.backend import Backend
from ct_attn.inference.backends.choose import attention_backend
from ct_attn.inference.blending import Members, Slab, blended, in_axes
from ct_attn.inference.options import InferenceOptions
from ct_attn.inference.restore import Restorer
from ct_attn.inference.windows import WindowPlan, plan_windows, take
from ct_attn.model_file import ModelFile
from ct_attn.preprocessing import Prepared, PreprocessingConfig, prepare
from ct_attn.volume import Grid, Mask, Volume, in_order, size_of

#: The windows for a working grid of a scan, given the grids of scan and working grid.
Windows = Callable[[Grid, Grid, Backend], WindowPlan]

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GatePlane:
    """A plane of the working grid, which runs to R, A and S.

    ``image`` float32 in 0 to 1 and ``maps`` float32 [3 gates, ...] lie on ``grid``, one of
    whose sides is 1; ``maps`` as :meth:`AttentionUNet.stacked_features` gives them.
    """

    image: NDArray[np.float32]
    maps: NDArray[np.float32]
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GateViews:
    """All gates, by name, in an axial and a sagittal plane."""

    gates: tuple[str, ...]
    axial: GatePlane
    sagittal: GatePlane


def attention_maps(
    model: ModelFile,
    options: InferenceOptions,
    volume: Volume,
    preprocessing: PreprocessingConfig,
    windows: Windows,
    on_window: Callable[[int, int], None],
) -> dict[str, Volume]:
    """alpha of every gate on the grid of ``volume``; see :meth:`Predictor.attention`."""
    backend, names = attention_backend(model, options)
    prepared = prepare(volume, preprocessing)
    order = model.recipe.axes
    restorer = Restorer(prepared.grid.ordered(order), volume.grid, n_values=len(names), mask=False)
    plan = windows(volume.grid, prepared.grid, backend)
    members, image, plan = in_axes(order, _members(backend), prepared.image, plan)
    for slab in blended(members, image, plan, n_classes=len(names), on_window=on_window):
        restorer.add(slab.first, slab.values)
    return {
        name: Volume(hu=alpha, grid=volume.grid) for name, alpha in zip(names, restorer.values, strict=True)
    }


def gate_views(
    model: ModelFile,
    options: InferenceOptions,
    volume: Volume,
    preprocessing: PreprocessingConfig,
    windows: Windows,
    place_mm: NDArray[np.float64],
) -> GateViews:
    """Features and coefficients of every gate in the two planes through ``place_mm`` (RAS).

    One window of those of a prediction is computed, moved so that the place is in its
    middle where the scan goes on. A network of slices takes all slices of that window's
    column, a few at a time; only the two planes are kept. Raises :class:`UserError` when
    the network has no gates.
    """
    backend, names = attention_backend(model, options, features=True)
    prepared = prepare(volume, preprocessing)
    at = np.rint(prepared.grid.to_voxels(place_mm)).astype(int)
    at = np.clip(at, 0, np.array(prepared.grid.shape) - 1)
    plan = windows(volume.grid, prepared.grid, backend)
    box = _around(at, plan, prepared.grid)
    column = plan_windows(size_of(box), plan.size, plan.overlap, across=plan.across, halo=plan.halo)
    order = model.recipe.axes
    members, image, column = in_axes(order, _members(backend), prepared.image, column)
    axial, sagittal = (order.index(axis) for axis in (2, 0))
    right, front, up = (int(place) - side.start for place, side in zip(at, box, strict=True))
    places = in_order((right, front, up), order)
    parts: dict[int, list[NDArray[np.float32]]] = {axial: [], sagittal: []}
    for slab in _slabs(members, image, column, in_order(box, order), n_values=3 * len(names)):
        for axis, found in parts.items():
            found.extend(_cut(slab, axis, places[axis]))
    back = [1 + order.index(axis) for axis in range(3)]
    maps = {axis: np.concatenate(found, axis=3).transpose(0, *back) for axis, found in parts.items()}
    return GateViews(
        gates=tuple(names),
        axial=_plane(prepared, (box[0], box[1], slice(at[2], at[2] + 1)), maps[axial]),
        sagittal=_plane(prepared, (slice(at[0], at[0] + 1), box[1], box[2]), maps[sagittal]),
    )


def _members(backend: Backend) -> Members:
    return lambda window: [backend.logits(np.ascontiguousarray(window)[None, None])[0]]


def _slabs(
    members: Members, image: NDArray[np.float32], plan: WindowPlan, box: Box, *, n_values: int
) -> Iterator[Slab]:
    """What ``members`` make of the ``box`` of ``image``; one window is handed on as it is."""
    origin = (box[0].start, box[1].start, box[2].start)
    if len(plan.starts) > 1:
        yield from blended(members, image, plan, n_classes=n_values, origin=origin)
        return
    i, j, k = (first + start for first, start in zip(origin, plan.starts[0], strict=True))
    (maps,) = members(take(image, (i, j, k), plan.size))
    inside = [slice(-start, size - start) for start, size in zip(plan.starts[0], plan.box, strict=True)]
    yield Slab(first=0, values=maps[(slice(None), *inside)])


def place_to_show(mask: Mask, codes: Collection[int]) -> NDArray[np.float64]:
    """RAS mm [3] where the largest structure of ``codes`` has its fullest slice along each axis.

    The middle of the grid where there is none.
    """
    voxels = {code: int(np.count_nonzero(mask.labels == code)) for code in codes}
    largest = max(voxels, key=lambda code: voxels[code])
    if not voxels[largest]:
        return mask.grid.centre_mm
    inside = mask.labels == largest
    fullest = [np.count_nonzero(inside, axis=tuple({0, 1, 2} - {axis})).argmax() for axis in range(3)]
    return mask.grid.to_mm(np.array(fullest, dtype=np.float64))


def _cut(slab: Slab, axis: int, place: int) -> list[NDArray[np.float32]]:
    """The plane of ``slab`` at ``place`` of the box along ``axis``, if it is in there."""
    first = slab.first if axis == 2 else 0
    if not first <= place < first + slab.values.shape[1 + axis]:
        return []
    return [np.take(slab.values, [place - first], axis=1 + axis)]


def _around(at: NDArray[np.int_], plan: WindowPlan, grid: Grid) -> Box:
    """The part of ``grid`` that a window around ``at`` covers; all of it across slices."""
    sides = []
    for axis, (place, side, length) in enumerate(zip(at, plan.size, grid.shape, strict=True)):
        size = length if axis == plan.across else min(side, length)
        start = min(max(0, int(place) - size // 2), length - size)
        sides.append(slice(start, start + size))
    return sides[0], sides[1], sides[2]


def _plane(prepared: Prepared, box: Box, maps: NDArray[np.float32]) -> GatePlane:
    affine = np.array(prepared.grid.affine)
    affine[:3, 3] = prepared.grid.to_mm(np.array([side.start for side in box]))
    grid = Grid(shape=size_of(box), affine=affine)
    return GatePlane(image=prepared.image[box].copy(), maps=maps, grid=grid)
