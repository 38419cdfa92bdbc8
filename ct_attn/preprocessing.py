"""From a scan to what a network sees: one function for training and for inference.

The working grid has the axes of the scan, reordered and flipped to the closest of
R, A and S, at right angles, with the spacing of the config, around the same centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import ndimage

from ct_attn.interpolation import is_separable
from ct_attn.regrid import nearest_on
from ct_attn.strict_model import FieldError, StrictModel
from ct_attn.volume import Grid, Mask, Shape3, Volume

SpacingMm = Annotated[float, Field(gt=0)]


class PreprocessingConfig(StrictModel):
    """How a scan becomes a network's input, the same for training and inference."""

    spacing_mm: tuple[SpacingMm | None, SpacingMm | None, SpacingMm | None] = (2.0, 2.0, 2.0)
    """Voxel size of the working grid along R, A and S. null keeps the scan's own: across slices,
    which are resampled in plane only.
    """
    hu_window: tuple[float, float] = (-160.0, 240.0)
    """HU that become 0 and 1; values outside are clipped."""
    antialias: bool = True
    """Average whole blocks of voxels before sampling a coarser grid, which lowers noise that
    point sampling would keep.
    """

    @model_validator(mode="after")
    def _window_opens(self) -> PreprocessingConfig:
        if self.hu_window[0] >= self.hu_window[1]:
            raise FieldError("hu_window", "the first value must lie below the second")
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """``image`` float32 [I', J', K'] in 0 to 1 on ``grid``, made from a scan on ``source_grid``."""

    image: NDArray[np.float32]
    grid: Grid
    source_grid: Grid


def prepare(volume: Volume, config: PreprocessingConfig) -> Prepared:
    """``volume`` resampled trilinearly onto the working grid, its HU window scaled to 0-1."""
    return scaled(resampled(volume, config), volume.grid, config)


def resampled(volume: Volume, config: PreprocessingConfig) -> Volume:
    """``volume`` in HU (float32) on the working grid.

    Averaged and sampled one axis after the other, unless the scan is sheared. Beyond the
    scan's outermost voxel centres their value goes on.
    """
    grid = working_grid(volume.grid, config)
    turned, canonical = _canonical(volume.hu, volume.grid)
    block = _block(canonical, grid.spacing_mm) if config.antialias else (1, 1, 1)
    mapping = np.linalg.inv(_blocks_grid(canonical, block)) @ grid.affine
    sample = _sample_separably if is_separable(mapping) else _sample_anywhere
    return Volume(hu=sample(turned, block, mapping, grid.shape), grid=grid)


def scaled(working: Volume, source_grid: Grid, config: PreprocessingConfig) -> Prepared:
    """The HU of ``working`` with the window of ``config`` brought to 0-1 and clipped."""
    low, high = config.hu_window
    image = (working.hu - np.float32(low)) * np.float32(1 / (high - low))
    np.clip(image, 0, 1, out=image)
    return Prepared(image=image.astype(np.float32, copy=False), grid=working.grid, source_grid=source_grid)


def prepare_mask(mask: Mask, config: PreprocessingConfig) -> Mask:
    """``mask`` on the same working grid; every voxel takes the label at its centre."""
    grid = working_grid(mask.grid, config)
    turned, canonical = _canonical(mask.labels, mask.grid)  # so that copies turned otherwise round alike
    return nearest_on(Mask(labels=turned, grid=canonical), grid, beyond="border")


def working_grid(source: Grid, config: PreprocessingConfig) -> Grid:
    """The grid a network sees of a scan on ``source``."""
    canonical = _canonical_grid(source)
    directions = _closest_rotation(canonical.directions)
    own_mm = np.array(canonical.spacing_mm)
    wanted = zip(config.spacing_mm, own_mm, strict=True)
    spacing_mm = np.array([own if step is None else step for step, own in wanted])
    extent_mm = np.array(canonical.shape) * own_mm
    sizes = np.maximum(1, np.round(extent_mm / spacing_mm)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing_mm
    affine[:3, 3] = canonical.centre_mm - affine[:3, :3] @ ((sizes - 1) / 2)
    return Grid(shape=(int(sizes[0]), int(sizes[1]), int(sizes[2])), affine=affine)


def canonical_axes(grid: Grid) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """For R, A and S in turn: which axis of ``grid`` runs along it, and whether it runs the other way."""
    codes = grid.orientation
    axes = [next(axis for axis in range(3) if codes[axis] in pair) for pair in ("LR", "PA", "IS")]
    flipped = [codes[axis] in "LPI" for axis in axes]
    return (axes[0], axes[1], axes[2]), (flipped[0], flipped[1], flipped[2])


def _canonical_grid(grid: Grid) -> Grid:
    axes, flipped = canonical_axes(grid)
    affine = np.array(grid.affine)
    affine[:3, :3] = grid.affine[:3, list(axes)]
    shape: Shape3 = (grid.shape[axes[0]], grid.shape[axes[1]], grid.shape[axes[2]])
    for axis in range(3):
        if flipped[axis]:
            affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
            affine[:3, axis] *= -1
    return Grid(shape=shape, affine=affine)


def _closest_rotation(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The axes at right angles that are closest to ``directions`` (its polar factor)."""
    left, _, right = np.linalg.svd(directions)
    return np.asarray(left @ right)


def _canonical(array: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], Grid]:
    """A view of ``array`` with its axes along R, A and S, and where its voxels lie."""
    axes, flipped = canonical_axes(grid)
    turned = np.flip(array.transpose(axes), tuple(axis for axis in range(3) if flipped[axis]))
    return turned, _canonical_grid(grid)


def _block(grid: Grid, spacing_mm: tuple[float, float, float]) -> Shape3:
    """The voxels of the largest whole block no longer than ``spacing_mm``, at least one."""
    ratio = np.floor(np.array(spacing_mm) / np.array(grid.spacing_mm) + 1e-3).astype(int)
    i, j, k = np.clip(ratio, 1, np.array(grid.shape))
    return int(i), int(j), int(k)


def _blocks_grid(grid: Grid, block: Shape3) -> NDArray[np.float64]:
    """The affine of the centres of blocks of ``grid``."""
    coarse = np.array(grid.affine)
    coarse[:3, :3] *= block
    coarse[:3, 3] += grid.affine[:3, :3] @ ((np.array(block) - 1) / 2)
    return coarse


def _sample_separably(
    array: NDArray[np.generic], block: Shape3, mapping: NDArray[np.float64], shape: Shape3
) -> NDArray[np.float32]:
    """``array`` averaged over blocks and sampled at ``mapping`` of every index of ``shape``.

    One slice of ``array`` at a time, so that no float copy of it is held. Neighbours are
    added by hand: as matrices they would be zeros nearly everywhere.
    """
    positions = [mapping[axis, axis] * np.arange(size) + mapping[axis, 3] for axis, size in enumerate(shape)]
    planes = np.empty((array.shape[2], shape[0], shape[1]), dtype=np.float32)
    for k in range(array.shape[2]):
        plane = np.ascontiguousarray(array[:, :, k], dtype=np.float32)
        rows = _sample_along(plane, block[0], positions[0])
        planes[k] = _sample_along(np.ascontiguousarray(rows.T), block[1], positions[1]).T
    # The result is [K', I', J'], of which the caller sees [I', J', K'].
    return np.moveaxis(_sample_along(planes, block[2], positions[2]), 0, 2)


def _sample_along(
    array: NDArray[np.float32], side: int, positions: NDArray[np.float64]
) -> NDArray[np.float32]:
    """``array`` averaged over blocks of ``side`` along its first axis, then sampled at ``positions``."""
    if side > 1:
        begins = np.arange(0, len(array), side)
        counts = np.diff(np.append(begins, len(array))).astype(np.float32)
        means = np.add.reduceat(array, begins) / counts.reshape(-1, *[1] * (array.ndim - 1))
        array = np.asarray(means, dtype=np.float32)
    held = np.clip(positions, 0, len(array) - 1)
    lower = held.astype(np.intp)
    share = (held - lower).astype(np.float32).reshape(-1, *[1] * (array.ndim - 1))
    sampled = array[lower] * (1 - share)
    sampled += array[np.minimum(lower + 1, len(array) - 1)] * share
    return np.asarray(sampled, dtype=np.float32)


def _sample_anywhere(
    array: NDArray[np.generic], block: Shape3, mapping: NDArray[np.float64], shape: Shape3
) -> NDArray[np.float32]:
    """As :func:`_sample_separably`, for any pair of grids (a sheared scan, say)."""
    blocks = np.asarray(array, dtype=np.float32)
    for axis, side in enumerate(block):
        begins = np.arange(0, array.shape[axis], side)
        sums = np.add.reduceat(blocks, begins, axis=axis)
        counts = np.diff(np.append(begins, array.shape[axis])).astype(np.float32)
        blocks = np.asarray(sums / np.expand_dims(counts, tuple({0, 1, 2} - {axis})), dtype=np.float32)
    sampled = ndimage.affine_transform(
        blocks, mapping[:3, :3], mapping[:3, 3], output_shape=shape, order=1, mode="nearest"
    )
    return np.asarray(sampled, dtype=np.float32)
