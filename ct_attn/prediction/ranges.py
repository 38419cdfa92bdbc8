"""What a model's training scans were like, and whether a scan is like them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ct_attn.strict_model import FrozenModel
from ct_attn.volume import Volume

#: Voxels above it are patient (or table); lung and air say little of a scan's HU.
BODY_HU = -500
HU_PERCENTILES = (5, 50, 95)
#: A scan is looked at in about so many voxels.
SAMPLES = 1_000_000
#: A scan is like the training's when it is beyond their range by no more than this.
SPACING_TOLERANCE = 1.25  # times
EXTENT_TOLERANCE = 1.25  # times
HU_TOLERANCE = 40.0

AXES = ("left-right", "front-back", "head-foot")


class Range(FrozenModel):
    low: float
    high: float


class ScanFacts(FrozenModel):
    """One scan: spacing and extent along R, A and S, and percentiles of the HU inside the body."""

    spacing_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    hu: tuple[float, float, float]


class TrainingRanges(FrozenModel):
    """The least and the largest of each of :class:`ScanFacts` over ``n_cases`` training scans."""

    n_cases: int
    spacing_mm: tuple[Range, Range, Range]
    extent_mm: tuple[Range, Range, Range]
    hu: tuple[Range, Range, Range]


def scan_facts(volume: Volume) -> ScanFacts:
    """The facts of a scan, its HU from evenly spread voxels."""
    grid = volume.grid
    order = [next(axis for axis in range(3) if grid.orientation[axis] in pair) for pair in ("LR", "PA", "IS")]
    r, a, s = (grid.spacing_mm[axis] for axis in order)
    wide, deep, high = (grid.shape[axis] * grid.spacing_mm[axis] for axis in order)
    step = max(1, round((volume.hu.size / SAMPLES) ** (1 / 3)))
    sampled = volume.hu[::step, ::step, ::step]
    inside = sampled[sampled > BODY_HU]
    low, middle, top = np.percentile(inside if inside.size else sampled, HU_PERCENTILES).tolist()
    return ScanFacts(spacing_mm=(r, a, s), extent_mm=(wide, deep, high), hu=(low, middle, top))


def ranges_of(facts: Sequence[ScanFacts]) -> TrainingRanges:
    """The ranges over one scan or more."""
    return TrainingRanges(
        n_cases=len(facts),
        spacing_mm=_span([fact.spacing_mm for fact in facts]),
        extent_mm=_span([fact.extent_mm for fact in facts]),
        hu=_span([fact.hu for fact in facts]),
    )


def joined(ranges: Iterable[TrainingRanges]) -> TrainingRanges:
    """What at least one of several models was trained on."""
    found = list(ranges)

    def join(places: Sequence[tuple[Range, Range, Range]]) -> tuple[Range, Range, Range]:
        first, second, third = (
            Range(low=min(range_.low for range_ in column), high=max(range_.high for range_ in column))
            for column in zip(*places, strict=True)
        )
        return first, second, third

    return TrainingRanges(
        n_cases=sum(one.n_cases for one in found),
        spacing_mm=join([one.spacing_mm for one in found]),
        extent_mm=join([one.extent_mm for one in found]),
        hu=join([one.hu for one in found]),
    )


def unlike_training(facts: ScanFacts, ranges: TrainingRanges) -> list[str]:
    """A sentence for each way in which a scan lies outside of what a model was trained on."""
    warnings = []
    for axis, step, known in zip(AXES, facts.spacing_mm, ranges.spacing_mm, strict=True):
        if not known.low / SPACING_TOLERANCE <= step <= known.high * SPACING_TOLERANCE:
            warnings.append(_sentence(f"voxels {axis} of {step:.3g} mm", known, "mm", digits=3))
    for axis, extent, known in zip(AXES, facts.extent_mm, ranges.extent_mm, strict=True):
        if not known.low / EXTENT_TOLERANCE <= extent <= known.high * EXTENT_TOLERANCE:
            warnings.append(_sentence(f"a field of view {axis} of {extent:.0f} mm", known, "mm"))
    for percent, value, known in zip(HU_PERCENTILES, facts.hu, ranges.hu, strict=True):
        if not known.low - HU_TOLERANCE <= value <= known.high + HU_TOLERANCE:
            warnings.append(_sentence(f"{value:.0f} HU at the {percent} % mark of the body", known, "HU"))
    return warnings


def _sentence(found: str, known: Range, unit: str, *, digits: int = 4) -> str:
    span = f"{known.low:.{digits}g} to {known.high:.{digits}g} {unit}"
    return f"unlike the training scans: {found}, theirs {span}"


def _span(values: Sequence[tuple[float, float, float]]) -> tuple[Range, Range, Range]:
    first, second, third = (Range(low=min(column), high=max(column)) for column in zip(*values, strict=True))
    return first, second, third
