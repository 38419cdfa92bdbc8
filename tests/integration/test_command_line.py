"""The whole path through the installed ``ct-attn`` command, and the errors a user can cause."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ct_attn.labels import PAPER_SCHEME
from ct_attn.recipe import read_recipe
from ct_attn.scan_io import nifti

COMMAND = Path(sys.executable).with_name("ct-attn")

RECIPE = """
name: end to end
preprocessing: {spacing_mm: [6, 6, 6], hu_window: [-120, 240]}
network: {kind: attention_unet, widths: [8, 16, 32]}
training:
  patch_size: [48, 48, 32]
  epochs: 5
  validate_every: 5
  batches_per_epoch: 20
  optimizer: {learning_rate: 0.01, schedule: cosine}
"""

#: Reached by the trained network with room to spare, and by no untrained one.
DSC_FLOOR = 0.4


def ct_attn(*arguments, timeout=600):
    return subprocess.run(
        [COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False
    )


def succeed(*arguments):
    done = ct_attn(*arguments)
    assert done.returncode == 0, done.stderr
    return done


def mean_dsc(scores_csv):
    with scores_csv.open() as file:
        return float(
            np.mean([float(row["dsc"]) for row in csv.DictReader(file) if row["organ"] != "pancreas"])
        )


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A folder with a cohort, a trained run, masks and an evaluation, all made by the command."""
    folder = tmp_path_factory.mktemp("road")
    (folder / "recipe.yaml").write_text(RECIPE)
    succeed("phantom", "-o", folder / "cohort", "-n", 6, "--test", 2, "--folds", 3, "--seed", 5,
            "--pixel-mm", 3, 3, "--slice-mm", 5, 5)  # fmt: skip
    manifest = folder / "cohort" / "manifest.json"
    succeed("train", folder / "recipe.yaml", "--data", manifest, "-o", folder / "run")
    succeed(
        "predict",
        "-m",
        folder / "run" / "model",
        "-i",
        folder / "cohort" / "imagesTs",
        "-o",
        folder / "masks",
    )
    succeed("evaluate", "--truth", manifest, "--predicted", folder / "masks", "-o", folder / "scores")
    return folder


def test_a_trained_network_finds_spleen_and_kidneys_in_held_out_cases(road):
    assert mean_dsc(road / "scores" / "scores.csv") > DSC_FLOOR


def test_an_untrained_network_fails_the_same_floor(road, tmp_path):
    run, masks = tmp_path / "run", tmp_path / "masks"
    succeed("train", road / "recipe.yaml", "--data", road / "cohort" / "manifest.json", "-o", run,
            "--set", "training.optimizer.learning_rate=1e-12",
            "--set", "training.batches_per_epoch=1")  # fmt: skip
    resolved = read_recipe(run / "recipe.yaml").training
    assert (resolved.optimizer.learning_rate, resolved.batches_per_epoch) == (1e-12, 1)
    succeed("predict", "-m", run / "model", "-i", road / "cohort" / "imagesTs", "-o", masks)
    succeed("evaluate", "--truth", road / "cohort" / "labelsTs", "--predicted", masks, "-o", tmp_path)
    assert mean_dsc(tmp_path / "scores.csv") < DSC_FLOOR / 2


def test_masks_lie_on_their_scans_grids_and_say_what_their_codes_mean(road):
    scans = sorted((road / "cohort" / "imagesTs").iterdir())
    assert len(scans) == 2
    for scan in scans:
        image, mask = nib.load(scan), nib.load(road / "masks" / scan.name)
        assert mask.shape == image.shape
        assert mask.get_data_dtype() == np.uint8
        assert np.array_equal(mask.affine, image.affine)
        for field in ("sform_code", "qform_code", "xyzt_units"):
            assert mask.header[field] == image.header[field]
        assert nifti.read_mask(road / "masks" / scan.name)[1] == PAPER_SCHEME


def test_the_evaluation_has_a_row_per_case_and_organ_and_a_report_with_pictures(road):
    with (road / "scores" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case_id"], row["organ"]) for row in rows] == [
        (f"phantom_5_t00{case}", organ) for case in (0, 1) for organ in ("pancreas", "spleen", "kidney")
    ]
    summary = json.loads((road / "scores" / "scores.json").read_text())["summary"]
    spleens = [float(row["dsc"]) for row in rows if row["organ"] == "spleen"]
    assert summary[1]["dsc"]["mean"] == pytest.approx(np.mean(spleens), abs=1e-5)
    report = (road / "scores" / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 4  # contours and errors of both cases


def test_help_answers_at_once_and_imports_nothing_heavy():
    heavy = ("torch", "monai", "lightning", "numpy")
    code = f"import sys, ct_attn.cli; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    assert "evaluate" in succeed("--help").stdout


def test_doctor_names_versions_and_devices():
    told = succeed("doctor").stdout
    for subject in ("ct_attn", "torch", "monai", "processor", "bf16 on CPU"):
        assert subject in told


def assert_refused(done, *words):
    """Exit code 2 and one line that holds the words."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_a_missing_scan_is_one_line(road, tmp_path):
    done = ct_attn(
        "predict", "-m", road / "run" / "model", "-i", tmp_path / "no.nii.gz", "-o", tmp_path / "m.nii.gz"
    )
    assert_refused(done, "no.nii.gz", "check the path")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_one_line(road, tmp_path):
    (tmp_path / "empty").mkdir()
    done = ct_attn(
        "predict", "-m", road / "run" / "model", "-i", tmp_path / "empty", "-o", tmp_path / "masks"
    )
    assert_refused(done, "empty")
    assert not (tmp_path / "masks").exists()


def test_a_missing_model_is_one_line(road, tmp_path):
    scan = next((road / "cohort" / "imagesTs").iterdir())
    done = ct_attn("predict", "-m", tmp_path, "-i", scan, "-o", tmp_path / "m.nii.gz")
    assert_refused(done, "model.safetensors", "training run")
    assert not list(tmp_path.iterdir())


def test_an_existing_mask_is_not_replaced_unless_asked(road, tmp_path):
    scan = next((road / "cohort" / "imagesTs").iterdir())
    target = tmp_path / "m.nii.gz"
    target.write_text("mine")
    done = ct_attn("predict", "-m", road / "run" / "model", "-i", scan, "-o", target)
    assert_refused(done, "m.nii.gz", "--overwrite")
    assert target.read_text() == "mine"


def test_one_bad_scan_in_a_folder_is_named_and_the_others_are_done(road, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    good = next((road / "cohort" / "imagesTs").iterdir())
    (scans / "good.nii.gz").write_bytes(good.read_bytes())
    (scans / "torn.nii.gz").write_bytes(good.read_bytes()[:5000])
    done = ct_attn("predict", "-m", road / "run" / "model", "-i", scans, "-o", tmp_path / "masks")
    assert done.returncode == 1
    assert "torn.nii.gz" in done.stderr
    assert "Traceback" not in done.stderr
    made = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert made == ["good.json", "good.nii.gz", "torn.failed.json"]


def test_an_unknown_key_in_a_recipe_is_one_line_with_file_and_line(road, tmp_path):
    recipe = tmp_path / "typo.yaml"
    recipe.write_text("name: typo\ntraining:\n  learning_rat: 0.1\n")
    done = ct_attn("train", recipe, "--data", road / "cohort" / "manifest.json", "-o", tmp_path / "run")
    assert_refused(done, "typo.yaml:3", "learning_rat")
    assert not (tmp_path / "run").exists()


def test_wrong_label_codes_are_one_line(road, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in (road / "masks").glob("*.nii.gz"):
        mask, scheme = nifti.read_mask(path)
        mask.labels[0, 0, 0] = 77
        nifti.write_mask(mask, masks / path.name, scheme=scheme)
    done = ct_attn(
        "evaluate", "--truth", road / "cohort" / "labelsTs", "--predicted", masks, "-o", tmp_path / "out"
    )
    assert_refused(done, "phantom_5_t000.nii.gz", "code 77")
    assert not (tmp_path / "out").exists()


def test_masks_on_another_grid_are_one_line(road, tmp_path):
    truth = next((road / "cohort" / "labelsTs").iterdir())
    image = nib.load(truth)
    shifted = image.affine.copy()
    shifted[2, 3] += 10
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), shifted), tmp_path / "shifted.nii.gz")
    done = ct_attn(
        "evaluate", "--truth", truth, "--predicted", tmp_path / "shifted.nii.gz", "-o", tmp_path / "out"
    )
    assert_refused(done, "shifted.nii.gz", truth.name, "10 mm")
    assert not (tmp_path / "out").exists()


def test_missing_and_extra_predictions_are_one_line(road, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    some = next((road / "masks").iterdir())
    (masks / some.name).write_bytes(some.read_bytes())
    (masks / "stranger.nii.gz").write_bytes(some.read_bytes())
    done = ct_attn(
        "evaluate", "--truth", road / "cohort" / "labelsTs", "--predicted", masks, "-o", tmp_path / "out"
    )
    assert_refused(done, "stranger", "phantom_5_t00")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_takes_no_more_is_one_line(road, tmp_path):
    # A limit on the size of files stands in for a full disk.
    scan = next((road / "cohort" / "imagesTs").iterdir())
    predict = f"{COMMAND} predict -m {road}/run/model -i {scan} -o {tmp_path}/mask.nii.gz"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 1; {predict}"], capture_output=True, text=True, check=False, timeout=120
    )
    assert_refused(done, "mask.nii.gz")
    assert not list(tmp_path.iterdir())


def test_training_says_where_it_keeps_prepared_cases_and_mends_a_damaged_one(road, tmp_path):
    def train(output, cache):
        short = ("batches_per_epoch=1", "epochs=1", "validate_every=1")
        settings = [part for field in short for part in ("--set", f"training.{field}")]
        manifest = road / "cohort" / "manifest.json"
        recipe = road / "recipe.yaml"
        return ct_attn("train", recipe, "--data", manifest, "-o", output, "--cache", cache, *settings)

    done = train(tmp_path / "one", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert f"prepared cases are kept in {tmp_path / 'cache'}" in done.stderr
    damaged = min((tmp_path / "cache").iterdir())
    whole = damaged.stat().st_size
    damaged.write_bytes(damaged.read_bytes()[: whole // 2])
    assert train(tmp_path / "two", tmp_path / "cache").returncode == 0
    assert damaged.stat().st_size == whole
    weights = [(tmp_path / run / "log.csv").read_bytes() for run in ("one", "two")]
    assert weights[0] == weights[1]


def test_a_cache_that_cannot_be_written_is_one_line(road, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = ct_attn("train", road / "recipe.yaml", "--data", road / "cohort" / "manifest.json",
                   "-o", tmp_path / "run", "--cache", tmp_path / "file")  # fmt: skip
    assert_refused(done, "--cache")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_output_folder_that_is_a_file_is_one_line(road, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    manifest = road / "cohort" / "manifest.json"
    for command in (
        ("train", road / "recipe.yaml", "--data", manifest, "-o", taken),
        ("phantom", "-o", taken, "-n", 2, "--folds", 2),
        ("demo", "-o", taken),
        ("evaluate", "--truth", manifest, "--predicted", road / "masks", "-o", taken),
        ("predict", "-m", road / "run" / "model", "-i", road / "cohort" / "imagesTs", "-o", taken),
    ):
        assert_refused(ct_attn(*command), "taken")
    assert taken.read_text() == "mine"


@pytest.fixture(params=["abdomen_ct_3mm/ct.nii.gz", "abdomen_ct_dicom"])
def real_scan(request, shared_data):
    return shared_data / request.param


def test_real_scans_get_masks_on_their_own_grids(real_scan, road, tmp_path):
    from ct_attn.scan_io.scan import read_scan

    started = time.monotonic()
    succeed("predict", "-m", road / "run" / "model", "-i", real_scan, "-o", tmp_path / "mask.nii.gz")
    assert time.monotonic() - started < 300
    mask, scheme = nifti.read_mask(tmp_path / "mask.nii.gz")
    assert scheme == PAPER_SCHEME
    scan = read_scan(real_scan)
    assert mask.grid.shape == scan.grid.shape
    assert np.abs(mask.grid.affine - scan.grid.affine).max() < 1e-4
    assert not scheme.unknown_codes(mask.labels)
