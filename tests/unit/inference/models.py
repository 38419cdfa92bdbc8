"""Small trained models in files, and backends that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ct_attn.checkpoint import Checkpoint, save_checkpoint
from ct_attn.inference.backends.backend import OutOfMemoryError
from ct_attn.network.build import build_network
from ct_attn.network.configs import AttentionUNetConfig
from ct_attn.preprocessing import PreprocessingConfig
from ct_attn.recipe import InferenceConfig, Recipe
from ct_attn.training_config import TrainingConfig

SIDED = {organ: (organ,) for organ in ("left_kidney", "right_kidney")}


def recipe(**changes) -> Recipe:
    fields = {
        "name": "small",
        "targets": {"spleen": ("spleen",)},
        "preprocessing": PreprocessingConfig(spacing_mm=(1.5, 1.5, 2), hu_window=(0, 100)),
        "network": AttentionUNetConfig(widths=(2, 3, 4)),
        "training": TrainingConfig(patch_size=(16, 16, 8)),
        "inference": InferenceConfig(precision="fp32"),
    }
    return Recipe(**{**fields, **changes})


def saved(folder: Path, seed: int = 0, **changes) -> Path:
    """A model folder; its network's normalisation has seen data."""
    made = recipe(**changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(made.network, in_channels=1, n_classes=made.n_outputs, slices=made.slices)
        network(torch.rand(2, 1, *(4 * side for side in made.size_multiple)))
    save_checkpoint(Checkpoint(weights=network.state_dict(), recipe=made, provenance={}), folder)
    return folder


class Fake:
    """A backend that computes a function of the window and fails above so many voxels."""

    precision = "fp32"
    joins_maps = True

    def __init__(self, function, most_voxels: int | None = None) -> None:
        self.function = function
        self.most_voxels = most_voxels
        self.shapes: list[tuple[int, ...]] = []
        self.name = "fake"

    def logits(self, windows: np.ndarray) -> np.ndarray:
        self.shapes.append(windows.shape)
        if self.most_voxels is not None and windows.size > self.most_voxels:
            raise OutOfMemoryError("tried to allocate 2 GiB")
        return self.function(windows)
