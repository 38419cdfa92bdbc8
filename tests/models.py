"""A model that was never trained, small enough to predict a tiny scan in no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ct_attn.checkpoint import Checkpoint, save_checkpoint
from ct_attn.network.build import build_network
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Volume
from tests.cohorts import tiny_recipe


def make_tiny_model(folder: Path, *overrides: str, seed: int = 0, **provenance: str | int) -> Path:
    """A model of the tiny recipe with random weights in ``folder``."""
    recipe = tiny_recipe(*overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(
            recipe.network, in_channels=1, n_classes=recipe.n_outputs, slices=recipe.slices
        )
    save_checkpoint(Checkpoint(weights=network.state_dict(), recipe=recipe, provenance=provenance), folder)
    return folder


def make_tiny_scans(folder: Path, *names: str) -> Path:
    """Scans of noise, each another, in ``folder``."""
    grid = Grid(shape=(20, 18, 9), affine=np.diag([-6.0, 6.0, 5.0, 1.0]))
    for number, name in enumerate(names):
        hu = np.random.default_rng(number).integers(-100, 200, grid.shape).astype(np.int16)
        nifti.write_volume(Volume(hu=hu, grid=grid), folder / f"{name}.nii.gz")
    return folder
