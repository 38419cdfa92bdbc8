"""A case made small enough to travel inside a page: cropped to its organs, averaged in blocks.

The files are NIfTI, so that any viewer reads them and the patient's directions stay true.
"""

# mypy: allow-untyped-calls
# (nibabel is annotated in part)

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from ct_attn.labels import LabelScheme
from ct_attn.volume import Grid, Mask, Volume, bounding_box

MARGIN_MM = 25
HU_STEP = 4  # finer steps are noise, and noise is what makes the file large
HU_RANGE = (-1024, 2044)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReducedCase:
    """Scan and masks as base64 of ``.nii.gz``; ``step_mm`` is the spacing they came to."""

    scan: str
    truth: str
    predicted: str
    scheme: LabelScheme
    step_mm: tuple[float, float, float]


def reduced_case(
    volume: Volume, truth: Mask, predicted: Mask, *, scheme: LabelScheme, max_voxels: int
) -> ReducedCase:
    """The part of the case around its organs in at most ``max_voxels`` voxels.

    The masks are in the codes of ``scheme``. HU are averaged over blocks of whole voxels
    and rounded to steps of 4; a block's label is what most of it is. Raises
    ``ValueError`` when the grids differ.
    """
    if not all(mask.grid.is_same_as(volume.grid) for mask in (truth, predicted)):
        raise ValueError("scan, truth and prediction are not on one grid")
    box = box_of_organs((truth.labels, predicted.labels), volume.grid.spacing_mm, MARGIN_MM)
    hu = volume.hu[box]
    factors = _factors(hu.shape, volume.grid.spacing_mm, max_voxels)
    grid = _reduced_grid(volume.grid, box, factors, hu.shape)
    mean = _blocks(hu, factors).mean(axis=(1, 3, 5), dtype=np.float32)
    rounded = np.round(np.clip(mean, *HU_RANGE) / HU_STEP) * HU_STEP
    codes = [structure.code for structure in scheme.structures]
    return ReducedCase(
        scan=_packed(rounded.astype(np.int16), grid),
        truth=_packed(_majority(truth.labels[box], factors, codes), grid),
        predicted=_packed(_majority(predicted.labels[box], factors, codes), grid),
        scheme=scheme,
        step_mm=grid.spacing_mm,
    )


def box_of_organs(
    masks: Sequence[NDArray[np.uint8]], spacing_mm: Sequence[float], margin_mm: float
) -> tuple[slice, ...]:
    """The box around all that ``masks`` [I, J, K] label, with a margin; the whole when that is nothing."""
    shape = masks[0].shape
    boxes = [box for box in map(bounding_box, masks) if box is not None]
    if not boxes:
        return tuple(slice(0, size) for size in shape)
    margins = [ceil(margin_mm / step_mm) for step_mm in spacing_mm]
    return tuple(
        slice(
            max(0, min(side.start for side in sides) - margin),
            min(size, max(side.stop for side in sides) + margin),
        )
        for sides, margin, size in zip(zip(*boxes, strict=True), margins, shape, strict=True)
    )


def _factors(shape: Sequence[int], spacing_mm: Sequence[float], max_voxels: int) -> tuple[int, ...]:
    """How many voxels make a block along each axis: towards cubes, and no finer than it must be."""
    step_mm = min(spacing_mm)
    while True:
        factors = tuple(
            min(size, max(1, round(step_mm / step))) for size, step in zip(shape, spacing_mm, strict=True)
        )
        if prod(size // factor for size, factor in zip(shape, factors, strict=True)) <= max_voxels:
            return factors
        step_mm *= 1.05


def _blocks(array: NDArray[Any], factors: Sequence[int]) -> NDArray[Any]:
    """``array`` [I, J, K] as [I', i, J', j, K', k]; what fills no block at the far ends is left out."""
    counts = [size // factor for size, factor in zip(array.shape, factors, strict=True)]
    whole = array[tuple(slice(0, count * factor) for count, factor in zip(counts, factors, strict=True))]
    return whole.reshape([n for pair in zip(counts, factors, strict=True) for n in pair])


def _majority(labels: NDArray[np.uint8], factors: Sequence[int], codes: Sequence[int]) -> NDArray[np.uint8]:
    shares = np.stack(
        [(_blocks(labels, factors) == code).mean(axis=(1, 3, 5), dtype=np.float32) for code in (0, *codes)]
    )
    return np.asarray(np.array([0, *codes], dtype=np.uint8)[shares.argmax(axis=0)])


def _reduced_grid(grid: Grid, box: Sequence[slice], factors: Sequence[int], shape: Sequence[int]) -> Grid:
    """Blocks have their place at the middle of the voxels they are made of."""
    to_voxels = np.diag([*map(float, factors), 1.0])
    to_voxels[:3, 3] = [part.start + (factor - 1) / 2 for part, factor in zip(box, factors, strict=True)]
    i, j, k = (size // factor for size, factor in zip(shape, factors, strict=True))
    return Grid(shape=(i, j, k), affine=grid.affine @ to_voxels)


def _packed(array: NDArray[Any], grid: Grid) -> str:
    image = Nifti1Image(array, grid.affine)
    image.header.set_xyzt_units("mm")
    return b64encode(gzip.compress(image.to_bytes(), 9, mtime=0)).decode("ascii")
