"""Both real scans through every option of ``ct-attn predict``, with a tiny model."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from ct_attn.scan_io import nifti
from ct_attn.scan_io.scan import read_scan
from tests.command import ct_attn
from tests.models import make_tiny_model, make_tiny_scans

ORGANS = ("pancreas", "spleen", "kidney")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [make_tiny_model(folder / str(seed), seed=seed) for seed in (0, 1)]


@pytest.fixture(params=["abdomen_ct_3mm/ct.nii.gz", "abdomen_ct_dicom"])
def scan(request, shared_data):
    return shared_data / request.param


def succeed(*arguments):
    done = ct_attn("predict", *arguments)
    assert done.returncode == 0, done.stderr
    return done


def test_a_real_scan_gets_every_output(scan, models, tmp_path):
    out = tmp_path / "masks"
    done = succeed("-m", models[0], "-i", scan, "-o", out, "--probabilities", "--attention", "--features",
                   "--preview", "--statistics", "--filter", "largest+1ml")  # fmt: skip
    name = scan.name.removesuffix(".nii.gz")
    mask, scheme = nifti.read_mask(out / f"{name}.nii.gz")
    volume = read_scan(scan)
    assert mask.grid.is_same_as(volume.grid)
    likely = [nib.load(out / f"{name}_probabilities" / f"{organ}.nii.gz") for organ in ORGANS]
    total = sum(np.asarray(image.dataobj) for image in likely)
    assert total.shape == volume.grid.shape
    assert -1e-3 < total.min() <= total.max() < 1 + 1e-3
    assert (out / f"{name}_attention" / "level1.nii.gz").is_file()
    assert (out / f"{name}_features.png").read_bytes().startswith(b"\x89PNG")
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with (out / "statistics.csv").open() as file:
        rows = {row["organ"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["pancreas", "spleen", "kidney", "left_kidney", "right_kidney"]
    for organ in ORGANS:
        voxels = np.count_nonzero(mask.labels == scheme.codes[organ])
        assert int(rows[organ]["voxels"]) == voxels
        assert float(rows[organ]["volume_ml"]) == pytest.approx(
            voxels * mask.grid.voxel_volume_mm3 / 1000, abs=1e-3
        )
    record = json.loads((out / f"{name}.json").read_text())
    assert set(record["confidence"]) <= set(ORGANS)
    assert {"mask", "preview", "attention/level1", "probabilities/spleen"} <= set(record["outputs"])
    assert f"mask  {out / f'{name}.nii.gz'}" in done.stdout
    assert (
        "done before  1" in succeed("-m", models[0], "-i", scan, "-o", out, "--filter", "largest+1ml").stdout
    )
    assert ct_attn("status", "-i", scan, "-o", out, "-m", models[0]).returncode == 0
    assert ct_attn("status", "-i", scan, "-o", out, "-m", models[1]).returncode == 1


@pytest.mark.parametrize(
    "options",
    [
        ("--fast", "--tta", "--organs", "spleen"),
        ("--backend", "torch", "--precision", "fp32", "--no-tta", "--memory", "2G", "--filter", "off"),
        ("--device", "cpu", "--no-body-mask", "--num-parts", "2", "--part-id", "0"),
    ],
    ids=["fast and mirrored", "exact and bounded", "whole and in parts"],
)
def test_a_real_scan_gets_a_mask_with_every_way_to_compute(scan, models, tmp_path, options):
    succeed("-m", models[0], "-i", scan, "-o", tmp_path / "mask.nii.gz", *options)
    mask, scheme = nifti.read_mask(tmp_path / "mask.nii.gz")
    assert mask.grid.is_same_as(read_scan(scan).grid)
    assert not scheme.unknown_codes(mask.labels)
    assert scheme.names == (("spleen",) if "--organs" in options else ORGANS)


@pytest.fixture(scope="module")
def models_of_slices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    changes = (
        "network.dims=2", "slices={neighbours: 3}", "training.patch_size=[32, 32, 1]",
        "preprocessing.spacing_mm=[8, 8, null]", "loss.activation=sigmoid",
        "training.augmentation.flip_axes=[A]",
    )  # fmt: skip
    return [make_tiny_model(folder / str(seed), *changes, seed=seed) for seed in (0, 1)]


@pytest.mark.parametrize(
    "options",
    [
        ("--fast", "--tta", "--organs", "spleen"),
        ("--memory", "1G", "--probabilities", "--statistics", "--preview", "--attention"),
        ("--backend", "openvino", "--filter", "largest", "--no-body-mask"),
    ],
    ids=["fast and mirrored", "bounded, with all outputs", "openvino"],
)
def test_slices_and_sigmoids_take_every_option(scan, models_of_slices, tmp_path, options):
    succeed("-m", models_of_slices[0], "-i", scan, "-o", tmp_path / "mask.nii.gz", *options)
    mask, scheme = nifti.read_mask(tmp_path / "mask.nii.gz")
    assert mask.grid.is_same_as(read_scan(scan).grid)
    assert not scheme.unknown_codes(mask.labels)
    assert json.loads((tmp_path / "mask.json").read_text())["models"]
    if "--probabilities" not in options:
        return
    likely = {
        organ: np.asarray(nib.load(tmp_path / "mask_probabilities" / f"{organ}.nii.gz").dataobj)
        for organ in ORGANS
    }
    for organ, values in likely.items():
        found = values[mask.labels == scheme.codes[organ]]
        assert found.size == 0 or found.min() > 0.5 - 1e-3


def test_two_models_of_slices_predict_a_real_scan_together(scan, models_of_slices, tmp_path):
    first, second = models_of_slices
    succeed("-m", first, "-m", second, "-i", scan, "-o", tmp_path / "mask.nii.gz")
    assert nifti.read_mask(tmp_path / "mask.nii.gz")[0].grid.is_same_as(read_scan(scan).grid)
    assert len(json.loads((tmp_path / "mask.json").read_text())["models"]) == 2


def test_sigmoids_and_a_softmax_are_not_averaged(models, models_of_slices, noise, tmp_path):
    done = ct_attn("predict", "-m", models[0], "-m", models_of_slices[0], "-i", noise, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "average only models that predict the same from the same image" in done.stderr


def test_both_real_scans_are_predicted_together_by_two_models(shared_data, models, tmp_path):
    scans = [shared_data / "abdomen_ct_3mm" / "ct.nii.gz", shared_data / "abdomen_ct_dicom"]
    succeed("-m", models[0], "-m", models[1], "-i", scans[0], "-i", scans[1], "-o", tmp_path)
    for scan in scans:
        name = scan.name.removesuffix(".nii.gz")
        assert nifti.read_mask(tmp_path / f"{name}.nii.gz")[0].grid.is_same_as(read_scan(scan).grid)
        assert len(json.loads((tmp_path / f"{name}.json").read_text())["models"]) == 2


def test_the_gates_of_a_network_of_slices_are_pictured_for_a_folder_of_scans(tmp_path):
    model = make_tiny_model(
        tmp_path / "model",
        "network.dims=2",
        "slices={neighbours: 3}",
        "training.patch_size=[32, 32, 1]",
        "preprocessing.spacing_mm=[8, 8, null]",
    )
    scans = make_tiny_scans(tmp_path / "scans", "one", "two")
    succeed("-m", model, "-i", scans, "-o", tmp_path / "out", "--features")
    for name in ("one", "two"):
        assert (tmp_path / "out" / f"{name}_features.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "out" / f"{name}_attention" / "level1.nii.gz").is_file()  # --features implies it


def test_features_of_a_network_without_gates_are_one_line_and_exit_code_2(tmp_path):
    model = make_tiny_model(tmp_path / "model", "network.kind=unet")
    scans = make_tiny_scans(tmp_path / "scans", "one", "two")
    done = ct_attn("predict", "-m", model, "-i", scans, "-o", tmp_path / "out", "--attention", "--features")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: tiny: expected a network with attention gates, found kind unet; "
        "give a model trained with kind attention_unet or resnet_attention_unet"
    )
    assert not (tmp_path / "out").exists()


def test_a_memory_that_is_no_size_is_one_line(models, tmp_path):
    done = ct_attn("predict", "-m", models[0], "-i", tmp_path, "-o", tmp_path / "out", "--memory", "much")
    assert done.returncode == 2
    assert "--memory much: expected a size such as 2G or 800M" in done.stderr


@pytest.fixture
def noise(tmp_path):
    return make_tiny_scans(tmp_path / "scans", "one", "two")


def test_windows_of_the_trainings_patch_are_a_setting_of_their_own(models, noise, tmp_path):
    out = tmp_path / "masks"
    succeed("-m", models[0], "-i", noise, "-o", out, "--windows", "trained")
    record = json.loads((out / "one.json").read_text())
    assert record["settings"]["inference"]["windows"] == "trained"
    again = ct_attn("predict", "-m", models[0], "-i", noise, "-o", out)
    assert again.returncode == 2
    assert "made with other settings (inference)" in again.stderr


def test_a_confidence_that_was_never_calibrated_is_called_so_in_one_line(models, noise, tmp_path):
    done = succeed("-m", models[0], "-i", noise, "-o", tmp_path / "masks", "--statistics")
    said = [line for line in done.stderr.splitlines() if "uncalibrated" in line]
    assert said == [
        "note: confidence is uncalibrated: ct-attn calibrate -m MODEL --data MANIFEST says what it is worth"
    ]
    for name in ("one", "two"):
        assert json.loads((tmp_path / "masks" / f"{name}.json").read_text())["uncalibrated"] in said[0]


def test_openvino_is_not_compiled_through_torch(models, noise, tmp_path):
    done = ct_attn("predict", "-m", models[0], "-i", noise / "one.nii.gz", "-o", tmp_path / "mask.nii.gz",
                   "--device", "cpu", "--backend", "openvino", "--compile")  # fmt: skip
    assert done.returncode == 2
    assert "--compile: expected the torch backend, found --backend openvino" in done.stderr
    assert not list(tmp_path.glob("mask*"))
