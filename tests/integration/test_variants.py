"""The written-up forms train and predict a whole scan from their recipes, through ``ct-attn``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ct_attn.manifest import read_manifest
from ct_attn.network.resnet import ResNetEncoder
from ct_attn.recipe import read_recipe
from ct_attn.scan_io import nifti
from ct_attn.scan_io.scan import read_scan
from tests.command import ct_attn

VARIANTS = Path(__file__).resolve().parents[2] / "pipelines" / "variants"
SHORT = (
    "training.epochs=1", "training.validate_every=1", "training.batches_per_epoch=2",
    "training.precision=fp32", "inference.precision=fp32", "inference.overlap=0",
)  # fmt: skip
NARROW = {
    "unet": ("network.widths=[2,3,4,4,5]",),
    "attention_unet": ("network.widths=[2,3,4,4,5]",),
    "resnet_attention_unet": ("network.finest_width=4",),
    "guided_attention": ("network.width=8", "network.depth=18"),
}
RECIPES = sorted(path.stem for path in VARIANTS.glob("*.yaml"))


def small(recipe) -> list[str]:
    read = read_recipe(VARIANTS / f"{recipe}.yaml")
    size = ("[8,8,8]", "[32,32,32]") if read.slices is None else ("[8,8,null]", "[32,32,1]")
    changes = (f"preprocessing.spacing_mm={size[0]}", f"training.patch_size={size[1]}")
    return [word for change in (*changes, *SHORT, *NARROW[read.network.kind]) for word in ("--set", change)]


def trained(recipe, manifest, output, *changes):
    words = [word for change in changes for word in ("--set", change)]
    done = ct_attn(
        "train", VARIANTS / f"{recipe}.yaml", "--data", manifest, "-o", output, *small(recipe), *words
    )
    assert done.returncode == 0, done.stderr
    return output / "model"


def predicted_like(model, scan, output):
    done = ct_attn("predict", "-m", model, "-i", scan, "-o", output)
    assert done.returncode == 0, done.stderr
    mask, _ = nifti.read_mask(output)
    assert mask.grid.is_same_as(read_scan(scan).grid)
    return mask.labels


def sees_slices(recipe) -> bool:
    return read_recipe(VARIANTS / f"{recipe}.yaml").slices is not None


@pytest.fixture(scope="module")
def real_manifest(tiny_manifest, tmp_path_factory):
    """A cohort whose one case to train on is the labelled real scan; None where that is missing."""
    real = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "abdomen_ct_3mm"
    if not real.is_dir():
        return None
    folder = tmp_path_factory.mktemp("real")
    manifest = json.loads(tiny_manifest.read_text(encoding="utf-8"))
    validated = next(case for case in manifest["training"] if case["fold"] == 0)
    for name in ("image", "label"):
        validated[name] = os.path.relpath(tiny_manifest.parent / validated[name], folder)
    scan = {"case_id": "real", "patient_id": "real", "fold": 1}
    scan |= {"image": os.path.relpath(real / "ct.nii.gz", folder)}
    scan |= {"label": os.path.relpath(real / "label.nii.gz", folder)}
    manifest |= {"training": [validated, scan], "test": [], "numTraining": 2, "numTest": 0}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder / "manifest.json"


@pytest.fixture(scope="module", params=RECIPES)
def recipe_and_model(request, tiny_manifest, real_manifest, tmp_path_factory):
    """Forms of slices are trained on the real scan where it is there."""
    output = tmp_path_factory.mktemp(request.param) / "run"
    manifest = real_manifest if real_manifest and sees_slices(request.param) else tiny_manifest
    return request.param, trained(request.param, manifest, output)


@pytest.mark.slow
def test_a_form_trains_and_predicts_a_whole_scan(recipe_and_model, tiny_manifest, tmp_path):
    _, model = recipe_and_model
    (case,) = read_manifest(tiny_manifest).test
    labels = predicted_like(model, tiny_manifest.parent / case.image, tmp_path / "mask.nii.gz")
    assert set(np.unique(labels)) <= {0, 1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("scan", ["abdomen_ct_3mm/ct.nii.gz", "abdomen_ct_dicom"])
def test_a_form_of_slices_predicts_a_real_scan(recipe_and_model, scan, shared_data, tmp_path):
    recipe, model = recipe_and_model
    if not sees_slices(recipe):
        pytest.skip("a form of volumes")
    labels = predicted_like(model, shared_data / scan, tmp_path / "mask.nii.gz")
    assert set(np.unique(labels)) <= {0, 1, 2, 3}


PLANES = {"coronal": ("[8,null,8]", "[32,1,32]"), "sagittal": ("[null,8,8]", "[1,32,32]")}


@pytest.mark.slow
@pytest.mark.parametrize("plane", PLANES)
def test_slices_of_another_plane_train_and_predict(plane, tiny_manifest, tmp_path):
    spacing, patch = PLANES[plane]
    changes = (f"slices.plane={plane}", f"preprocessing.spacing_mm={spacing}", f"training.patch_size={patch}")
    model = trained("attention_unet_2_5d", tiny_manifest, tmp_path / "run", *changes)
    (case,) = read_manifest(tiny_manifest).test
    predicted_like(model, tiny_manifest.parent / case.image, tmp_path / "mask.nii.gz")


@pytest.mark.parametrize(
    ("recipe", "change", "what"),
    [
        ("report_2d", "slices.neighbours=4", "expected an odd number"),
        ("report_2d", "slices.plane=oblique", "'axial', 'coronal' or 'sagittal'"),
        ("report_2d", "slices=null", "add a section slices, or take dims 3"),
        ("slides_3d", "network.dims=2", "add a section slices, or take dims 3"),
        ("reimplementation_3d", "network.dims=2", "add a section slices, or take dims 3"),
        ("slides_3d", "slices={}", "slices need a network with dims: 2"),
        ("report_2d", "preprocessing.spacing_mm=[2,2,2]", "expected null"),
        ("report_2d", "training.patch_size=[250,256,1]", "multiple of 8"),
    ],
)
def test_what_does_not_fit_slices_is_one_line(recipe, change, what, tiny_manifest, tmp_path):
    command = ("train", VARIANTS / f"{recipe}.yaml", "--data", tiny_manifest, "-o", tmp_path / "run")
    done = ct_attn(*command, "--set", change)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert what in done.stderr
    assert not (tmp_path / "run").exists()


def photographs_weights(depth):
    """A weight file's content in torchvision's naming: what the encoder has, and a classifier."""
    encoder = ResNetEncoder(depth, dims=2, in_channels=3)
    weights = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    features = 512 if depth < 50 else 2048
    return {**weights, "fc.weight": torch.zeros(1000, features), "fc.bias": torch.zeros(1000)}


@pytest.mark.slow
def test_weights_of_photographs_start_an_encoder_of_slices(tiny_manifest, tmp_path):
    torch.save(photographs_weights(18), tmp_path / "resnet18.pth")
    recipe = VARIANTS / "resnet18_2_5d.yaml"
    command = ("train", recipe, "--data", tiny_manifest, "-o", tmp_path / "run", *small("resnet18_2_5d"))
    done = ct_attn(*command, "--pretrained-encoder", tmp_path / "resnet18.pth")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "not used: fc.weight, fc.bias; network.normalisation: imagenet" in said


def of_part(folder):
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, folder / "part.safetensors")
    return folder / "part.safetensors"


def of_another_depth(folder):
    torch.save(photographs_weights(50), folder / "resnet50.pth")
    return folder / "resnet50.pth"


def of_a_whole_object(folder):
    torch.save(torch.nn.Linear(2, 2), folder / "module.pth")
    return folder / "module.pth"


def of_text(folder):
    (folder / "table.pth").write_text("abc,def\n")
    return folder / "table.pth"


def of_nothing(folder):
    (folder / "empty.pth").touch()
    return folder / "empty.pth"


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (of_part, "it has no bn1"),
        (of_another_depth, "encoder's"),
        (of_a_whole_object, "objects that only running code from the file would read"),
        (of_text, "another format"),
        (of_nothing, "another format"),
        (lambda folder: folder / "nowhere.pth", "No such file"),
    ],
    ids=["a part", "another depth", "a whole object", "text", "nothing", "no file"],
)
def test_a_wrong_weight_file_is_one_line(make, what, tiny_manifest, tmp_path):
    file = make(tmp_path)
    command = ("train", VARIANTS / "resnet18_2_5d.yaml", "--data", tiny_manifest, "-o", tmp_path / "run")
    done = ct_attn(*command, "--pretrained-encoder", file)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"{file}: expected" in done.stderr
    assert what in done.stderr
    assert not (tmp_path / "run").exists()


def test_five_neighbours_find_no_stem_in_weights_of_photographs(tiny_manifest, tmp_path):
    torch.save(photographs_weights(18), tmp_path / "resnet18.pth")
    command = ("train", VARIANTS / "resnet18_2_5d.yaml", "--data", tiny_manifest, "-o", tmp_path / "run")
    done = ct_attn(
        *command, "--pretrained-encoder", tmp_path / "resnet18.pth", "--set", "slices.neighbours=5"
    )
    assert done.returncode == 2
    assert "three channels are summed for 1, or kept for 3 (slices.neighbours)" in done.stderr
