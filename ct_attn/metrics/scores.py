"""One case's numbers, structure by structure, each with the state that explains it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ct_attn.labels import LabelScheme, Structure, comparable_structures
from ct_attn.metrics.overlap import Overlap, count_overlap
from ct_attn.metrics.surface import (
    average_symmetric_surface_distance_mm,
    hausdorff_mm,
    surface_distances,
    surface_dsc,
)
from ct_attn.volume import Grid, Mask

Box = tuple[slice, ...]


class State(StrEnum):
    """What a :class:`CaseScore` is about, so that no number is missing without a word."""

    SCORED = "scored"
    BOTH_EMPTY = "both empty"
    MISSED = "missed"
    SPURIOUS = "spurious"
    NOT_LABELLED = "not labelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseScore:
    """One structure in one case. A number is None where it is not defined:

    ===========  ========================  ======================
    state        0                         None
    ===========  ========================  ======================
    scored
    both empty   the volumes               everything else
    missed       all but the next column   precision, distances
    spurious     all but the next column   recall, distances
    not labelled                           everything
    ===========  ========================  ======================

    Distances are ``s2s_mm`` (average symmetric surface distance) and ``hd95_mm``;
    the volume of what is there stays, of course. ``surface_dsc_2mm`` is a share of
    area and no distance: of a missed organ's surface nothing is near.
    """

    case_id: str
    organ: str
    state: State
    dsc: float | None = None
    precision: float | None = None
    recall: float | None = None
    jaccard: float | None = None
    s2s_mm: float | None = None
    hd95_mm: float | None = None
    surface_dsc_2mm: float | None = None
    truth_ml: float | None = None
    predicted_ml: float | None = None


def score_case(
    truth: Mask,
    predicted: Mask,
    *,
    case_id: str,
    truth_scheme: LabelScheme,
    predicted_scheme: LabelScheme,
    labelled_organs: Collection[str],
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
    truth_boxes, predicted_boxes = ndimage.find_objects(truth.labels), ndimage.find_objects(predicted.labels)
    scores = []
    for structure in comparable_structures(truth_scheme, predicted_scheme).structures:
        if not set(structure.organs) <= set(labelled_organs):
            scores.append(CaseScore(case_id=case_id, organ=structure.name, state=State.NOT_LABELLED))
            continue
        truth_codes, predicted_codes = _codes(structure, truth_scheme), _codes(structure, predicted_scheme)
        box = _joint_box(_boxes(truth_codes, truth_boxes) + _boxes(predicted_codes, predicted_boxes))
        scores.append(
            score_structure(
                _members(truth.labels[box], truth_codes),
                _members(predicted.labels[box], predicted_codes),
                truth.grid,
                case_id=case_id,
                organ=structure.name,
            )
        )
    return scores


def score_structure(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], grid: Grid, *, case_id: str, organ: str
) -> CaseScore:
    """The score of one structure, bool arrays [I, J, K] of one shape.

    They may be a part of ``grid``, as long as it holds all of both: only the
    grid's spacing and directions count. Raises ``ValueError`` when the arrays are
    not bool or not of one shape.
    """
    overlap = count_overlap(truth, predicted)
    state = _state(overlap)
    surface = _surface_numbers(truth, predicted, grid) if state is State.SCORED else {}
    voxel_ml = grid.voxel_volume_mm3 / 1000
    return CaseScore(
        case_id=case_id,
        organ=organ,
        state=state,
        dsc=overlap.dsc,
        precision=overlap.precision,
        recall=overlap.recall,
        jaccard=overlap.jaccard,
        s2s_mm=surface.get("s2s_mm"),
        hd95_mm=surface.get("hd95_mm"),
        surface_dsc_2mm=surface.get("surface_dsc_2mm", None if state is State.BOTH_EMPTY else 0.0),
        truth_ml=overlap.truth_voxels * voxel_ml,
        predicted_ml=overlap.predicted_voxels * voxel_ml,
    )


def _state(overlap: Overlap) -> State:
    if overlap.truth_voxels:
        return State.SCORED if overlap.predicted_voxels else State.MISSED
    return State.SPURIOUS if overlap.predicted_voxels else State.BOTH_EMPTY


def _surface_numbers(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], grid: Grid) -> dict[str, float]:
    # a right-angled grid needs no directions, and without them distances carry no rounding of theirs
    directions = None if grid.is_orthogonal else grid.directions
    distances = surface_distances(truth, predicted, grid.spacing_mm, directions=directions)
    return {
        "s2s_mm": average_symmetric_surface_distance_mm(distances),
        "hd95_mm": hausdorff_mm(distances, percentile=95),
        "surface_dsc_2mm": surface_dsc(distances, tolerance_mm=2),
    }


def _codes(structure: Structure, scheme: LabelScheme) -> list[int]:
    """The codes of ``scheme`` that make up ``structure``."""
    return [part.code for part in scheme.structures if set(part.organs) <= set(structure.organs)]


def _boxes(codes: list[int], boxes: list[Box | None]) -> list[Box]:
    """The boxes of those ``codes`` that occur; ``boxes`` starts with code 1."""
    found = [boxes[code - 1] for code in codes if code <= len(boxes)]
    return [box for box in found if box is not None]


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
    member = np.zeros(256, dtype=bool)
    member[codes] = True
    return member[labels]
