"""One case's numbers, structure by structure, each with the state that explains it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ct_attn.labels import LabelScheme, Structure, comparable_structures
from ct_attn.metrics.areas import step_vectors_mm
from ct_attn.metrics.contour import contour_distances
from ct_attn.metrics.overlap import Overlap, count_overlap
from ct_attn.metrics.surface import (
    SurfaceDistances,
    average_symmetric_surface_distance_mm,
    bounding_box,
    hausdorff_mm,
    interpolated_hausdorff_mm,
    mean_of_directed_averages_mm,
    surface_distances,
    surface_dsc,
    voxel_surface_distances,
)
from ct_attn.volume import Grid, Mask

Box = tuple[slice, ...]

TOLERANCES_MM = (1, 2, 3)


class State(StrEnum):
    """What a :class:`CaseScore` is about, so that no number is missing without a word."""

    SCORED = "scored"
    BOTH_EMPTY = "both empty"
    MISSED = "missed"
    SPURIOUS = "spurious"
    NOT_LABELLED = "not labelled"


class SurfaceConvention(StrEnum):
    """What the surface of a mask is, and how its pieces count; docs/metrics.md compares them."""

    AREA = "area"
    VOXEL = "voxel"
    CONTOUR = "contour"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """``count_empty``: a structure in neither mask has DSC, Jaccard and surface DSC 1, not None."""

    surface: SurfaceConvention = SurfaceConvention.AREA
    count_empty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseScore:
    """One structure in one case. A number is None where it is not defined:

    ===========  =====================================  =====================================
    state        0                                      None
    ===========  =====================================  =====================================
    scored
    both empty   the volumes and their difference       everything else but accuracy
    missed       DSC, Jaccard, recall, surface DSC      precision, distances
    spurious     DSC, Jaccard, precision, surface DSC   recall, distances, difference in %
    not labelled                                        everything
    ===========  =====================================  =====================================

    Distances are ``s2s_mm`` (average symmetric surface distance, both surfaces pooled),
    ``directed_mean_mm`` (the mean of the two directed averages), ``hd95_mm``, ``hd_mm``
    and ``centroid_mm`` (between the centres of mass). ``surface_dsc_*`` are shares of
    area and no distances: of a missed organ's surface nothing is near. ``accuracy``
    is over all voxels of the scan. A volume difference is predicted less truth.

    The contour convention defines no HD95 and no surface DSC, and no distance at all
    where no slice shows both contours; these are None then.
    """

    case_id: str
    organ: str
    state: State
    dsc: float | None = None
    precision: float | None = None
    recall: float | None = None
    jaccard: float | None = None
    accuracy: float | None = None
    s2s_mm: float | None = None
    directed_mean_mm: float | None = None
    hd95_mm: float | None = None
    hd_mm: float | None = None
    surface_dsc_1mm: float | None = None
    surface_dsc_2mm: float | None = None
    surface_dsc_3mm: float | None = None
    centroid_mm: float | None = None
    truth_ml: float | None = None
    predicted_ml: float | None = None
    volume_difference_ml: float | None = None
    volume_difference_percent: float | None = None


def score_case(
    truth: Mask,
    predicted: Mask,
    *,
    case_id: str,
    truth_scheme: LabelScheme,
    predicted_scheme: LabelScheme,
    labelled_organs: Collection[str],
    options: ScoreOptions | None = None,
) -> list[CaseScore]:
    """The scores of every structure in which both masks can be compared.

    Those are :func:`~ct_attn.labels.comparable_structures`, in their order. Codes
    that a scheme doesn't have count as background. A structure with an organ that
    is not in ``labelled_organs`` is not scored: what the truth leaves at 0 there
    may still be organ. Raises ``ValueError`` when the grids differ.
    """
    if not truth.grid.is_same_as(predicted.grid):
        raise ValueError(
            f"{case_id}: truth is on {truth.grid.describe()}, prediction on {predicted.grid.describe()}"
        )
    truth_boxes, predicted_boxes = _boxes_of_codes(truth.labels), _boxes_of_codes(predicted.labels)
    scores = []
    for structure in comparable_structures(truth_scheme, predicted_scheme).structures:
        if not set(structure.organs) <= set(labelled_organs):
            scores.append(CaseScore(case_id=case_id, organ=structure.name, state=State.NOT_LABELLED))
            continue
        truth_codes, predicted_codes = _codes(structure, truth_scheme), _codes(structure, predicted_scheme)
        box = _joint_box(
            [truth_boxes[code] for code in truth_codes if code in truth_boxes]
            + [predicted_boxes[code] for code in predicted_codes if code in predicted_boxes]
        )
        scores.append(
            score_structure(
                _members(truth.labels[box], truth_codes),
                _members(predicted.labels[box], predicted_codes),
                truth.grid,
                case_id=case_id,
                organ=structure.name,
                options=options,
            )
        )
    return scores


def score_structure(
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    grid: Grid,
    *,
    case_id: str,
    organ: str,
    options: ScoreOptions | None = None,
) -> CaseScore:
    """The score of one structure, bool arrays [I, J, K] of one shape.

    They may be a part of ``grid``, as long as it holds all of both: the grid's
    spacing and directions count, and for the accuracy how many voxels it has. Raises
    ``ValueError`` when the arrays are not bool or not of one shape.
    """
    options = options or ScoreOptions()
    overlap = count_overlap(truth, predicted)
    state = state_of(overlap)
    voxel_ml = grid.voxel_volume_mm3 / 1000
    extra_voxels = overlap.predicted_voxels - overlap.truth_voxels
    numbers: dict[str, float | None] = {"dsc": overlap.dsc, "jaccard": overlap.jaccard}
    if state in (State.MISSED, State.SPURIOUS):
        numbers |= dict.fromkeys(
            _SURFACE_DSC, 0.0 if options.surface is not SurfaceConvention.CONTOUR else None
        )
    elif state is State.SCORED:
        numbers |= _SURFACE_NUMBERS[options.surface](truth, predicted, grid)
        numbers["centroid_mm"] = _centroid_distance_mm(truth, predicted, grid)
    elif options.count_empty:
        numbers |= dict.fromkeys(("dsc", "jaccard"), 1.0)
        numbers |= dict.fromkeys(
            _SURFACE_DSC, 1.0 if options.surface is not SurfaceConvention.CONTOUR else None
        )
    return CaseScore(
        case_id=case_id,
        organ=organ,
        state=state,
        precision=overlap.precision,
        recall=overlap.recall,
        accuracy=overlap.accuracy(int(np.prod(grid.shape))),
        truth_ml=overlap.truth_voxels * voxel_ml,
        predicted_ml=overlap.predicted_voxels * voxel_ml,
        volume_difference_ml=extra_voxels * voxel_ml,
        volume_difference_percent=100 * extra_voxels / overlap.truth_voxels if overlap.truth_voxels else None,
        **numbers,
    )


def state_of(overlap: Overlap) -> State:
    """What can be said of a structure that truth and prediction show like this."""
    if overlap.truth_voxels:
        return State.SCORED if overlap.predicted_voxels else State.MISSED
    return State.SPURIOUS if overlap.predicted_voxels else State.BOTH_EMPTY


_SURFACE_DSC = tuple(f"surface_dsc_{tolerance_mm}mm" for tolerance_mm in TOLERANCES_MM)


def _area_numbers(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], grid: Grid
) -> dict[str, float | None]:
    d = surface_distances(truth, predicted, grid.spacing_mm, directions=_directions(grid))
    return _distance_numbers(d, hausdorff_mm)


def _voxel_numbers(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], grid: Grid
) -> dict[str, float | None]:
    d = voxel_surface_distances(truth, predicted, grid.spacing_mm, directions=_directions(grid))
    return _distance_numbers(d, interpolated_hausdorff_mm)


def _distance_numbers(d: SurfaceDistances, hausdorff: Callable[..., float]) -> dict[str, float | None]:
    """The numbers of two surfaces; ``hausdorff`` takes a percentile of ``d`` in the convention's way."""
    return {
        "s2s_mm": average_symmetric_surface_distance_mm(d),
        "directed_mean_mm": mean_of_directed_averages_mm(d),
        "hd95_mm": hausdorff(d, percentile=95),
        "hd_mm": hausdorff(d, percentile=100),
        **{name: surface_dsc(d, mm) for name, mm in zip(_SURFACE_DSC, TOLERANCES_MM, strict=True)},
    }


def _contour_numbers(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], grid: Grid
) -> dict[str, float | None]:
    steps_mm = step_vectors_mm(grid.spacing_mm, _directions(grid))
    d = contour_distances(truth, predicted, steps_mm, slice_axis=grid.axial_axis)
    return {} if d is None else {"s2s_mm": d.s2s_mm, "directed_mean_mm": d.s2s_mm, "hd_mm": d.hd_mm}


_SURFACE_NUMBERS = {
    SurfaceConvention.AREA: _area_numbers,
    SurfaceConvention.VOXEL: _voxel_numbers,
    SurfaceConvention.CONTOUR: _contour_numbers,
}


def _directions(grid: Grid) -> NDArray[np.float64] | None:
    # a right-angled grid needs no directions, and without them distances carry no rounding of theirs
    return None if grid.is_orthogonal else grid.directions


def _centroid_distance_mm(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], grid: Grid) -> float:
    """Between the centres of mass of both masks."""
    steps_mm = step_vectors_mm(grid.spacing_mm, _directions(grid))
    return float(np.linalg.norm(steps_mm @ (_centroid(predicted) - _centroid(truth))))


def _centroid(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean voxel index [3] of what is set in ``mask`` [I, J, K]."""
    along = [np.count_nonzero(np.moveaxis(mask, axis, 0), axis=(1, 2)) for axis in range(3)]
    return np.array([counts @ np.arange(len(counts)) / counts.sum() for counts in along])


def _codes(structure: Structure, scheme: LabelScheme) -> list[int]:
    """The codes of ``scheme`` that make up ``structure``."""
    return [part.code for part in scheme.structures if set(part.organs) <= set(structure.organs)]


def _boxes_of_codes(labels: NDArray[np.uint8]) -> dict[int, Box]:
    """The smallest box around each code that occurs in ``labels`` [I, J, K]."""
    content = bounding_box(labels)
    if not labels[content].size:
        return {}
    # NIfTI comes with the first axis running fastest, and find_objects wants the last to
    stored_backwards = labels.flags.f_contiguous and not labels.flags.c_contiguous
    found = ndimage.find_objects(labels[content].T if stored_backwards else labels[content])
    boxes = {}
    for code, inner in enumerate(found, start=1):
        if inner is not None:
            sides = inner[::-1] if stored_backwards else inner
            boxes[code] = tuple(
                slice(outer.start + side.start, outer.start + side.stop)
                for outer, side in zip(content, sides, strict=True)
            )
    return boxes


def _joint_box(boxes: list[Box]) -> Box:
    """The smallest box around all of ``boxes``; without any, an empty one."""
    if not boxes:
        return (slice(0, 0),) * 3
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )


def _members(labels: NDArray[np.uint8], codes: list[int]) -> NDArray[np.bool_]:
    """Where ``labels`` [...] holds one of ``codes``."""
    member = np.zeros(labels.shape, dtype=bool)
    for code in codes:
        member |= labels == code
    return member
