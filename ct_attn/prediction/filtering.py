"""Parts of an organ that are too small to be it, taken out of a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from ct_attn.errors import UserError
from ct_attn.labels import LabelScheme
from ct_attn.strict_model import FrozenModel
from ct_attn.volume import Mask, bounding_box

#: Voxels that touch at a corner belong to one part.
_TOUCHING = np.ones((3, 3, 3), dtype=bool)

FORM = "off, auto, largest, NUMBERml, largest+NUMBERml, or organ=... of these with commas between"


class OrganFilter(FrozenModel):
    """What is kept of an organ: its largest part (one per organ of a union), parts of ``minimum_ml``."""

    keep_largest: bool = False
    minimum_ml: float = Field(default=0.0, ge=0)

    @property
    def does_anything(self) -> bool:
        return self.keep_largest or self.minimum_ml > 0

    def describe(self) -> str:
        parts = ["largest"] if self.keep_largest else []
        parts += [f"{self.minimum_ml:g}ml"] if self.minimum_ml else []
        return "+".join(parts) or "off"


class FilterEffect(FrozenModel):
    """What a filter did to one organ."""

    filter: str
    removed_parts: int
    removed_ml: float


def parse_filter(text: str, scheme: LabelScheme) -> dict[str, OrganFilter]:
    """The filter of each organ in ``largest``, ``2ml`` or ``kidney=largest+2ml,spleen=off``.

    Raises :class:`UserError` when it is neither, or names an organ ``scheme`` lacks.
    """
    try:
        if "=" not in text:
            return dict.fromkeys(scheme.names, _parse_one(text))
        pairs = [part.split("=", 1) for part in text.split(",")]
        chosen = {name.strip(): _parse_one(value) for name, value in pairs}
    except ValueError as error:
        raise UserError(f"--filter {text}", expected=FORM, found=str(error), remedy="mend it") from error
    unknown = sorted(set(chosen) - set(scheme.names))
    if unknown:
        raise UserError(
            f"--filter {text}",
            expected=f"organs of the model ({', '.join(scheme.names)})",
            found=", ".join(unknown),
            remedy="name one of these",
        )
    return chosen


def _parse_one(text: str) -> OrganFilter:
    keep_largest, minimum_ml = False, 0.0
    for part in text.strip().split("+"):
        if part == "largest":
            keep_largest = True
        elif part.endswith("ml"):
            minimum_ml = float(part.removesuffix("ml"))
        elif part != "off":
            raise ValueError(f"{part!r}")
    return OrganFilter(keep_largest=keep_largest, minimum_ml=minimum_ml)


def filter_mask(
    mask: Mask, scheme: LabelScheme, filters: Mapping[str, OrganFilter]
) -> tuple[Mask, dict[str, FilterEffect]]:
    """``mask`` without the parts that ``filters`` (by organ) reject, and what was rejected.

    Organs without a filter, or absent, stay as they are and have no entry.
    """
    labels, effects = mask.labels, {}
    for structure in scheme.structures:
        chosen = filters.get(structure.name)
        if chosen is None or not chosen.does_anything:
            continue
        organ = mask.labels == structure.code
        box = bounding_box(organ)
        if box is None:
            continue
        rejected, n_parts = rejected_parts(
            organ[box], chosen, n_largest=len(structure.organs), voxel_mm3=mask.grid.voxel_volume_mm3
        )
        if n_parts:
            labels = labels.copy() if labels is mask.labels else labels
            labels[box][rejected] = 0
        effects[structure.name] = FilterEffect(
            filter=chosen.describe(),
            removed_parts=n_parts,
            removed_ml=float(np.count_nonzero(rejected)) * mask.grid.voxel_volume_mm3 / 1000,
        )
    return Mask(labels=labels, grid=mask.grid), effects


def rejected_parts(
    organ: NDArray[np.bool_], chosen: OrganFilter, *, n_largest: int, voxel_mm3: float
) -> tuple[NDArray[np.bool_], int]:
    """The voxels [I, J, K] of ``organ`` that ``chosen`` rejects, and how many parts they make."""
    parts, sizes = connected_parts(organ)
    kept = kept_parts(sizes, chosen, n_largest=n_largest, voxel_mm3=voxel_mm3)
    return np.concatenate([[False], ~kept])[parts], int(np.count_nonzero(~kept))


def kept_parts(
    sizes: Sequence[int], chosen: OrganFilter, *, n_largest: int, voxel_mm3: float
) -> NDArray[np.bool_]:
    """Which of the parts with ``sizes`` (voxels) ``chosen`` keeps.

    ``n_largest`` parts count as the largest; of two of one size the first stays.
    """
    voxels = np.asarray(sizes, dtype=np.int64)
    kept = voxels * voxel_mm3 / 1000 >= chosen.minimum_ml
    if chosen.keep_largest:
        kept[np.argsort(-voxels, kind="stable")[n_largest:]] = False
    return kept


def connected_parts(organ: NDArray[np.bool_]) -> tuple[NDArray[np.int32], Sequence[int]]:
    """Parts of ``organ`` numbered from 1 [I, J, K], and the voxels of each.

    Parts are connected by faces, edges or corners.
    """
    parts, _ = ndimage.label(organ, structure=_TOUCHING)
    return parts, np.bincount(parts.ravel())[1:].tolist()
