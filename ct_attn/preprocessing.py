"""From a scan to what a network sees: one function for training and for inference.

The working grid has the axes of the scan, reordered and flipped to the closest of
R, A and S, at right angles, with the spacing of the config, around the same centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, ScaleIntensityRange, SpatialResample
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch.nn import functional

from ct_attn.strict_model import StrictModel
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
            raise ValueError("hu_window: the first value must lie below the second")
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """``image`` float32 [I', J', K'] in 0 to 1 on ``grid``, made from a scan on ``source_grid``."""

    image: NDArray[np.float32]
    grid: Grid
    source_grid: Grid


def prepare(volume: Volume, config: PreprocessingConfig) -> Prepared:
    """``volume`` resampled trilinearly onto the working grid, its HU window scaled to 0-1."""
    grid = working_grid(volume.grid, config)
    image = _canonical(volume.hu, volume.grid)
    if config.antialias:
        image = _average_blocks(image, grid.spacing_mm)
    low, high = config.hu_window
    scale = ScaleIntensityRange(a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)
    array = np.asarray(scale(_resample(image, grid, mode="bilinear"))[0], dtype=np.float32)
    return Prepared(image=array, grid=grid, source_grid=volume.grid)


def prepare_mask(mask: Mask, config: PreprocessingConfig) -> Mask:
    """``mask`` on the same working grid; every voxel takes the label at its centre."""
    grid = working_grid(mask.grid, config)
    labels = _resample(_canonical(mask.labels, mask.grid), grid, mode="nearest")
    return Mask(labels=np.asarray(labels[0].round(), dtype=np.uint8), grid=grid)


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


def _canonical(array: NDArray[np.generic], grid: Grid) -> MetaTensor:
    """``array`` as float32 [1, R, A, S] with its affine."""
    copied = np.array(array, dtype=np.float32, order="C")  # torch warns of arrays it must not write to
    tensor = torch.from_numpy(copied)[None]
    labels = (("L", "R"), ("P", "A"), ("I", "S"))
    turned = Orientation(axcodes="RAS", labels=labels)(MetaTensor(tensor, affine=torch.tensor(grid.affine)))
    return cast(MetaTensor, turned)


def _average_blocks(image: MetaTensor, spacing_mm: tuple[float, float, float]) -> MetaTensor:
    """``image`` averaged over the largest whole blocks no longer than ``spacing_mm``."""
    affine = np.asarray(image.affine)
    steps_mm = np.linalg.norm(affine[:3, :3], axis=0)
    ratio = np.floor(np.array(spacing_mm) / steps_mm + 1e-3).astype(int)
    block = np.clip(ratio, 1, np.array(image.shape[1:]))
    averaged = functional.avg_pool3d(image.as_tensor(), tuple(block.tolist()), ceil_mode=True)
    coarse = affine.copy()
    coarse[:3, :3] *= block
    coarse[:3, 3] += affine[:3, :3] @ ((block - 1) / 2)
    return MetaTensor(averaged, affine=torch.tensor(coarse))


def _resample(image: MetaTensor, grid: Grid, *, mode: str) -> torch.Tensor:
    resampler = SpatialResample(mode=mode, padding_mode="border", align_corners=False, dtype=np.float32)
    resampled = resampler(image, dst_affine=torch.tensor(grid.affine), spatial_size=grid.shape)
    return cast(MetaTensor, resampled).as_tensor()
