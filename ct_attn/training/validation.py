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

from ct_attn.metrics import average_symmetric_surface_distance_mm, surface_distances
from ct_attn.volume import Spacing3


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedCase:
    """What the network made of case ``number`` of the validation side.

    ``dsc`` and ``s2s_mm`` (area-weighted average symmetric surface distance), one value
    per target; nan where the case doesn't label it in full, and ``s2s_mm`` also where
    truth or prediction is empty. ``labels``: the prediction, uint8 [I, J, K], where kept.
    """

    number: int
    case_id: str
    dsc: tuple[float, ...]
    s2s_mm: tuple[float, ...]
    labels: Tensor | None = None

    @property
    def mean_dsc(self) -> float:
        known = [value for value in self.dsc if not isnan(value)]
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
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """DSC and S2S in mm of the classes 1, 2, ... of ``predicted`` and ``truth`` [I, J, K].

    ``known``: whether the case labels each of these classes in full; nan where not.
    ``spacing_mm``: of the case's working grid.
    """
    dsc = dsc_per_class(predicted, truth, len(known) + 1)
    found, true = predicted.cpu().numpy(), truth.cpu().numpy()
    s2s = [_s2s_mm(found == code, true == code, spacing_mm) for code in range(1, len(known) + 1)]
    return (
        tuple(value if fully else nan for value, fully in zip(dsc, known, strict=True)),
        tuple(value if fully else nan for value, fully in zip(s2s, known, strict=True)),
    )


def dsc_per_class(predicted: Tensor, truth: Tensor, n_classes: int) -> list[float]:
    """DSC of the classes 1 to ``n_classes`` - 1; an absent class that stays absent counts 1."""
    scores = []
    for code in range(1, n_classes):
        p, t = predicted == code, truth == code
        size = int(p.sum() + t.sum())
        scores.append(2 * int((p & t).sum()) / size if size else 1.0)
    return scores


def from_all_processes(cases: Sequence[ValidatedCase]) -> list[ValidatedCase]:
    """The cases of all processes, each once, in the order of their numbers."""
    found = gathered(list(cases))
    by_number = {case.number: case for of_process in found for case in of_process}
    return [by_number[number] for number in sorted(by_number)]


def means(cases: Sequence[ValidatedCase]) -> tuple[Tensor, Tensor]:
    """DSC and S2S in mm per target, over the cases that have a value; nan where none has."""
    dsc, s2s = torch.tensor([case.dsc for case in cases]), torch.tensor([case.s2s_mm for case in cases])
    return dsc.nanmean(0), s2s.nanmean(0)


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


def _s2s_mm(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: Spacing3) -> float:
    if not predicted.any() or not truth.any():
        return nan
    return average_symmetric_surface_distance_mm(surface_distances(truth, predicted, spacing_mm))
