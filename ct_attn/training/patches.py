"""Random training patches, each drawn from its own seed so that it can be drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ct_attn.labels import mirrored_codes
from ct_attn.recipe import Recipe
from ct_attn.training.augmentation import (
    IntensityChanges,
    draw_pose,
    read_region,
    region_positions,
    sample_linearly,
    sample_nearest,
)
from ct_attn.training.cache import CachedCase, MappedCase
from ct_attn.volume import Shape3, in_order


class PatchDataset(Dataset[dict[str, Any]]):
    """The patches that process ``rank`` of ``n_processes`` trains on in one epoch.

    The batches of an epoch are numbered whoever computes them: batch b of this process is
    number ``b * n_processes + rank``, as if one process did all and accumulated their
    gradients. A patch's number counts the patches of all batches, and every random choice
    follows from (seed, epoch, number). So neither the order of loading nor a restart at an
    epoch's boundary changes what is trained on.

    An item holds ``image`` float32 [1, *patch_size] (of slices: they and their
    neighbours), ``label`` uint8 [*patch_size],
    ``known`` bool [C]: the classes that the case labels in full; and for messages
    ``case_id`` and ``start`` int64 [3]: the patch's first voxel on the working grid, before
    it is turned, shifted, zoomed or flipped. A case is mapped while a patch of it is read
    and no longer.
    """

    def __init__(
        self, cases: Sequence[CachedCase], recipe: Recipe, *, epoch: int, rank: int = 0, n_processes: int = 1
    ) -> None:
        self.cases = cases
        self.recipe = recipe
        self.slices = recipe.slices
        self.epoch = epoch
        self.rank = rank
        self.n_processes = n_processes
        self.change_intensity = IntensityChanges(
            recipe.training.augmentation, in_plane=recipe.slices is not None
        )

    def __len__(self) -> int:
        training = self.recipe.training
        return training.batch_size * ceil(training.batches_per_epoch / self.n_processes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch, place = divmod(index, self.recipe.training.batch_size)
        number = (batch * self.n_processes + self.rank) * self.recipe.training.batch_size + place
        rng = np.random.default_rng((self.recipe.training.seed, self.epoch, number))
        case = self.cases[int(rng.integers(len(self.cases)))]
        mapped = case.open()
        start = self._draw_start(mapped, rng)
        image, label = self._read(mapped, start, rng)
        image, label, known = self._flip(image, label, torch.tensor(case.known), rng)
        return {
            "image": self._changed(image, rng),
            "label": label,
            "known": known,
            "case_id": case.case_id,
            "start": torch.tensor(start),
        }

    def _draw_start(self, case: MappedCase, rng: np.random.Generator) -> Shape3:
        """The first voxel of a patch of ``case``, as the recipe's ``patch_centres`` asks for."""
        size = self.recipe.training.patch_size
        if self.recipe.training.patch_centres == "anywhere":
            return draw_start(case.shape, size, rng)
        return patch_start(draw_voxel(case, rng), case.shape, size)

    def _read(self, case: MappedCase, where: Shape3, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """``image`` float32 and ``label`` uint8 [I, J, K] of the patch at ``where``, posed at random.

        The image of slices reaches further, by their neighbours on either side.
        """
        order, halo = self.recipe.axes, 0 if self.slices is None else self.slices.halo
        size, start = in_order(self.recipe.training.patch_size, order), in_order(where, order)
        pose = draw_pose(self.recipe.training.augmentation, rng)
        # Seen with the slices last, so that turns are turns in their plane.
        whole, labels = case.image.permute(order), case.label.permute(order)
        first, n_slices = start[2] - halo, size[2] + 2 * halo
        if pose is None:
            image = read_region(whole, (start[0], start[1], first), (size[0], size[1], n_slices))
            label = read_region(labels, start, size).to(torch.uint8)
        else:
            positions = region_positions(start, size, pose, self._spacing_in_plane_mm(order))
            image = sample_linearly(whole, positions, first, n_slices)
            label = sample_nearest(labels, positions, start[2], size[2])
        back = (order.index(0), order.index(1), order.index(2))
        return image.permute(back), label.permute(back)

    def _spacing_in_plane_mm(self, order: Shape3) -> tuple[float, float]:
        first, second = (self.recipe.preprocessing.spacing_mm[axis] for axis in order[:2])
        assert first is not None  # a recipe has numbers in plane
        assert second is not None
        return first, second

    def _changed(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """``image`` [I, J, K] with its values changed, [1, I, J, K]; of slices in plane only, all alike."""
        if self.slices is None:
            return self.change_intensity(image[None], rng)
        slices_first = image.movedim(self.slices.axis, 0)
        return self.change_intensity(slices_first, rng).movedim(0, self.slices.axis)[None]

    def _flip(
        self, image: Tensor, label: Tensor, known: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each axis that may be flipped is, every second time; sides keep their meaning."""
        allowed = self.recipe.training.augmentation.flip_axes
        drawn = dict(zip("RAS", rng.random(3) < 0.5, strict=True))
        axes = ["RAS".index(axis) for axis in allowed if drawn[axis]]
        if not axes:
            return image, label, known
        image, label = image.flip(axes), label.flip(axes)
        if 0 in axes:
            codes = torch.tensor(mirrored_codes(self.recipe.label_scheme), dtype=torch.uint8)
            label = codes[label.long()]
            known = known[codes[: len(known)].long()]
        return image, label, known


def draw_voxel(case: MappedCase, rng: np.random.Generator) -> Shape3:
    """A voxel of a class drawn evenly from those that ``case`` has, background included."""
    present = case.runs.present
    code = present[int(rng.integers(len(present)))]
    rank = int(rng.integers(int(case.runs.voxels[code])))
    i, j, k = np.unravel_index(case.runs.voxel(code, rank), case.shape)
    return int(i), int(j), int(k)


def draw_start(shape: Shape3, size: Shape3, rng: np.random.Generator) -> Shape3:
    """The first voxel of a patch of ``size`` anywhere within ``shape``, every position equally likely.

    Where the volume is smaller than the patch it lies in the patch's middle.
    """
    lowest = patch_start((0, 0, 0), shape, size)
    room = [max(length - side, 0) for length, side in zip(shape, size, strict=True)]
    i, j, k = (low + int(rng.integers(more + 1)) for low, more in zip(lowest, room, strict=True))
    return i, j, k


def patch_start(centre: Shape3, shape: Shape3, size: Shape3) -> Shape3:
    """The first voxel of a patch of ``size`` around ``centre``, moved to lie within ``shape``.

    Where the volume is smaller than the patch it lies in the patch's middle.
    """
    starts = [
        min(max(middle - side // 2, 0), length - side) if side <= length else -((side - length) // 2)
        for middle, length, side in zip(centre, shape, size, strict=True)
    ]
    return starts[0], starts[1], starts[2]
