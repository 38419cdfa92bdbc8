"""How every number of a page is defined, in words that are true for the surface convention it was made by."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ct_attn.metrics import SurfaceConvention

AREA, VOXEL, CONTOUR = SurfaceConvention.AREA, SurfaceConvention.VOXEL, SurfaceConvention.CONTOUR

#: The surface of a mask by each convention.
SURFACES: Mapping[SurfaceConvention, str] = {
    AREA: "surface elements finer than a voxel, weighted by their area (convention area)",
    VOXEL: "boundary voxels, each counted once (convention voxel, as MONAI counts)",
    CONTOUR: "outer contours of axial slices, each slice for itself and averaged over the slices that show "
    "both (convention contour)",
}
SCAN_GRID = "in the scan's own spacing and directions"

_S2S = "Average symmetric surface distance in mm"
_POOLED = f"{_S2S}: from each point of one surface to the nearest of the other, both directions pooled"
_S2S_BY = {
    AREA: f"{_POOLED} and weighted by area.",
    VOXEL: f"{_POOLED}, every boundary voxel counted once.",
    CONTOUR: f"{_S2S}: in each axial slice that shows both contours the average from truth to prediction "
    "and the average back, the mean of these two, and of that the mean over these slices. Slices that show "
    "only one contour are left out, and so is all distance across slices.",
}
_DIRECTED = (
    "The average from truth to prediction and the average back, and the mean of these two: it counts both "
    "surfaces the same, however large they are."
)
_DIRECTED_BY = {AREA: _DIRECTED, VOXEL: _DIRECTED, CONTOUR: "By this convention S2S itself."}
_HD = "Hausdorff distance in mm: the largest distance from either surface to the other."
_HD_BY = {
    AREA: _HD,
    VOXEL: _HD,
    CONTOUR: "Hausdorff distance in mm: the largest distance from either contour of a slice to the other, "
    "averaged over the slices that show both.",
}
_NONE = "Not defined by this convention."
_HD95_BY = {
    AREA: "In mm: the smallest distance to the other surface within which at least 95 % of a surface's area "
    "lies; the larger of both directions.",
    VOXEL: "In mm: the 95th percentile of the distances from a surface's voxels to the other, interpolated "
    "between two ranks; the larger of both directions.",
    CONTOUR: _NONE,
}
_SURFACE_DSC_BY = {
    AREA: "The share of both surfaces' area that lies within {} mm of the other surface (also called NSD).",
    VOXEL: "The share of both surfaces' boundary voxels that lie within {} mm of the other surface (also "
    "called NSD).",
    CONTOUR: _NONE,
}
_COUNTED = "counts as DSC, Jaccard and surface DSC 1, as was asked for"
_TOLERANCES_MM = (1, 2, 3)
_DISTANCES = {"s2s_mm": "S2S", "hd95_mm": "HD95", "hd_mm": "HD"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A ``term`` of a page and what it means there."""

    term: str
    meaning: str


def define(
    fields: Collection[str],
    convention: SurfaceConvention = AREA,
    *,
    count_empty: bool = False,
    measured: str = SCAN_GRID,
) -> list[Definition]:
    """The definitions of the numbers ``fields`` (of :class:`CaseScore`) that a page shows.

    ``count_empty``: both empty counted as 1. ``measured``: in which spacing distances are.
    Where a distance is shown, what a surface is and which cases have none is told with it.
    """
    lines = [
        ("DSC", "Sørensen–Dice coefficient, 2 TP / (2 TP + FP + FN).", {"dsc"}),
        ("Precision, recall", "TP / (TP + FP) and TP / (TP + FN).", {"precision", "recall"}),
        ("Jaccard", "TP / (TP + FP + FN), which is DSC / (2 − DSC); also called IoU.", {"jaccard"}),
        (
            "Accuracy",
            "(TP + TN) / all voxels of the scan. Nearly all are background, so it is close to 1 whatever is "
            "predicted.",
            {"accuracy"},
        ),
        (
            "Surface",
            f"Here: {SURFACES[convention]}. All distances are {measured}.",
            {*_DISTANCES, "directed_mean_mm", *(f"surface_dsc_{mm}mm" for mm in _TOLERANCES_MM)},
        ),
        ("S2S", _S2S_BY[convention], {"s2s_mm"}),
        ("Mean of directed averages", _DIRECTED_BY[convention], {"directed_mean_mm"}),
        ("HD", _HD_BY[convention], {"hd_mm"}),
        ("HD95", _HD95_BY[convention], {"hd95_mm"}),
        _surface_dsc(fields, convention),
        ("Centroids apart", "The distance between the centres of mass of both masks in mm.", {"centroid_mm"}),
        (
            "Volume difference",
            "Predicted less true volume, in ml and in % of the true one.",
            {"volume_difference_ml", "volume_difference_percent"},
        ),
        ("Scored", "Both masks have the organ.", set(fields)),
        ("Missed, spurious", _missed(fields, convention), set(fields)),
        (
            "Both empty, not labelled",
            "Neither mask has the organ, or the truth does not say where it is. Not labelled is left out of "
            f"all means; both empty {_COUNTED if count_empty else 'too'}.",
            set(fields),
        ),
    ]
    return [Definition(term=term, meaning=meaning) for term, meaning, of in lines if of & set(fields)]


def s2s_by(convention: SurfaceConvention) -> str:
    """What S2S is by ``convention``."""
    return _S2S_BY[convention]


def _surface_dsc(fields: Collection[str], convention: SurfaceConvention) -> tuple[str, str, set[str]]:
    shown = [mm for mm in _TOLERANCES_MM if f"surface_dsc_{mm}mm" in fields]
    *first, last = map(str, shown or [0])
    within = f"{', '.join(first)} or {last}" if first else last
    meaning = _SURFACE_DSC_BY[convention].format(within)
    return f"Surface DSC, {', '.join([*first, last])} mm", meaning, {f"surface_dsc_{mm}mm" for mm in shown}


def _missed(fields: Collection[str], convention: SurfaceConvention) -> str:
    words = "Only the truth, or only the prediction, has the organ. Both count as DSC 0 in the means"
    shown = [name for field, name in _DISTANCES.items() if field in fields]
    if not shown:
        return f"{words}."
    words += (
        f" and carry no distance: so read {' and '.join(shown[:2])} together with how many are missed or "
        "spurious."
    )
    if convention is CONTOUR:
        words += " A scored organ of which no slice shows both contours has no distance either."
    return words
