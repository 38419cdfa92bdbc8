"""pipelines/paper/ holds the authors' hyper-parameters, and networks of the printed sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ct_attn.network.build import build_network
from ct_attn.published import published_figures
from ct_attn.recipe import read_recipe
from ct_attn.training_config import AugmentationConfig

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
PAPER = sorted((PIPELINES / "paper").glob("*.yaml"))
#: Trainable parameters; with 2 instead of 4 classes, the heads and their fusion are smaller.
PARAMETERS = {
    "ct150_120_30_unet": 5_888_004,
    "ct150_30_120_unet": 5_888_004,
    "ct150_120_30_attention_unet": 6_411_498,
    "ct150_30_120_attention_unet": 6_411_498,
    "ct150_120_30_unet_6m44": 6_444_328,
    "ct150_120_30_unet_10m4": 10_403_190,
    "ct82_aft_unet": 5_887_466,
    "ct82_scr_unet": 5_887_466,
    "ct82_aft_attention_unet": 6_410_960,
    "ct82_scr_attention_unet": 6_410_960,
}
#: Batches of two that show each of the authors' training cases once.
BATCHES = {"ct150_120": 60, "ct150_30_": 15, "ct82_aft_": 31, "ct82_scr_": 31}


def size_of(recipe):
    network = build_network(recipe.network, in_channels=1, n_classes=recipe.n_classes)
    return sum(parameter.numel() for parameter in network.parameters())


def test_these_are_all_the_papers_recipes():
    assert [path.stem for path in PAPER] == sorted(PARAMETERS)


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_hyper_parameters_are_the_authors(path):
    recipe = read_recipe(path)
    training, optimizer = recipe.training, recipe.training.optimizer
    assert recipe.preprocessing.spacing_mm == (2, 2, 2)
    assert (training.patch_size, training.batch_size, training.epochs) == ((160, 160, 96), 2, 1000)
    assert training.patch_centres == "anywhere"
    assert training.batches_per_epoch == BATCHES[path.stem[:9]]
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("adam", 1e-4, 1e-6)
    assert (optimizer.schedule, optimizer.factor, optimizer.step_epochs) == ("step", 0.5, 250)
    assert (optimizer.warmup_epochs, optimizer.clip_norm, optimizer.accumulate) == (0, None, 1)
    changes = training.augmentation
    assert (changes.affine_probability, changes.rotation_degrees) == (1, 15)
    assert (changes.shift_fraction, changes.zoom, changes.flip_axes) == (0.1, (0.7, 1.3), ("R", "A"))
    assert (changes.intensity_probability, changes.resolution_probability) == (0, 0)
    assert (recipe.loss.denominator, recipe.loss.cross_entropy_weight) == ("squared", 0)
    assert (recipe.network.deep_supervision, recipe.network.norm) == ("fused", "batch")
    assert list(recipe.targets) == (
        ["pancreas"] if path.stem.startswith("ct82") else ["pancreas", "spleen", "kidney"]
    )


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_networks_have_the_printed_sizes(path):
    recipe = read_recipe(path)
    assert size_of(recipe) == PARAMETERS[path.stem]
    method = {
        "unet": "U-Net", "attention_unet": "Attention U-Net",
        "unet_6m44": "U-Net 6.44 M", "unet_10m4": "U-Net 10.40 M",
    }[path.stem.split("_", 2 if path.stem.startswith("ct82") else 3)[-1]]  # fmt: skip
    printed = {
        row.mean for row in published_figures() if (row.method, row.metric) == (method, "parameters_million")
    }
    assert len(printed) == 1
    assert PARAMETERS[path.stem] / 1e6 == pytest.approx(printed.pop(), abs=0.015)


@pytest.mark.parametrize("folder", ["pancreas_ct", "phantom"])
def test_the_strong_recipe_has_what_its_comments_say(folder):
    recipe = read_recipe(PIPELINES / folder / "strong.yaml")
    assert recipe.loss.cross_entropy_weight > 0
    assert (recipe.network.norm, recipe.network.deep_supervision) == ("instance", "per_scale")
    assert recipe.training.optimizer.schedule == "poly"
    assert recipe.training.optimizer.warmup_epochs > 0
    assert recipe.training.ema_decay is not None
    assert recipe.training.patch_centres == "classes"
    written = yaml.safe_load((PIPELINES / folder / "strong.yaml").read_text(encoding="utf-8"))
    assert written["training"]["patch_centres"] == "classes"  # said, and not only the default
    changes, plain = recipe.training.augmentation, AugmentationConfig()
    assert changes.intensity_probability > 0 < changes.resolution_probability
    if folder == "pancreas_ct":
        assert recipe.training.optimizer.name == "sgd"
        assert recipe.training.optimizer.clip_norm == 12
        assert changes.flip_axes == ("R",)
        assert recipe.inference.mirroring
        for bound in ("affine_probability", "rotation_degrees", "noise", "brightness", "contrast", "gamma"):
            assert getattr(changes, bound) > getattr(plain, bound)
