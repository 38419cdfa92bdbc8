"""Every recipe that comes with the project trains through ``ct-attn train``, made small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ct_attn.checkpoint import load_checkpoint
from ct_attn.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
#: The paper's and the variants have tests of their own (test_reproduce_command.py, test_variants.py).
RECIPES = sorted(
    path for path in (ROOT / "pipelines").rglob("*.yaml") if path.parent.name not in ("paper", "variants")
)
VOLUMES = ("preprocessing.spacing_mm=[8,8,8]", "training.patch_size=[32,32,32]")
SLICES = ("preprocessing.spacing_mm=[8,8,null]", "training.patch_size=[32,32,1]")
SMALL = (
    "training.epochs=1", "training.optimizer.warmup_epochs=0",
    "training.validate_every=1", "training.batches_per_epoch=2",
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
    full = read_recipe(recipe)
    kind = full.network.kind
    size = VOLUMES if full.slices is None else SLICES
    overrides = [word for change in (*size, *SMALL, *NARROW[kind]) for word in ("--set", change)]
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


def train(recipe, manifest, output, *options):
    command = [Path(sys.executable).with_name("ct-attn"), "train", ROOT / "pipelines" / "phantom" / recipe]
    changes = [word for change in (*VOLUMES, *SMALL, *NARROW["unet"]) for word in ("--set", change)]
    return subprocess.run(
        [*command, "--data", manifest, "-o", output, *changes, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
def test_gates_are_trained_on_a_unets_weights_from_the_command_line(tiny_manifest, tmp_path):
    assert train("unet.yaml", tiny_manifest, tmp_path / "unet").returncode == 0
    model = tmp_path / "unet" / "model"
    gates = train("attention_unet_gates_first.yaml", tiny_manifest, tmp_path / "gates", "--init-from", model)
    assert gates.returncode == 0, gates.stderr
    assert "136 tensors loaded, 64 not in the weights" in gates.stderr
    source, trained = load_checkpoint(model).weights, load_checkpoint(tmp_path / "gates" / "model").weights
    assert all((trained[name] == tensor).all() for name, tensor in source.items())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--init-from", "nowhere"), "nowhere/"),
        (("--pretrained-encoder", "README.md"), "kind unet"),
        (("--set", "training.freeze=[encodr]"), "'encodr'"),
    ],
)
def test_a_wrong_start_is_one_line_and_leaves_nothing(options, named, tiny_manifest, tmp_path):
    done = train("unet.yaml", tiny_manifest, tmp_path / "run", *options)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert named.rstrip("/") in done.stderr
    assert not (tmp_path / "run").exists()
