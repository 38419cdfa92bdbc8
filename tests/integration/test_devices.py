"""Training and prediction on every device there is: the processor, and a graphics card where one is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ct_attn.checkpoint import load_checkpoint
from ct_attn.inference.options import InferenceOptions
from ct_attn.inference.predictor import Predictor
from ct_attn.network.configs import AttentionUNetConfig
from ct_attn.preprocessing import prepare
from ct_attn.recipe import write_recipe
from ct_attn.training.state import content_digest, read_state
from ct_attn.volume import Grid, Volume
from tests.cohorts import tiny_recipe
from tests.killed_runs import Driver
from tests.unit.inference.models import saved

CARD = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=CARD)]
#: What Lightning calls the part of a state that holds the scale of fp16 losses.
SCALER = "MixedPrecision"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "precision"),
    [("cpu", "fp32"), *(pytest.param("cuda", precision, marks=CARD) for precision in ("bf16", "fp16"))],
)
def test_a_killed_training_goes_on_with_all_of_its_state(tiny_manifest, tmp_path, device, precision):
    recipe = tmp_path / "recipe.yaml"
    write_recipe(tiny_recipe(f"training.precision={precision}", "training.optimizer.schedule=poly"), recipe)
    arguments = [recipe, "--data", tiny_manifest, "--device", device]
    with Driver() as driver:
        assert driver.train(*arguments, "-o", tmp_path / "twin") == [0]
        assert driver.train(*arguments, "-o", tmp_path / "run", moment=("batch", 8, 0)) != [0]
        assert driver.train(*arguments, "-o", tmp_path / "run", "--resume") == [0]
    run, twin = (
        read_state(folder / "state.ckpt", folder / "state.previous.ckpt", print).content
        for folder in (tmp_path / "run", tmp_path / "twin")
    )
    assert run.keys() == twin.keys()
    assert (SCALER in twin and twin[SCALER]["scale"] > 0) == (precision == "fp16")
    parts = {"epoch", "global_step", "lr_schedulers", SCALER}
    if device == "cpu":  # a card adds up in no fixed order
        parts |= {"state_dict", "optimizer_states"}
    for part in parts & twin.keys():
        assert content_digest(run[part]) == content_digest(twin[part]), part
    moments, expected = (state["optimizer_states"][0]["state"] for state in (run, twin))
    assert all(moments[number]["step"] == one["step"] > 0 for number, one in expected.items())
    weights, expected = (load_checkpoint(tmp_path / name / "model").weights for name in ("run", "twin"))
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("device", DEVICES)
def test_a_prediction_in_fp32_is_the_processors(tmp_path, device):
    model = saved(tmp_path, network=AttentionUNetConfig(widths=(8, 16, 32)))
    grid = Grid(shape=(70, 60, 30), affine=np.diag([-1.5, -1.2, 2.5, 1.0]))
    hu = np.random.default_rng(0).integers(-50, 150, grid.shape, dtype=np.int16)

    volume = Volume(hu=hu, grid=grid)

    def logits(where: str, **options):
        predictor = Predictor.load(model, InferenceOptions(device=where, precision="fp32", **options))
        assert predictor.predict(volume).grid == grid
        return predictor.logits(prepare(volume, predictor.preprocessing))

    expected = logits("cpu", backend="torch")
    if device == "cpu":
        pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install ct-attn[cpu]")
        found, share = logits(device, backend="openvino"), 1e-4
    else:
        found, share = logits(device), 5e-3  # a card may round the factors of convolutions to TF32
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())
