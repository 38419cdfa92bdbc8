"""How well a segmentation agrees with the truth; needs numpy and scipy only."""

from ct_attn.metrics.overlap import Overlap, count_overlap
from ct_attn.metrics.scores import CaseScore, State, score_case, score_structure
from ct_attn.metrics.statistics import MeanStd, OrganSummary, mean_std, summarize
from ct_attn.metrics.surface import (
    SurfaceDistances,
    area_table_mm2,
    average_symmetric_surface_distance_mm,
    hausdorff_mm,
    surface_distances,
    surface_dsc,
)

__all__ = [
    "CaseScore",
    "MeanStd",
    "OrganSummary",
    "Overlap",
    "State",
    "SurfaceDistances",
    "area_table_mm2",
    "average_symmetric_surface_distance_mm",
    "count_overlap",
    "hausdorff_mm",
    "mean_std",
    "score_case",
    "score_structure",
    "summarize",
    "surface_distances",
    "surface_dsc",
]
