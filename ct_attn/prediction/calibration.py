"""What validation cases teach about a model: which parts to drop, and what its confidence is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ct_attn.metrics.overlap import Overlap
from ct_attn.prediction.filtering import OrganFilter, connected_parts, kept_parts
from ct_attn.prediction.postprocessing import Bin, Calibration, FilterChoice
from ct_attn.volume import bounding_box

#: What is tried, the simplest first.
CANDIDATES = (
    OrganFilter(),
    OrganFilter(keep_largest=True),
    *(OrganFilter(minimum_ml=minimum_ml) for minimum_ml in (0.5, 1.0, 2.0, 5.0)),
)
#: A filter must bring so much mean DSC, or nothing is dropped.
LEAST_GAIN = 1e-3
MOST_BINS, CASES_PER_BIN = 5, 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartOverlaps:
    """The parts of a predicted organ: voxels of each, and how many of them are right.

    ``n_largest``: organs the structure is made of; ``truth_voxels``: of the true one.
    """

    sizes: NDArray[np.int64]
    hits: NDArray[np.int64]
    truth_voxels: int
    n_largest: int
    voxel_mm3: float

    def dsc(self, chosen: OrganFilter) -> float:
        """The DSC with ``chosen`` applied; 1 where then neither truth nor prediction holds the organ."""
        kept = kept_parts(self.sizes.tolist(), chosen, n_largest=self.n_largest, voxel_mm3=self.voxel_mm3)
        hits = int(self.hits[kept].sum())
        overlap = Overlap(
            true_positive=hits,
            false_positive=int(self.sizes[kept].sum()) - hits,
            false_negative=self.truth_voxels - hits,
        )
        return 1.0 if overlap.dsc is None else overlap.dsc


def part_overlaps(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], *, n_largest: int, voxel_mm3: float
) -> PartOverlaps:
    """The parts of ``predicted`` [I, J, K] and what of them lies in ``truth``."""
    box = bounding_box(predicted)
    sizes, hits = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if box is not None:
        parts, counted = connected_parts(predicted[box])
        sizes = np.asarray(counted, dtype=np.int64)
        hits = np.bincount(parts[truth[box]], minlength=len(sizes) + 1)[1:].astype(np.int64)
    return PartOverlaps(
        sizes=sizes,
        hits=hits,
        truth_voxels=int(np.count_nonzero(truth)),
        n_largest=n_largest,
        voxel_mm3=voxel_mm3,
    )


def choose_filter(cases: Sequence[PartOverlaps]) -> FilterChoice:
    """Of :data:`CANDIDATES` the one with the best mean DSC, or none when it brings too little.

    An organ that is neither there nor predicted counts as DSC 1, so that dropping one
    that was made up counts.
    """
    if not cases:
        return FilterChoice(filter=OrganFilter(), n_cases=0, dsc_without=None, dsc_with=None)
    means = [float(np.mean([case.dsc(candidate) for case in cases])) for candidate in CANDIDATES]
    best = int(np.argmax(means))
    if means[best] - means[0] < LEAST_GAIN:
        best = 0
    return FilterChoice(
        filter=CANDIDATES[best], n_cases=len(cases), dsc_without=means[0], dsc_with=means[best]
    )


def calibrate_organ(points: Sequence[tuple[float, float]]) -> Calibration:
    """How confidence goes with DSC over ``points`` of (confidence, DSC)."""
    ordered = sorted((float(confidence), float(dsc)) for confidence, dsc in points)
    n_bins = min(MOST_BINS, len(ordered) // CASES_PER_BIN)
    groups = np.array_split(np.array(ordered), n_bins) if n_bins else []
    bins = tuple(
        Bin(
            low=float(group[0, 0]),
            high=float(group[-1, 0]),
            n_cases=len(group),
            mean_confidence=float(group[:, 0].mean()),
            mean_dsc=float(group[:, 1].mean()),
        )
        for group in groups
    )
    return Calibration(points=tuple(ordered), rank_correlation=_rank_correlation(ordered), bins=bins)


def _rank_correlation(points: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rho (1904), American Journal of Psychology 15:72; None where it isn't defined."""
    if len(points) < 3 or any(len(set(values)) == 1 for values in zip(*points, strict=True)):
        return None
    return float(stats.spearmanr(*zip(*points, strict=True)).statistic)
