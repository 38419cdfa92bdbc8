"""What a case measures, and what about it is worth a look before it is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ct_attn.labels import DISK_SCHEME
from ct_attn.strict_model import FrozenModel
from ct_attn.volume import Grid, Mask, Volume, bounding_box

#: Volumes beyond which a pancreas is marked; in Pancreas-CT they are reported as 42 to 150 ml.
PANCREAS_ML = (30.0, 200.0)
#: A part this large, against its organ, is no crumb left over from drawing.
LARGE_PART = 0.1
#: Scanners write values such as -2048 where they did not look; air is -1000.
PADDING_HU = -1100

_SAMPLE = 4_000_000  # voxels that percentiles are taken of


class OrganFacts(FrozenModel):
    """An organ's label: how much, how bright, in how many large parts, at which borders of the scan.

    ``centre_mm`` is its centre of mass, RAS; ``borders`` holds letters such as "S" for
    the scan's upper end, and "padding" where it reaches beyond the field of view.
    """

    organ: str
    volume_ml: float
    mean_hu: float
    centre_mm: tuple[float, float, float]
    large_parts: int
    borders: tuple[str, ...]


class CaseFacts(FrozenModel):
    """What is measured of a scan and its label; percentiles are those of a sample of voxels."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    hu_min: float
    hu_p01: float
    hu_median: float
    hu_p99: float
    hu_max: float
    padding_voxels: int
    organs: tuple[OrganFacts, ...]


def measure(volume: Volume, mask: Mask) -> CaseFacts:
    """The facts of a case whose ``mask`` is in the codes of ``DISK_SCHEME``, on the scan's grid."""
    flat = volume.hu.ravel(order="K")
    p01, median, p99 = np.percentile(flat[:: max(1, flat.size // _SAMPLE)], (1, 50, 99))
    return CaseFacts(
        shape=volume.grid.shape,
        spacing_mm=_rounded(volume.grid.spacing_mm, 6),
        orientation=volume.grid.orientation,
        hu_min=float(flat.min()),
        hu_p01=float(p01),
        hu_median=float(median),
        hu_p99=float(p99),
        hu_max=float(flat.max()),
        padding_voxels=int(np.count_nonzero(flat <= PADDING_HU)),
        organs=tuple(
            facts
            for structure in DISK_SCHEME.structures
            if (facts := _measure_organ(volume, mask, structure.code, structure.name)) is not None
        ),
    )


def _measure_organ(volume: Volume, mask: Mask, code: int, name: str) -> OrganFacts | None:
    box = bounding_box(mask.labels == code)
    if box is None:
        return None
    member = mask.labels[box] == code
    inside = volume.hu[box][member].astype(np.float32)
    centre = np.array(ndimage.center_of_mass(member)) + [one.start for one in box]
    borders = _borders(box, volume.grid)
    if (inside <= PADDING_HU).any():
        borders = (*borders, "padding")
    return OrganFacts(
        organ=name,
        volume_ml=round(float(np.count_nonzero(member)) * volume.grid.voxel_volume_mm3 / 1000, 3),
        mean_hu=round(float(inside.mean(dtype=np.float64)), 2),
        centre_mm=_rounded(volume.grid.to_mm(centre), 2),
        large_parts=_count_large_parts(member),
        borders=borders,
    )


def _rounded(values: Sequence[float] | NDArray[np.float64], digits: int) -> tuple[float, float, float]:
    x, y, z = (round(float(value), digits) for value in values)
    return x, y, z


def _borders(box: tuple[slice, ...], grid: Grid) -> tuple[str, ...]:
    """The ends of the scan that ``box`` reaches, by the direction they lie in."""
    opposite = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
    reached = []
    for axis, (one, letter) in enumerate(zip(box, grid.orientation, strict=True)):
        if one.start == 0:
            reached.append(opposite[letter])
        if one.stop == grid.shape[axis]:
            reached.append(letter)
    return tuple(reached)


def _count_large_parts(member: NDArray[np.bool_]) -> int:
    parts, _ = ndimage.label(member, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts[member])
    return int((sizes >= LARGE_PART * sizes.sum()).sum())


def marks(facts: CaseFacts, labelled_organs: Sequence[str], made_for: Sequence[str]) -> list[str]:
    """What is worth a look, in plain words; ``made_for`` are the organs the data set labels."""
    return [
        *(f"{_plain(organ)} is empty" for organ in made_for if organ not in labelled_organs),
        *(mark for organ in facts.organs for mark in _organ_marks(organ)),
        *_side_marks({organ.organ: organ for organ in facts.organs}),
    ]


def _organ_marks(organ: OrganFacts) -> Iterator[str]:
    name = _plain(organ.organ)
    low, high = PANCREAS_ML
    if organ.organ == "pancreas" and not low <= organ.volume_ml <= high:
        yield f"{name} of {organ.volume_ml:.0f} ml"
    if organ.borders:
        yield f"{name} touches the border of the field of view ({', '.join(organ.borders)})"
    if organ.large_parts > 1:
        yield f"{name} in {organ.large_parts} large parts"


def _side_marks(organs: dict[str, OrganFacts]) -> Iterator[str]:
    """Organs on the wrong side of each other: a mirrored scan, swapped codes, or a rare patient."""
    for left, right in (("left_kidney", "right_kidney"), ("spleen", "pancreas")):
        if left in organs and right in organs and organs[left].centre_mm[0] > organs[right].centre_mm[0]:
            yield f"{_plain(left)} lies right of the {_plain(right)}"


def _plain(organ: str) -> str:
    return organ.replace("_", " ")
