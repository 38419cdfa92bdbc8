from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from ct_attn.checkpoint import Checkpoint, save_checkpoint
from ct_attn.errors import UserError
from ct_attn.inference.backends.torch_backend import TorchBackend
from ct_attn.inference.options import InferenceOptions
from ct_attn.inference.predictor import Predictor
from ct_attn.network.attention_unet import AttentionUNetConfig
from ct_attn.network.build import build_network
from ct_attn.network.configs import UNetConfig
from ct_attn.preprocessing import PreprocessingConfig, prepare
from ct_attn.recipe import InferenceConfig, Recipe
from ct_attn.training_config import TrainingConfig
from ct_attn.volume import Volume
from tests.unit.grids import SOME_CODES, grid_of, voxel_centres_mm

CPU = torch.device("cpu")
LOW_MM, HIGH_MM = np.array([90, -12, 388]), np.array([104, 8, 412])


def recipe(precision="fp32") -> Recipe:
    return Recipe(
        name="bright",
        targets={"spleen": ("spleen",)},
        preprocessing=PreprocessingConfig(spacing_mm=(1.5, 1.5, 2), hu_window=(0, 100)),
        network=AttentionUNetConfig(widths=(2, 3, 4, 5)),
        training=TrainingConfig(patch_size=(16, 16, 8)),
        inference=InferenceConfig(precision=precision),
    )


class Bright(torch.nn.Module):
    """Class 1 where the image is above a half."""

    def forward(self, patch):
        return torch.cat([0.5 - patch, patch - 0.5], dim=1)


def predictor_of(network, recipe, precision="fp32") -> Predictor:
    return Predictor([TorchBackend(network.eval(), CPU, precision)], recipe)


def scan(code="RAS", **changes) -> Volume:
    """A box of 100 HU in 0 HU."""
    arguments = {"size": (40, 38, 20), "spacing_mm": (1, 1.1, 2.5), "centre_mm": (100, 0, 400)}
    grid = grid_of(code, **{**arguments, **changes})
    return Volume(hu=(100 * inside(voxel_centres_mm(grid))).astype(np.int16), grid=grid)


def inside(points_mm, margin_mm=0.0):
    return ((points_mm > LOW_MM + margin_mm) & (points_mm < HIGH_MM - margin_mm)).all(axis=-1)


@pytest.mark.parametrize("code", SOME_CODES)
@pytest.mark.parametrize(
    "changes",
    [{}, {"angles": (0.1, -0.2, 0.3)}, {"shear": 0.2}, {"size": (40, 38, 1)}],
    ids=["straight", "oblique", "sheared", "one slice"],
)
def test_a_bright_box_is_found_where_it_is_on_the_scans_own_grid(code, changes):
    volume = scan(code, **changes)
    mask = predictor_of(Bright(), recipe()).predict(volume)
    assert mask.grid is volume.grid
    points_mm = voxel_centres_mm(volume.grid)
    assert (mask.labels[inside(points_mm, 3)] == 1).all()
    assert not mask.labels[~inside(points_mm, -3)].any()
    assert inside(points_mm, 3).any()
    found = (mask.labels > 0).sum() / inside(points_mm).sum()
    assert found == pytest.approx(1, abs=0.15)


def test_logits_lie_on_the_working_grid_and_progress_is_heard():
    predictor = predictor_of(Bright(), recipe())
    prepared = prepare(scan(), recipe().preprocessing)
    heard = []
    logits = predictor.logits(prepared, lambda done, total: heard.append((done, total)))
    assert logits.shape == (2, *prepared.grid.shape)
    image = prepared.image
    np.testing.assert_allclose(logits, np.stack([0.5 - image, image - 0.5]), rtol=0, atol=1e-5)
    assert heard[-1][0] == heard[-1][1] == len(heard)


def test_seconds_in_the_network_are_not_the_blendings():
    windows = []

    class Slow(Bright):
        def forward(self, patch):
            windows.append(patch.shape)
            time.sleep(0.05)
            return super().forward(patch)

    predictor = predictor_of(Slow(), recipe())
    started = time.perf_counter()
    prediction = predictor.run(scan())
    taken = time.perf_counter() - started
    assert prediction.seconds["network"] >= 0.05 * len(windows) > 0
    assert prediction.seconds["blending"] < 0.05 * len(windows)
    assert sum(prediction.seconds.values()) <= taken


def test_the_scheme_says_what_the_codes_mean():
    assert predictor_of(Bright(), recipe()).scheme.codes == {"spleen": 1}


@pytest.fixture
def trained() -> Checkpoint:
    """A network whose normalisation has seen data, so that training and evaluation differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = build_network(recipe().network, in_channels=1, n_classes=2)
        network(torch.rand(2, 1, 16, 16, 16))
    return Checkpoint(weights=network.state_dict(), recipe=recipe(), provenance={"epoch": 3})


def test_a_loaded_model_gives_the_logits_it_gave_before_saving(tmp_path, trained):
    prepared = prepare(scan(), recipe().preprocessing)
    before = predictor_of(trained.network(), trained.recipe).logits(prepared)
    save_checkpoint(trained, tmp_path / "model")
    predictor = Predictor.load(tmp_path / "model", InferenceOptions(device="cpu", backend="torch"))
    assert predictor.recipe == trained.recipe
    assert np.array_equal(predictor.logits(prepared), before)
    assert before.std() > 0.01


def test_bf16_gives_nearly_the_logits_of_fp32(trained):
    prepared = prepare(scan(), recipe().preprocessing)
    exact = predictor_of(trained.network(), recipe(), "fp32").logits(prepared)
    rounded = predictor_of(trained.network(), recipe(), "bf16").logits(prepared)
    assert rounded.dtype == np.float32
    assert not np.array_equal(rounded, exact)
    np.testing.assert_allclose(rounded, exact, rtol=0, atol=0.1 * np.abs(exact).max())


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"model\.safetensors: expected a trained model, found no such file"):
        Predictor.load(tmp_path)
    with pytest.raises(UserError, match="nowhere: expected a trained model"):
        Predictor.load(tmp_path / "nowhere")


def test_a_device_that_is_not_there_is_refused(tmp_path, trained):
    save_checkpoint(trained, tmp_path)
    with pytest.raises(UserError, match="--device nonsense"):
        Predictor.load(tmp_path, InferenceOptions(device="nonsense"))


@pytest.fixture
def attentive(tmp_path):
    def build(config=AttentionUNetConfig, **network):
        changed = recipe().model_copy(update={"network": config(widths=(2, 3, 4, 5), **network)})
        built = build_network(changed.network, in_channels=1, n_classes=2)
        save_checkpoint(Checkpoint(weights=built.state_dict(), recipe=changed, provenance={}), tmp_path)
        return Predictor.load(tmp_path, InferenceOptions(backend="torch"))

    return build


@pytest.mark.parametrize("code", SOME_CODES)
def test_attention_maps_lie_on_the_scans_grid_and_in_0_to_1(code, attentive):
    volume = scan(code)
    maps = attentive().attention(volume)
    assert list(maps) == ["level1", "level2"]
    for alpha in maps.values():
        assert alpha.grid is volume.grid
        assert alpha.hu.dtype == np.float32
        assert 0 < alpha.hu.min() < alpha.hu.max() < 1


def test_gates_that_pass_everything_have_maps_of_0_953_everywhere(attentive):
    maps = attentive(gate_init="pass_through").attention(scan("LPS"))
    for alpha in maps.values():
        assert alpha.hu == pytest.approx(0.952574, abs=1e-5)


def test_two_gates_per_skip_have_a_map_each(attentive):
    names = list(attentive(gates_per_skip=2).attention(scan()))
    assert names == ["level1_gate1", "level1_gate2", "level2_gate1", "level2_gate2"]


def test_attention_of_a_network_without_gates_is_refused(attentive):
    with pytest.raises(UserError, match="attention gates"):
        attentive(UNetConfig).attention(scan())
