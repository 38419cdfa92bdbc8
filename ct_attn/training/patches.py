"""Random training patches, each drawn from its own seed so that it can be drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from math import radians
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAffined,
    RandCropByLabelClassesd,
    RandGaussianNoised,
    RandScaleIntensityFixedMeand,
    RandShiftIntensityd,
    SpatialPadd,
)
from torch.utils.data import Dataset

from ct_attn.recipe import AugmentationConfig, TrainingConfig

KEYS = ("image", "label")


class PatchDataset(Dataset[dict[str, torch.Tensor]]):
    """The patches of one epoch: item n is patch n, of a case and place drawn for it.

    Every random choice follows from (seed, epoch, n), so neither the order of loading
    nor a restart at an epoch's boundary changes what is trained on. An item holds
    ``image`` float32 [1, *patch_size], ``label`` uint8 [*patch_size] and ``known`` bool
    [C]: the classes that the case labels in full.
    """

    def __init__(self, cases: Sequence[Any], config: TrainingConfig, *, n_classes: int, epoch: int) -> None:
        self.cases = cases
        self.config = config
        self.epoch = epoch
        self.draw = random_patch(config, n_classes=n_classes)

    def __len__(self) -> int:
        return self.config.batch_size * self.config.batches_per_epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng((self.config.seed, self.epoch, index))
        case = self.cases[int(rng.integers(len(self.cases)))]
        self.draw.set_random_state(seed=int(rng.integers(2**31)))
        patch = self.draw({key: case[key] for key in KEYS})[0]
        return {
            "image": patch["image"].as_tensor().to(torch.float32),
            "label": patch["label"].as_tensor()[0].to(torch.uint8),
            "known": case["known"],
        }


def random_patch(config: TrainingConfig, *, n_classes: int) -> Compose:
    """From a prepared case to an augmented patch centred on a class drawn evenly."""
    crop = RandCropByLabelClassesd(
        keys=KEYS,
        label_key="label",
        spatial_size=config.patch_size,
        num_classes=n_classes,
        num_samples=1,
        warn=False,
    )
    return Compose(
        [
            SpatialPadd(keys=KEYS, spatial_size=config.patch_size),
            crop,
            *augmentation(config.augmentation, config),
        ]
    )


def augmentation(config: AugmentationConfig, training: TrainingConfig) -> list[Any]:
    """In-plane turn, shift and zoom; noise, brightness, contrast. No mirroring: sides stay sides."""
    in_plane = [side * config.shift_fraction for side in training.patch_size[:2]]
    zoom = (config.zoom[0] - 1, config.zoom[1] - 1)
    return [
        RandAffined(
            keys=KEYS,
            prob=config.affine_probability,
            rotate_range=(0.0, 0.0, radians(config.rotation_degrees)),
            translate_range=(*in_plane, 0.0),
            scale_range=(zoom, zoom, (0.0, 0.0)),
            mode=("bilinear", "nearest"),
            padding_mode="border",
            cache_grid=False,
        ),
        RandGaussianNoised(keys="image", prob=0.5, std=config.noise),
        RandShiftIntensityd(keys="image", prob=0.5, offsets=config.brightness),
        RandScaleIntensityFixedMeand(keys="image", prob=0.5, factors=config.contrast),
    ]
