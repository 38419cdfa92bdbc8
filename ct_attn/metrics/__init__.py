"""How well a segmentation agrees with the truth; needs numpy and scipy only."""

from ct_attn.metrics.overlap import Overlap, count_overlap
from ct_attn.metrics.scores import (
    CaseScore,
    ScoreOptions,
    State,
    SurfaceConvention,
    score_case,
    score_structure,
)
from ct_attn.metrics.statistics import Distribution, OrganSummary, describe, summarize
from ct_attn.metrics.surface import (
    SurfaceDistances,
    average_symmetric_surface_distance_mm,
    hausdorff_mm,
    mean_of_directed_averages_mm,
    surface_distances,
    surface_dsc,
    voxel_surface_distances,
)

__all__ = [
    "CaseScore",
    "Distribution",
    "OrganSummary",
    "Overlap",
    "ScoreOptions",
    "State",
    "SurfaceConvention",
    "SurfaceDistances",
    "average_symmetric_surface_distance_mm",
    "count_overlap",
    "describe",
    "hausdorff_mm",
    "mean_of_directed_averages_mm",
    "score_case",
    "score_structure",
    "summarize",
    "surface_distances",
    "surface_dsc",
    "voxel_surface_distances",
]
