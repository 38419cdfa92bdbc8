from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from ct_attn.errors import UserError
from ct_attn.inference.backends import choose
from ct_attn.inference.backends.backend import CannotConvertError
from ct_attn.inference.backends.cache import FOLDER_NAME
from ct_attn.inference.backends.choose import choose_backend, torch_backend
from ct_attn.inference.options import InferenceOptions
from ct_attn.model_file import read_model_file
from ct_attn.network.configs import AttentionUNetConfig, MonaiAttentionUNetConfig, UNetConfig
from ct_attn.recipe import InferenceConfig
from tests.unit.inference.models import saved

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install ct-attn[cpu]")

CPU = InferenceOptions(device="cpu")
NARROW = (2, 3, 4)
NETWORKS = {
    "attention_unet": AttentionUNetConfig(widths=NARROW),
    "softmax gates": AttentionUNetConfig(widths=NARROW, gate_activation="softmax", gates_per_skip=2),
    "instance norm": UNetConfig(widths=NARROW, norm="instance", upsampling="transposed"),
    "thick slices": UNetConfig(widths=NARROW, pool_size=(2, 2, 1), kernel_size=(3, 3, 1)),
    "monai": MonaiAttentionUNetConfig(widths=NARROW),
}


def ignore(note: str) -> None:
    """Nothing is asked of notes here."""


def options(backend="auto", **changes) -> InferenceOptions:
    return InferenceOptions(device="cpu", backend=backend, **changes)


@pytest.mark.parametrize("name", NETWORKS)
def test_openvino_computes_what_torch_does_at_any_size(tmp_path, name):
    model = read_model_file(saved(tmp_path, network=NETWORKS[name]))
    found = choose_backend(model, options("openvino"), ignore)
    expected = torch_backend(model, "cpu", options())
    assert found.name == "openvino cpu"
    for size in ((16, 16, 8), (24, 16, 32)):
        window = np.random.default_rng(0).random((1, 1, *size), dtype=np.float32)
        logits = expected.logits(window)
        assert logits.shape == (1, 2, *size)
        np.testing.assert_allclose(found.logits(window), logits, rtol=0, atol=1e-4 * np.abs(logits).max())


def test_what_was_converted_and_compiled_is_used_again(tmp_path, monkeypatch):
    model = read_model_file(saved(tmp_path))
    window = np.random.default_rng(0).random((1, 1, 16, 16, 8), dtype=np.float32)
    notes: list[str] = []
    first = choose_backend(model, options("openvino"), notes.append).logits(window)
    assert len(notes) == 1
    monkeypatch.setitem(sys.modules, "ct_attn.inference.backends.conversion", None)
    again = choose_backend(model, options("openvino"), notes.append)
    assert np.array_equal(again.logits(window), first)
    assert len(notes) == 1


def test_what_an_older_way_of_rewriting_left_is_not_used(tmp_path, monkeypatch):
    def made():
        return {path.name for path in (tmp_path / FOLDER_NAME).iterdir()}

    model = read_model_file(saved(tmp_path))
    window = np.random.default_rng(0).random((1, 1, 16, 16, 8), dtype=np.float32)
    choose_backend(model, CPU, ignore)
    choose_backend(model, options("openvino"), ignore).logits(window)
    before = made()
    monkeypatch.setattr("ct_attn.inference.backends.openvino_backend.REVISION", 99)
    choose_backend(model, CPU, ignore)
    choose_backend(model, options("openvino"), ignore).logits(window)
    kinds = sorted(
        name.partition("-")[0] if name.startswith("choice") else name.rpartition(".")[2]
        for name in made() - before
    )
    assert len(made() - before) == len(before)
    assert {"choice", "blob"} < set(kinds)


def test_a_damaged_compiled_network_is_made_again(tmp_path):
    model = read_model_file(saved(tmp_path))
    window = np.random.default_rng(0).random((1, 1, 16, 16, 8), dtype=np.float32)
    first = choose_backend(model, options("openvino"), ignore).logits(window)
    (blob,) = (tmp_path / FOLDER_NAME).glob("*.blob")
    blob.write_bytes(b"torn" + blob.read_bytes()[:1000])
    assert np.array_equal(choose_backend(model, options("openvino"), ignore).logits(window), first)


def test_changed_weights_are_another_model(tmp_path):
    window = np.random.default_rng(0).random((1, 1, 16, 16, 8), dtype=np.float32)
    logits = []
    for seed in (0, 1):
        model = read_model_file(saved(tmp_path, seed=seed))
        logits.append(choose_backend(model, options("openvino"), ignore).logits(window))
    assert not np.allclose(logits[0], logits[1])


def test_the_faster_backend_is_measured_once(tmp_path, monkeypatch):
    model = read_model_file(saved(tmp_path))
    seconds = iter([2.0, 1.0])
    monkeypatch.setattr(choose, "_seconds", lambda backend, window: next(seconds))
    notes: list[str] = []
    assert choose_backend(model, CPU, notes.append).name == "torch cpu"
    assert "openvino 2.00 s" in notes[-1]
    (record,) = (tmp_path / FOLDER_NAME).glob("choice-*.json")
    assert json.loads(record.read_text())["backend"] == "torch"
    assert choose_backend(model, CPU, notes.append).name == "torch cpu"  # no third measurement


def test_a_network_that_openvino_cannot_compute_is_torchs_and_that_is_said(tmp_path, monkeypatch):
    def refuse(self):
        raise CannotConvertError("it has a layer of its own")

    model = read_model_file(saved(tmp_path))
    monkeypatch.setattr("ct_attn.inference.backends.openvino_backend.OpenVinoBackend.convert", refuse)
    notes: list[str] = []
    assert choose_backend(model, CPU, notes.append).name == "torch cpu"
    assert "a layer of its own" in notes[-1]


def test_without_openvino_torch_computes_and_asking_for_it_is_an_error(tmp_path, monkeypatch):
    model = read_model_file(saved(tmp_path))
    monkeypatch.setattr("ct_attn.inference.backends.openvino_backend.is_installed", lambda: False)
    assert choose_backend(model, CPU, ignore).name == "torch cpu"
    with pytest.raises(UserError, match=r"pip install 'ct-attn\[cpu\]'"):
        choose_backend(model, options("openvino"), ignore)


@pytest.mark.parametrize(("asked", "recipes", "taken"), [("bf16", "fp32", "bf16"), (None, "bf16", "bf16")])
def test_the_precision_asked_for_overrules_the_recipes(tmp_path, asked, recipes, taken):
    model = read_model_file(saved(tmp_path, inference=InferenceConfig(precision=recipes)))
    for backend in ("torch", "openvino"):
        assert choose_backend(model, options(backend, precision=asked), ignore).precision == taken


def test_a_prediction_over_a_converted_model_imports_neither_torch_nor_monai(tmp_path):
    saved(tmp_path)
    script = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "import ct_attn.cli\n"
        "from ct_attn.inference.options import InferenceOptions\n"
        "from ct_attn.inference.predictor import Predictor\n"
        "from ct_attn.scan_io import nifti, scan\n"
        "from ct_attn.volume import Grid, Volume\n"
        "folder = Path(sys.argv[1])\n"
        "predictor = Predictor.load(folder, InferenceOptions(device='cpu', backend='openvino'))\n"
        "grid = Grid(shape=(20, 18, 9), affine=np.diag([1.0, 1.0, 2.0, 1.0]))\n"
        "nifti.write_volume(Volume(hu=np.full(grid.shape, 40, np.int16), grid=grid), folder / 's.nii.gz')\n"
        "mask = predictor.predict(scan.read_scan(folder / 's.nii.gz'))\n"
        "nifti.write_mask(mask, folder / 'm.nii.gz', scheme=predictor.scheme)\n"
        "print(sorted({'torch', 'monai', 'lightning'} & set(sys.modules)))\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert said == ["['torch']", "[]"]  # converting needs it, once
