"""Every recipe that comes with the project trains through ``ct-attn train``, made small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ct_attn.checkpoint import load_checkpoint
from ct_attn.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "pipelines").rglob("*.yaml"))
SMALL = (
    "preprocessing.spacing_mm=[8,8,8]", "training.patch_size=[32,32,32]",
    "training.epochs=1", "training.validate_every=1", "training.batches_per_epoch=2",
)  # fmt: skip
#: A ResNet has the widths it has; the deep one is made shallow, or its training would need 3 GB.
NARROW = {
    "unet": ("network.widths=[2,3,4,4,5]",),
    "attention_unet": ("network.widths=[2,3,4,4,5]",),
    "monai_attention_unet": ("network.widths=[2,3,4,4,5]",),
    "resnet_attention_unet": ("network.finest_width=4", "network.depth=18"),
    "guided_attention": ("network.width=8",),
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_recipe_trains_from_the_command_line(recipe, tiny_manifest, tmp_path):
    kind = read_recipe(recipe).network.kind
    overrides = [word for change in (*SMALL, *NARROW[kind]) for word in ("--set", change)]
    command = [Path(sys.executable).with_name("ct-attn"), "train", recipe, "--data", tiny_manifest]
    done = subprocess.run(
        [*command, "-o", tmp_path / "run", *overrides],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    trained = load_checkpoint(tmp_path / "run" / "model")
    assert trained.recipe.network.kind == kind
    assert trained.provenance["epoch"] == 0
