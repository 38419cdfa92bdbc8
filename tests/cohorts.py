"""A tiny synthetic cohort and a recipe small enough to train on it within seconds."""

from __future__ import annotations

from pathlib import Path

from ct_attn.datasets.phantom import PhantomConfig
from ct_attn.datasets.phantom.cohort import CohortConfig, make_cohort
from ct_attn.recipe import Recipe, parse_recipe

COARSE = PhantomConfig(in_plane_spacing_mm=(4.0, 4.0), slice_spacing_mm=(5.0, 5.0))

TINY_RECIPE = """
name: tiny
preprocessing: {spacing_mm: [8, 8, 8], antialias: false}
network: {kind: attention_unet, widths: [4, 8, 8]}
training:
  patch_size: [32, 32, 24]
  epochs: 4
  validate_every: 2
  batches_per_epoch: 3
  optimizer: {learning_rate: 0.01}
  precision: fp32
inference: {precision: fp32}
"""


def tiny_recipe(*overrides: str) -> Recipe:
    return parse_recipe(TINY_RECIPE, overrides, source="tiny recipe")


def make_tiny_cohort(folder: Path) -> Path:
    """Four training cases in two folds and one test case; returns the manifest."""
    return make_cohort(CohortConfig(n_training=4, n_test=1, n_folds=2, seed=3, phantom=COARSE), folder)
