"""Evaluating and comparing through the installed ``ct-attn`` command."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from matplotlib.image import imread

from ct_attn.labels import DISK_SCHEME
from ct_attn.manifest import read_manifest
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Mask, Volume
from tests.command import ct_attn as here
from tests.integration.test_command_line import assert_refused, ct_attn, succeed
from tests.unit.scan_io.mha_nrrd_files import write_mha

GRID = Grid(shape=(30, 26, 20), affine=np.diag([1.5, 1.5, 3.0, 1.0]))
N_CASES = 4


def write(path, shift):
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[4 + shift : 14 + shift, 4:14, 4:12] = DISK_SCHEME.codes["spleen"]
    labels[18:26, 14 : 22 + shift, 6:14] = DISK_SCHEME.codes["left_kidney"]
    nifti.write_mask(Mask(labels=labels, grid=GRID), path, scheme=DISK_SCHEME)


@pytest.fixture
def masks(tmp_path):
    for case in range(N_CASES):
        write(tmp_path / "truth" / f"case{case}.nii.gz", 0)
        write(tmp_path / "good" / f"case{case}.nii.gz", case % 2)
        write(tmp_path / "poor" / f"case{case}.nii.gz", 2 + case % 2)
    return tmp_path


def evaluate(folder, predicted, output, *options):
    return ct_attn("evaluate", "--truth", folder / "truth", "--predicted", folder / predicted,
                   "-o", folder / output, *options)  # fmt: skip


def test_one_torn_file_is_named_and_counted_and_the_exit_code_is_1(masks):
    torn = masks / "good" / "case2.nii.gz"
    torn.write_bytes(torn.read_bytes()[:60])
    done = {n: evaluate(masks, "good", f"out{n}", "--workers", n) for n in (1, 2)}
    for one in done.values():
        assert one.returncode == 1
        assert f"failed: case2: {torn}" in one.stderr
        assert "1 of 4 cases failed" in one.stderr
        assert "Traceback" not in one.stderr
        assert "3 cases" in one.stdout
    one, two = ({path.name: path.read_bytes() for path in (masks / f"out{n}").iterdir()} for n in (1, 2))
    assert one == two


def test_every_slice_is_scored_when_asked_for(masks):
    done = evaluate(masks, "good", "out", "--per-slice", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert f"slices  {masks / 'out' / 'slices.csv'}" in done.stdout
    with (masks / "out" / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == N_CASES * 4 * GRID.shape[2]
    (middle,) = [
        row for row in rows if (row["case_id"], row["organ"], row["slice"]) == ("case1", "spleen", "8")
    ]
    assert (middle["state"], middle["position_mm"]) == ("scored", "24")
    assert float(middle["dsc"]) == pytest.approx(0.9)  # ten rows, of which one is shifted out
    assert float(middle["accuracy"]) == pytest.approx(1 - 20 / (30 * 26), abs=1e-5)
    assert {row["dsc"] for row in rows if row["state"] == "both empty"} == {""}


def test_every_case_is_drawn_where_a_manifest_says_where_its_scan_is(tiny_manifest, tmp_path):
    case = read_manifest(tiny_manifest).test[0]
    (tmp_path / "masks").mkdir()
    shutil.copy(tiny_manifest.parent / case.label, tmp_path / "masks" / f"{case.case_id}.nii.gz")
    options = ("--predicted", tmp_path / "masks", "--side-by-side", "--pictures", 0, "--viewer", 0)
    done = succeed("evaluate", "--truth", tiny_manifest, *options, "-o", tmp_path / "out")
    assert f"pictures {tmp_path / 'out' / 'pictures'}" in done.stdout
    picture = imread(tmp_path / "out" / "pictures" / f"{case.case_id}.png")
    assert picture.shape[1] > 3 * picture.shape[0] / 2
    refused = ct_attn("evaluate", "--truth", tmp_path / "masks", *options, "-o", tmp_path / "other")
    assert_refused(refused, "manifest", "--side-by-side")
    assert not (tmp_path / "other").exists()


def test_masks_on_another_grid_are_resampled_only_when_asked_and_aloud(masks):
    moved = GRID.affine.copy()
    moved[2, 3] = 0.5
    mask, _ = nifti.read_mask(masks / "good" / "case1.nii.gz")
    other = Mask(labels=mask.labels, grid=Grid(shape=GRID.shape, affine=moved))
    nifti.write_mask(other, masks / "good" / "case1.nii.gz", scheme=DISK_SCHEME)
    assert "case1.nii.gz: expected the grid of" in evaluate(masks, "good", "out").stderr
    done = evaluate(masks, "good", "out", "--resample-predictions")
    assert done.returncode == 0
    assert "resampled onto the truth's grid: case1" in done.stderr


def total_segmentator_like(folder):
    """A truth of this package, and the same organs in TotalSegmentator's codes among others of its own.

    A cyst counts as kidney there, and the prediction says nothing of its codes.
    """
    codes = {"spleen": 1, "right_kidney": 2, "left_kidney": 3, "pancreas": 7}
    others = {"liver": 5, "aorta": 52, "kidney_cyst_left": 23, "costal_cartilages": 117}
    truth = np.zeros(GRID.shape, dtype=np.uint8)
    predicted = np.zeros(GRID.shape, dtype=np.uint8)
    for place, organ in enumerate(codes):
        box = (slice(2 + 6 * place, 6 + 6 * place), slice(3, 12), slice(3, 15))
        truth[box], predicted[box] = DISK_SCHEME.codes[organ], codes[organ]
    for place, code in enumerate(others.values()):
        predicted[2 + 6 * place : 6 + 6 * place, 16:20, 3:15] = code
    cyst = (slice(14, 18), slice(3, 5), slice(3, 15))  # in the left kidney
    predicted[cyst] = others["kidney_cyst_left"]
    nifti.write_mask(Mask(labels=truth, grid=GRID), folder / "truth" / "a.nii.gz", scheme=DISK_SCHEME)
    hu = predicted.astype(np.int16)
    nifti.write_volume(Volume(hu=hu, grid=GRID), folder / "predicted" / "a.nii.gz")
    return "spleen=1,right_kidney=2,left_kidney=3,left_kidney=23,pancreas=7"


def scores_in(folder):
    with (folder / "scores.csv").open() as file:
        return {row["organ"]: row for row in csv.DictReader(file)}


def test_a_label_map_with_many_other_organs_is_scored_when_its_codes_are_named(tmp_path):
    organs = total_segmentator_like(tmp_path)
    command = ("evaluate", "--truth", tmp_path / "truth", "--predicted", tmp_path / "predicted")
    labels = f"{organs},ignore=4-6,ignore=8-22,ignore=24-117"
    done = here(*command, "-o", tmp_path / "out", "--predicted-labels", labels)
    assert done.returncode == 0, done.stderr
    scores = scores_in(tmp_path / "out")
    assert set(scores) == set(DISK_SCHEME.codes)
    assert {row["dsc"] for organ, row in scores.items() if organ != "left_kidney"} == {"1"}
    assert float(scores["left_kidney"]["recall"]) == 1  # with its cyst
    unnamed = here(*command, "-o", tmp_path / "other", "--predicted-labels", organs)
    assert_refused(
        unnamed, "a.nii.gz", "found code 5, 52, 117", "--predicted-labels", "ignore=5,ignore=52,ignore=117"
    )
    unsaid = here(*command, "-o", tmp_path / "other")
    assert_refused(unsaid, "a.nii.gz", "say with --predicted-labels what all its codes mean")
    assert not (tmp_path / "other").exists()


def test_both_sides_may_lie_in_foreign_codes(tmp_path):
    organs = total_segmentator_like(tmp_path)
    shutil.copy(tmp_path / "predicted" / "a.nii.gz", tmp_path / "truth" / "a.nii.gz")
    command = ("evaluate", "--truth", tmp_path / "truth", "--predicted", tmp_path / "predicted")
    truth = "kidney=2,kidney=3,kidney=23,spleen=1,ignore=4-22,ignore=24-255"
    predicted = f"{organs},ignore=4-6,ignore=8-22,ignore=24-117"
    done = here(*command, "-o", tmp_path / "out", "--truth-labels", truth, "--predicted-labels", predicted)
    assert done.returncode == 0, done.stderr
    assert {organ: row["dsc"] for organ, row in scores_in(tmp_path / "out").items()} == {
        "spleen": "1",
        "kidney": "1",
    }
    again = here(*command, "-o", tmp_path / "again", "--truth-labels", truth)  # the prediction's codes, too
    assert again.returncode == 0, again.stderr
    note = "note: Nothing says what the prediction's codes mean; they were read like the truth's: all cases"
    assert note in again.stderr
    assert "note:" not in done.stderr
    assert (tmp_path / "again" / "scores.csv").read_bytes() == (tmp_path / "out" / "scores.csv").read_bytes()


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ("liver=5", "unknown organ liver; known are pancreas, spleen, left_kidney, right_kidney, kidney"),
        ("kidney=3,spleen=3", "code 3 stands twice"),
        ("kidney=3,left_kidney=4", "kidney beside left_kidney"),
        ("kidney", "kidney is not organ=code"),
        ("ignore=1-9", "no organ"),
    ],
)
@pytest.mark.parametrize("option", ["--truth-labels", "--predicted-labels"])
def test_codes_that_contradict_themselves_are_refused_with_the_remedy(tmp_path, option, labels, complaint):
    done = here(
        "evaluate", "--truth", tmp_path, "--predicted", tmp_path, "-o", tmp_path / "out", option, labels
    )
    assert_refused(done, f"{option} {labels}", complaint, "with ignore=CODE or ignore=CODE-CODE all others")


def test_masks_of_other_formats_are_scored_and_twins_refused(masks):
    for case in range(N_CASES):
        path = masks / "good" / f"case{case}.nii.gz"
        labels = nifti.read_mask(path)[0].labels
        path.unlink()
        write_mha(path.with_name(f"case{case}.mha"), labels, GRID, packed=True)
    done = here("evaluate", "--truth", masks / "truth", "--predicted", masks / "good", "-o", masks / "out")
    assert done.returncode == 0, done.stderr
    assert scores_in(masks / "out")["spleen"]["dsc"] == "0.9"  # of the last case, shifted by one
    write(masks / "good" / "case2.nii.gz", 0)
    done = here("evaluate", "--truth", masks / "truth", "--predicted", masks / "good", "-o", masks / "other")
    assert_refused(done, str(masks / "good"), "case2.mha and case2.nii.gz")


def test_a_prediction_somewhere_else_is_said_aloud(masks):
    far = GRID.affine.copy()
    far[2, 3] = 500
    mask, _ = nifti.read_mask(masks / "good" / "case1.nii.gz")
    other = Mask(labels=mask.labels, grid=Grid(shape=GRID.shape, affine=far))
    nifti.write_mask(other, masks / "good" / "case1.nii.gz", scheme=DISK_SCHEME)
    done = here("evaluate", "--truth", masks / "truth", "--predicted", masks / "good", "-o", masks / "out",
                "--resample-predictions")  # fmt: skip
    assert done.returncode == 0
    assert "warning: case1: 100% of the true organs lie outside the prediction's grid" in done.stderr
    assert "warning: case1: 100% of the predicted organs lie outside the truth's grid" in done.stderr
    assert done.stderr.count("warning:") == 2


def test_runs_are_compared_or_refused(masks):
    for run in ("good", "poor"):
        assert evaluate(masks, run, f"scores/{run}").returncode == 0
    scores = masks / "scores"
    done = succeed("compare", scores / "poor", scores / "good", "-o", masks / "comparison")
    assert "good − poor" in done.stdout
    assert "4/0/0" in done.stdout
    assert (masks / "comparison" / "report.html").is_file()
    (masks / "truth" / "case3.nii.gz").unlink()
    (masks / "good" / "case3.nii.gz").unlink()
    assert evaluate(masks, "good", "fewer/good").returncode == 0
    pair = scores / "poor", masks / "fewer" / "good"
    assert_refused(ct_attn("compare", *pair, "-o", masks / "other"), "case3", "--intersection")
    assert not (masks / "other").exists()
    done = succeed("compare", *pair, "-o", masks / "other", "--intersection")
    assert "left out of poor: case3" in done.stderr


def test_cases_are_drawn_beside_their_truth_or_it_is_said_what_is_missing(masks):
    for run in ("good", "poor"):
        assert evaluate(masks, run, f"scores/{run}").returncode == 0
    command = ("compare", masks / "scores" / "poor", masks / "scores" / "good", "-o", masks / "out")
    options = ("--pictures", 1, "--truth", masks / "truth", "--predicted", f"good={masks / 'good'}")
    assert_refused(ct_attn(*command, *options), "poor", "--predicted poor=FOLDER")
    assert_refused(ct_attn(*command, "--pictures", 1), "--truth")
    assert_refused(ct_attn(*command, "--pictures", 1, "--predicted", "poor"), "NAME=FOLDER")
    assert not (masks / "out").exists()
    done = succeed(*command, *options, "--predicted", f"poor={masks / 'poor'}")
    pictures = sorted(path.name for path in (masks / "out" / "pictures").iterdir())
    assert len(pictures) == 2
    assert all(name in done.stdout.replace("\n", "") for name in pictures)
    assert (masks / "out" / "report.html").read_text().count("data:image/png;base64,") == 2


def test_an_unknown_convention_is_refused(masks):
    done = evaluate(masks, "good", "out", "--surface-convention", "round")
    assert done.returncode == 2
    assert "'area', 'voxel', 'contour'" in done.stderr
