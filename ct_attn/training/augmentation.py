"""Random changes to a patch: where it is read from, which way round, and what it is worth.

Turn, shift and zoom are done while the patch is read, so that what comes into it from
outside is the patient and no padding. They stay in the axial plane: one 2D sampling
serves all slices, where MONAI's RandAffine samples in 3D. What changes values only is
MONAI's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import radians
from typing import Any, cast

import numpy as np
import torch
from monai.transforms import (
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensityFixedMean,
    RandShiftIntensity,
    RandSimulateLowResolution,
)
from monai.transforms.transform import RandomizableTransform
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ct_attn.training_config import AugmentationConfig
from ct_attn.volume import Shape3

#: Slices that are sampled at a time.
SLAB = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """How the region a patch is read from lies in plane, relative to the patch.

    ``angle_rad`` from the first axis to the second; ``shift`` in patch sides, ``zoom`` in
    sides of the region per side of the patch, each along both axes.
    """

    angle_rad: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    zoom: tuple[float, float] = (1.0, 1.0)


def draw_pose(config: AugmentationConfig, rng: np.random.Generator) -> Pose | None:
    """A pose within the bounds of ``config``, or None for a patch that stays as it is."""
    changed = rng.random() < config.affine_probability
    limit = radians(config.rotation_degrees)
    angle = rng.uniform(-limit, limit)
    shift = rng.uniform(-config.shift_fraction, config.shift_fraction, size=2)
    zoom = rng.uniform(*config.zoom, size=2)
    if not changed:
        return None
    return Pose(
        angle_rad=float(angle),
        shift=(float(shift[0]), float(shift[1])),
        zoom=(float(zoom[0]), float(zoom[1])),
    )


def region_positions(
    start: Shape3, size: Shape3, pose: Pose, spacing_mm: tuple[float, float]
) -> NDArray[np.float64]:
    """Where each in-plane place of a patch is read, in voxels of the volume: [I, J, 2].

    ``start`` and ``size`` are the patch as it would lie without ``pose``. The turn is one
    in mm, so voxels need not be square.
    """
    steps = np.array(spacing_mm)
    sides = np.array(size[:2])
    middle = np.array(start[:2]) + (sides - 1) / 2 + np.array(pose.shift) * sides
    cos, sin = np.cos(pose.angle_rad), np.sin(pose.angle_rad)
    turn = np.array([[cos, -sin], [sin, cos]]) * steps / steps[:, None]
    offsets = np.stack(np.meshgrid(*((np.arange(n) - (n - 1) / 2) for n in sides), indexing="ij"), axis=-1)
    return np.asarray(middle + (offsets * np.array(pose.zoom)) @ turn.T)


def read_region(array: Tensor, start: Shape3, size: Shape3) -> Tensor:
    """The box of ``size`` from ``start`` of ``array`` [I, J, K], a float32 copy; 0 outside it."""
    low = [max(begin, 0) for begin in start]
    high = [min(begin + side, end) for begin, side, end in zip(start, size, array.shape, strict=True)]
    inside = array[tuple(slice(first, max(first, end)) for first, end in zip(low, high, strict=True))]
    if tuple(inside.shape) == size:
        return inside.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    region = torch.zeros(size)
    if inside.numel():
        place = zip(start, low, high, strict=True)
        region[tuple(slice(first - begin, end - begin) for begin, first, end in place)] = inside
    return region


def sample_linearly(array: Tensor, positions: NDArray[np.float64], start_k: int, size_k: int) -> Tensor:
    """``array`` [I, J, K] at ``positions`` [I', J', 2] in each of ``size_k`` slices: float32 [I', J', K'].

    Only the box that holds the positions is read; outside ``array`` it is 0.
    """
    last = np.array(array.shape[:2]) - 1
    low = np.clip(np.floor(positions.min(axis=(0, 1))), 0, last).astype(int)
    high = np.clip(np.ceil(positions.max(axis=(0, 1))), 0, last).astype(int)
    sides = high - low + 1
    # grid_sample counts from -1 to 1 between the outer edges of the outer voxels, last axis first.
    grid = torch.from_numpy((2 * (positions - low) + 1) / sides - 1).to(torch.float32).flip(-1)[None]
    sampled = torch.empty(*positions.shape[:2], size_k)
    for done in range(0, size_k, SLAB):  # a slab at a time keeps the copies small
        part = sampled[..., done : done + SLAB]
        start, size = (
            (int(low[0]), int(low[1]), start_k + done),
            (int(sides[0]), int(sides[1]), part.shape[2]),
        )
        slices = read_region(array, start, size).permute(2, 0, 1)[None]  # the slices are channels
        values = functional.grid_sample(
            slices, grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )
        part.copy_(values[0].permute(1, 2, 0))
    return sampled


def sample_nearest(array: Tensor, positions: NDArray[np.float64], start_k: int, size_k: int) -> Tensor:
    """The same with the value of the nearest voxel, in the type of ``array``."""
    nearest = torch.from_numpy(np.rint(positions).astype(np.int64))
    last = torch.tensor(array.shape[:2]) - 1
    i, j = nearest.clamp(min=torch.zeros_like(last), max=last).unbind(-1)
    low, high = max(start_k, 0), max(start_k, 0, min(start_k + size_k, array.shape[2]))
    values = array[:, :, low:high][i, j]
    values[((nearest < 0) | (nearest > last)).any(dim=-1)] = 0
    return functional.pad(values, [low - start_k, size_k - (low - start_k) - values.shape[2]])


class RandNoise(RandGaussianNoise):
    """MONAI's noise, drawn by torch as float32 and not, more slowly, by numpy as float64."""

    def randomize(self, img: Any, mean: float | None = None) -> None:
        RandomizableTransform.randomize(self, None)
        if self._do_transform:
            std = self.R.uniform(0, self.std)
            generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
            self.noise = (torch.randn(img.shape, generator=generator) * std).numpy()


class IntensityChanges:
    """The changes of ``config`` that leave every voxel where it is.

    Each has a seed of its own, so switching one off leaves what the others draw. With
    ``in_plane``, images are slices as channels, [K, I, J].
    """

    def __init__(self, config: AugmentationConfig, *, in_plane: bool = False) -> None:
        often, seldom = config.intensity_probability, config.resolution_probability
        blur = (0.0, config.blur_voxels)
        self.changes: dict[str, RandomizableTransform] = {
            "low_resolution": RandSimulateLowResolution(
                prob=seldom,
                zoom_range=(1 / (1 + config.low_resolution), 1.0),
                upsample_mode="bilinear" if in_plane else "trilinear",
            ),
            "blur_voxels": RandGaussianSmooth(prob=seldom, sigma_x=blur, sigma_y=blur, sigma_z=blur),
            "noise": RandNoise(prob=often, std=config.noise),
            "brightness": RandShiftIntensity(prob=often, offsets=config.brightness),
            "contrast": RandScaleIntensityFixedMean(prob=often, factors=config.contrast),
            "gamma": RandAdjustContrast(prob=often, gamma=(1 / (1 + config.gamma), 1 + config.gamma)),
        }
        self.switched_on = {name for name in self.changes if getattr(config, name) > 0}

    def __call__(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """``image`` float32 [1, I, J, K], changed; the same ``rng`` state gives the same."""
        seeds = rng.integers(2**31, size=len(self.changes))
        for (name, change), seed in zip(self.changes.items(), seeds, strict=True):
            if name in self.switched_on:
                change.set_random_state(seed=int(seed))
                image = change(image)
        return cast(Tensor, convert_to_tensor(image, track_meta=False))
