from __future__ import annotations

import pytest

from ct_attn.errors import UserError
from ct_attn.inference.ensemble import coarser, require_alike, windows_fixed
from ct_attn.inference.options import DEFAULTS, InferenceOptions
from ct_attn.loss_config import LossConfig
from ct_attn.model_file import read_model_file
from ct_attn.network.configs import AttentionUNetConfig, GuidedAttentionConfig, SlicesConfig
from ct_attn.preprocessing import PreprocessingConfig
from ct_attn.training_config import AugmentationConfig, TrainingConfig
from tests.unit.inference.models import SIDED, recipe, saved

SLICES = {
    "preprocessing": PreprocessingConfig(spacing_mm=(1.5, 1.5, None), hu_window=(0, 100)),
    "network": AttentionUNetConfig(dims=2, widths=(2, 3, 4)),
    "slices": SlicesConfig(neighbours=3),
    "training": TrainingConfig(patch_size=(16, 16, 1)),
}
SOFTMAX = AttentionUNetConfig(widths=(2, 3, 4), gate_activation="softmax")  # over the window's positions


def models(folder, *changes):
    return [read_model_file(saved(folder / str(n), **change)) for n, change in enumerate(changes)]


@pytest.mark.parametrize(
    ("first", "change", "part"),
    [
        ({}, {"targets": SIDED}, "targets"),
        ({}, {"preprocessing": PreprocessingConfig(spacing_mm=(2, 2, 2))}, "preprocessing"),
        ({}, {"loss": LossConfig(activation="sigmoid")}, "loss.activation"),
        (SLICES, {**SLICES, "slices": SlicesConfig(neighbours=5)}, "slices"),
    ],
)
def test_models_that_do_not_say_the_same_of_the_same_are_not_averaged(first, change, part, tmp_path):
    with pytest.raises(UserError, match=rf"1\S*: expected the {part} of .*0"):
        require_alike(models(tmp_path, first, change), DEFAULTS)


def test_how_many_slices_are_taken_at_a_time_makes_no_difference(tmp_path):
    other = {**SLICES, "slices": SlicesConfig(neighbours=3, at_a_time=2)}
    require_alike(models(tmp_path, SLICES, other), DEFAULTS)


def test_a_network_that_cannot_take_the_firsts_windows_is_refused(tmp_path):
    deeper = {"network": AttentionUNetConfig(dims=2, widths=(2, 3, 4, 5, 6, 7)),
              "training": TrainingConfig(patch_size=(32, 32, 1))}  # fmt: skip
    with pytest.raises(UserError, match="multiple"):
        require_alike(models(tmp_path, SLICES, {**SLICES, **deeper}), DEFAULTS)


def test_a_network_that_depends_on_its_window_is_asked_about_those_of_its_training_only(tmp_path):
    """Softmax is over the window's positions: in larger windows its gates let less through."""
    larger = {"training": TrainingConfig(patch_size=(32, 32, 16))}
    plain, softmax = models(tmp_path, larger, {"network": SOFTMAX})
    require_alike([softmax, plain], DEFAULTS)  # in the windows of the first
    with pytest.raises(UserError, match=r"expected patches of 32 x 32 x 16 voxels.*found 16 x 16 x 8"):
        require_alike([plain, softmax], DEFAULTS)
    require_alike(models(tmp_path / "same", {}, {"network": SOFTMAX}), DEFAULTS)


@pytest.mark.parametrize(
    ("zooms", "spacing_mm"),
    [
        ([(0.8, 1.2)], (1.8, 1.8, 2)),
        ([(0.8, 1.2), (1.0, 1.1)], (1.65, 1.65, 2)),
        ([(0.5, 0.9), (0.8, 1.2)], (1.5, 1.5, 2)),
    ],
)
def test_the_grid_is_as_coarse_in_plane_as_all_trainings_allow(zooms, spacing_mm):
    recipes = [
        recipe(training=TrainingConfig(patch_size=(16, 16, 8), augmentation=AugmentationConfig(zoom=zoom)))
        for zoom in zooms
    ]
    for several in (recipes, recipes[::-1]):
        assert coarser(several).spacing_mm == pytest.approx(spacing_mm)


def test_windows_are_fixed_where_one_of_the_networks_asks_for_it():
    plain, fixed = recipe(), recipe(network=SOFTMAX)
    assert not windows_fixed([plain], DEFAULTS)
    assert windows_fixed([plain, fixed], DEFAULTS)
    assert windows_fixed([plain], InferenceOptions(windows="trained"))
    assert GuidedAttentionConfig().depends_on_window


def test_fixed_windows_must_suit_every_network(tmp_path):
    deeper = {"network": AttentionUNetConfig(widths=(2, 3, 4, 5, 6, 7)),
              "training": TrainingConfig(patch_size=(32, 32, 32))}  # fmt: skip
    made = models(tmp_path, {}, deeper)
    require_alike(made, DEFAULTS)  # windows are made to suit both
    with pytest.raises(UserError, match="multiple"):
        require_alike(made, InferenceOptions(windows="trained"))
