"""Scores of whole validation volumes, shared between processes and brought together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from ct_attn.metrics import State, average_symmetric_surface_distance_mm, surface_distances
from ct_attn.report.run_page import LEFT_OUT, RATIOS
from ct_attn.training.confusion import count_voxels, ratios
from ct_attn.volume import Spacing3

#: What is measured of every case and target.
MEASURES = (*RATIOS, "s2s_mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetScores:
    """How a prediction agrees with a case's labels, one value per target.

    nan where the case doesn't label the target in full, or a value is not defined:
    ``precision`` without a prediction, ``recall`` without truth, ``s2s_mm`` (area-weighted
    average symmetric surface distance) without either, ``dsc`` and ``iou`` where a target is
    absent and stays absent. ``state`` says which of these it is.
    """

    state: tuple[State, ...]
    dsc: tuple[float, ...]
    iou: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    s2s_mm: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedCase:
    """What the network made of case ``number`` of the validation side.

    ``labels``: the prediction, uint8 [I, J, K], where kept.
    """

    number: int
    case_id: str
    scores: TargetScores
    labels: Tensor | None = None

    @property
    def mean_dsc(self) -> float:
        known = [value for value in self.scores.dsc if not isnan(value)]
        return sum(known) / len(known) if known else nan

    def without_labels(self) -> ValidatedCase:
        return replace(self, labels=None)


def share_of(n_cases: int, *, rank: int, n_processes: int) -> list[int]:
    """The cases that process ``rank`` validates: every ``n_processes``-th, and never none.

    Where there are more processes than cases, some validate one that another has too.
    """
    return list(range(rank, n_cases, n_processes)) or [rank % n_cases]


def score_labels(
    predicted: Tensor, truth: Tensor, known: Sequence[bool], spacing_mm: Spacing3
) -> TargetScores:
    """The scores of the classes 1, 2, ... of ``predicted`` and ``truth`` [I, J, K].

    ``known``: whether the case labels each of these classes in full. ``spacing_mm``: of the
    case's working grid.
    """
    of_batch = torch.tensor([[True, *known]], device=truth.device)
    counts = count_voxels(predicted[None], truth[None], of_batch).tolist()
    found, true = predicted.cpu().numpy(), truth.cpu().numpy()
    per_target = [
        _of_target(counts[code - 1], found == code, true == code, spacing_mm)
        if fully
        else (State.NOT_LABELLED, *(nan,) * len(MEASURES))
        for code, fully in enumerate(known, start=1)
    ]
    state, dsc, iou, precision, recall, s2s_mm = zip(*per_target, strict=True)
    return TargetScores(state=state, dsc=dsc, iou=iou, precision=precision, recall=recall, s2s_mm=s2s_mm)


def from_all_processes(cases: Sequence[ValidatedCase]) -> list[ValidatedCase]:
    """The cases of all processes, each once, in the order of their numbers."""
    found = gathered(list(cases))
    by_number = {case.number: case for of_process in found for case in of_process}
    return [by_number[number] for number in sorted(by_number)]


def means(cases: Sequence[ValidatedCase]) -> dict[str, Tensor]:
    """Each of :data:`MEASURES` per target, over the cases that have a value; nan where none has."""
    return {
        measure: torch.tensor([getattr(case.scores, measure) for case in cases]).nanmean(0)
        for measure in MEASURES
    }


def left_out(cases: Sequence[ValidatedCase]) -> dict[str, Tensor]:
    """How many cases a mean of ``s2s_mm`` leaves out per target, by the columns of the log."""
    return {
        f"n_{state}": torch.tensor([[one == state for one in case.scores.state] for case in cases])
        .float()
        .sum(0)
        for state in LEFT_OUT
    }


def worst_first(cases: Sequence[ValidatedCase]) -> list[ValidatedCase]:
    """By rising mean DSC; a case that has none is left out."""
    return sorted(
        (case for case in cases if not isnan(case.mean_dsc)),
        key=lambda case: (case.mean_dsc, case.number),
    )


def gathered(value: Any) -> list[Any]:
    """``value`` of every process, in the order of their ranks."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def _of_target(
    counts: Sequence[int], predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: Spacing3
) -> tuple[State | float, ...]:
    """The state, then each of :data:`MEASURES`."""
    found, true = bool(predicted.any()), bool(truth.any())
    if found and true:
        s2s_mm = average_symmetric_surface_distance_mm(surface_distances(truth, predicted, spacing_mm))
        return (State.SCORED, *ratios(counts), s2s_mm)
    state = State.SPURIOUS if found else State.MISSED if true else State.BOTH_EMPTY
    return (state, *ratios(counts), nan)
