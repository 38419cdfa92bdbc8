"""One case slice by slice: how its structures overlap in every axial slice, in one pass over both masks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ct_attn.labels import LabelScheme, comparable_structures, recode
from ct_attn.metrics.overlap import Overlap
from ct_attn.metrics.scores import State, state_of
from ct_attn.volume import Grid, Mask

#: Voxels that are counted at a time; what bounds the memory beside the masks.
_BLOCK_VOXELS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceCounts:
    """Voxels of every structure in every axial slice of a case.

    ``organs``: the structures that can be compared. ``labelled``: whether the truth says all
    of each. ``voxels`` int64 [n_organs, n_slices, 3]: true positives, false positives and
    false negatives. ``positions_mm`` float64 [n_slices]: see :func:`slice_positions_mm`.
    ``slice_voxels``: how many a slice has; ``voxel_mm2``: the area of one.
    """

    case_id: str
    organs: tuple[str, ...]
    labelled: tuple[bool, ...]
    voxels: NDArray[np.int64]
    positions_mm: NDArray[np.float64]
    slice_voxels: int
    voxel_mm2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceScore:
    """One structure in one axial slice; what a number is None in is the same as in a ``CaseScore``.

    ``slice``: its index as stored, from 0; ``position_mm``: where it lies. ``accuracy`` is over
    all voxels of the slice. The areas ``truth_mm2`` and ``predicted_mm2`` lie in its plane.
    """

    case_id: str
    organ: str
    slice: int
    position_mm: float
    state: State
    dsc: float | None = None
    jaccard: float | None = None
    precision: float | None = None
    recall: float | None = None
    accuracy: float | None = None
    truth_mm2: float | None = None
    predicted_mm2: float | None = None


def count_slices(
    truth: Mask,
    predicted: Mask,
    *,
    case_id: str,
    truth_scheme: LabelScheme,
    predicted_scheme: LabelScheme,
    labelled_organs: Collection[str],
) -> SliceCounts:
    """The voxels of every structure that :func:`~ct_attn.metrics.scores.score_case` scores, slice by slice.

    Slices are cut across the axis nearest to superior. Raises ``ValueError`` when the grids
    differ.
    """
    grid = truth.grid
    if not grid.is_same_as(predicted.grid):
        raise ValueError(
            f"{case_id}: truth is on {grid.describe()}, prediction on {predicted.grid.describe()}"
        )
    shared = comparable_structures(truth_scheme, predicted_scheme)
    n_codes = len(shared.structures) + 1
    every_code = np.arange(256, dtype=np.uint8)
    true_code = recode(every_code, truth_scheme, shared)
    predicted_code = recode(every_code, predicted_scheme, shared)
    axis = grid.axial_axis
    n_slices = grid.shape[axis]
    # A voxel's bin says its slice and both its codes.
    bins = np.zeros(n_slices * n_codes**2, dtype=np.int64)
    of_slice = np.arange(n_slices).reshape([-1 if place == axis else 1 for place in range(3)]) * n_codes**2
    for block in _blocks(truth.labels):
        t, p = truth.labels[block], predicted.labels[block]
        if t.any() or p.any():
            first = of_slice[
                tuple(side if place == axis else slice(None) for place, side in enumerate(block))
            ]
            places = first + (true_code * np.uint8(n_codes))[t] + predicted_code[p]
            bins += np.bincount(places.ravel(order="K"), minlength=bins.size)
    pairs = bins.reshape(n_slices, n_codes, n_codes)  # by slice, true code, predicted code
    both = pairs.diagonal(axis1=1, axis2=2)[:, 1:].T
    true, found = pairs.sum(axis=2)[:, 1:].T, pairs.sum(axis=1)[:, 1:].T
    across = np.delete(grid.affine[:3, :3], axis, axis=1)
    return SliceCounts(
        case_id=case_id,
        organs=shared.names,
        labelled=tuple(set(structure.organs) <= set(labelled_organs) for structure in shared.structures),
        voxels=np.stack([both, found - both, true - both], axis=2),
        positions_mm=slice_positions_mm(grid),
        slice_voxels=truth.labels.size // n_slices,
        voxel_mm2=float(np.linalg.norm(np.cross(across[:, 0], across[:, 1]))),
    )


def slice_positions_mm(grid: Grid) -> NDArray[np.float64]:
    """Where each axial slice lies along the normal of the slices, which points to superior; [n_slices].

    In a grid that is not oblique that is the RAS coordinate S of the slice.
    """
    axis = grid.axial_axis
    across = np.delete(grid.affine[:3, :3], axis, axis=1)
    normal = np.cross(across[:, 0], across[:, 1])
    normal *= np.copysign(1 / np.linalg.norm(normal), normal[2])
    centres = grid.affine[:3, 3] + np.arange(grid.shape[axis])[:, None] * grid.affine[:3, axis]
    return np.asarray(np.round(centres @ normal, 6) + 0.0)  # and no -0


def slice_scores(counts: SliceCounts, *, count_empty: bool = False) -> Iterator[SliceScore]:
    """The scores of ``counts``, organ by organ and slice by slice, in their stored order.

    By the rule of :class:`~ct_attn.metrics.scores.CaseScore`: what is in neither mask has no
    score but accuracy, or with ``count_empty`` DSC and Jaccard 1.
    """
    for organ, labelled, of_organ in zip(counts.organs, counts.labelled, counts.voxels, strict=True):
        for index, (position_mm, voxels) in enumerate(zip(counts.positions_mm, of_organ, strict=True)):
            if not labelled:
                yield SliceScore(
                    case_id=counts.case_id,
                    organ=organ,
                    slice=index,
                    position_mm=float(position_mm),
                    state=State.NOT_LABELLED,
                )
                continue
            both, wrong, missed = map(int, voxels)
            overlap = Overlap(true_positive=both, false_positive=wrong, false_negative=missed)
            state = state_of(overlap)
            of_nothing = 1.0 if count_empty and state is State.BOTH_EMPTY else None
            yield SliceScore(
                case_id=counts.case_id,
                organ=organ,
                slice=index,
                position_mm=float(position_mm),
                state=state,
                dsc=overlap.dsc if of_nothing is None else of_nothing,
                jaccard=overlap.jaccard if of_nothing is None else of_nothing,
                precision=overlap.precision,
                recall=overlap.recall,
                accuracy=overlap.accuracy(counts.slice_voxels),
                truth_mm2=overlap.truth_voxels * counts.voxel_mm2,
                predicted_mm2=overlap.predicted_voxels * counts.voxel_mm2,
            )


def _blocks(labels: NDArray[np.uint8]) -> Iterator[tuple[slice, slice, slice]]:
    """Slabs of ``labels`` [I, J, K] across the axis with the longest stride: memory is read in its order."""
    slowest = int(np.argmax(labels.strides))
    n_planes = labels.shape[slowest]
    thickness = max(1, _BLOCK_VOXELS * n_planes // labels.size)
    for start in range(0, n_planes, thickness):
        i, j, k = (
            slice(start, start + thickness) if axis == slowest else slice(0, size)
            for axis, size in enumerate(labels.shape)
        )
        yield i, j, k
