"""What a data set's scans are like: sizes, spacings, HU of the organs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ct_attn.volume import Mask, Spacing3, Volume, bounding_box

#: Enough voxels of a case to know the distribution of its organs' HU.
SAMPLES_PER_CASE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFacts:
    """One case along R, A and S: spacing, extent, the box around all organs; HU inside the organs."""

    spacing_mm: Spacing3
    extent_mm: Spacing3
    organs_mm: Spacing3
    hu: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """A data set in numbers; medians over the cases, per axis R, A, S."""

    n_cases: int
    spacing_mm: Spacing3
    extent_mm: Spacing3
    organs_mm: Spacing3
    hu_window: tuple[float, float]


def examine_case(volume: Volume, mask: Mask, order: Sequence[int], rng: np.random.Generator) -> CaseFacts:
    """The facts of one case; ``order`` says which of its axes run along R, A and S."""
    spacing = [volume.grid.spacing_mm[axis] for axis in order]
    extent = [volume.grid.shape[axis] * volume.grid.spacing_mm[axis] for axis in order]
    inside = np.flatnonzero(mask.labels)
    box = bounding_box(mask.labels) or tuple(slice(0, size) for size in mask.grid.shape)
    organs = [(box[axis].stop - box[axis].start) * volume.grid.spacing_mm[axis] for axis in order]
    chosen = rng.choice(inside, min(SAMPLES_PER_CASE, inside.size), replace=False) if inside.size else inside
    return CaseFacts(
        spacing_mm=_three(spacing),
        extent_mm=_three(extent),
        organs_mm=_three(organs),
        hu=volume.hu.ravel()[chosen].astype(np.float32),
    )


def summarise(facts: Sequence[CaseFacts]) -> Fingerprint:
    """The fingerprint of a data set from all its cases.

    The HU window reaches from the 0.5th to the 99.5th percentile of what lies inside the
    organs, as nnU-Net clips (Isensee et al. 2021), rounded outwards to tens.
    """
    hu = np.concatenate([fact.hu for fact in facts])
    low, high = np.percentile(hu, (0.5, 99.5)) if hu.size else (-160.0, 240.0)
    return Fingerprint(
        n_cases=len(facts),
        spacing_mm=_median([fact.spacing_mm for fact in facts]),
        extent_mm=_median([fact.extent_mm for fact in facts]),
        organs_mm=_median([fact.organs_mm for fact in facts]),
        hu_window=(float(np.floor(low / 10) * 10), float(np.ceil(high / 10) * 10)),
    )


def _median(values: Sequence[Spacing3]) -> Spacing3:
    return _three(np.median(np.array(values), axis=0).tolist())


def _three(values: Sequence[float]) -> Spacing3:
    first, second, third = (float(value) for value in values)
    return first, second, third
