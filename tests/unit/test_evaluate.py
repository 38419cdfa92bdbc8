"""Evaluation from files to files."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from ct_attn.datasets.source import CodeTable
from ct_attn.errors import UserError
from ct_attn.evaluate import Reading, Showing, evaluate
from ct_attn.labels import DISK_SCHEME, ORGANS, PAPER_SCHEME, LabelScheme
from ct_attn.manifest import Case, Manifest, write_manifest
from ct_attn.metrics.scores import ScoreOptions, State, SurfaceConvention
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Mask, Volume

GRID = Grid(shape=(24, 20, 12), affine=np.diag([-2.0, -2.0, 3.0, 1.0]))


def sided_truth():
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[2:6, 4:10, 3:9] = 3
    labels[16:20, 4:10, 3:9] = 4
    labels[10:14, 12:16, 4:8] = 1
    return labels


def write(path, labels, scheme):
    nifti.write_mask(Mask(labels=labels, grid=GRID), path, scheme=scheme)
    return path


def test_one_kidney_predicted_against_two_sides_is_compared_as_kidney(tmp_path, silent):
    truth = write(tmp_path / "a.nii.gz", sided_truth(), DISK_SCHEME)
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[2:6, 4:10, 3:9] = PAPER_SCHEME.codes["kidney"]  # the left one only
    predicted = write(tmp_path / "p.nii.gz", labels, PAPER_SCHEME)
    made = evaluate(truth, predicted, tmp_path / "out", progress=silent)
    by_organ = {score.organ: score for score in made.scores}
    assert by_organ["kidney"].dsc == pytest.approx(2 / 3)
    assert by_organ["kidney"].recall == pytest.approx(0.5)
    assert by_organ["pancreas"].state == State.MISSED
    assert by_organ["spleen"].state == State.BOTH_EMPTY
    assert "give the scans" not in made.report.read_text()
    assert json.loads(made.scores_json.read_text())["cases"][0]["case_id"] == "a"


def test_foreign_codes_are_read_as_the_table_given_says(tmp_path, silent):
    foreign = CodeTable(organs={9: "kidney", 5: "pancreas"})
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    truth = sided_truth()
    labels[truth >= 3] = 9
    labels[truth == 1] = 5
    truth_path = write(tmp_path / "a.nii.gz", truth, DISK_SCHEME)
    predicted = tmp_path / "p.nii.gz"
    nifti.write_volume(Volume(hu=labels.astype(np.int16), grid=GRID), predicted)  # says nothing of its codes
    made = evaluate(
        truth_path, predicted, tmp_path / "out", progress=silent, reading=Reading(predicted_codes=foreign)
    )
    assert {score.organ: score.dsc for score in made.scores} == {"kidney": 1.0, "pancreas": 1.0}


def test_a_prediction_that_does_not_say_its_codes_is_read_in_the_truths(tmp_path, silent):
    truth_path = write(tmp_path / "a.nii.gz", sided_truth(), DISK_SCHEME)
    predicted = tmp_path / "p.nii.gz"
    nifti.write_volume(Volume(hu=sided_truth().astype(np.int16), grid=GRID), predicted)
    made = evaluate(truth_path, predicted, tmp_path / "out", progress=silent)
    assert {score.organ for score in made.scores} == set(DISK_SCHEME.names)
    assert all(score.dsc in (1.0, None) for score in made.scores)
    [sentence] = made.presumed
    assert sentence == (
        "Nothing says what the prediction's codes mean; they were read like the truth's: all cases"
    )
    assert sentence.replace("'", "&#39;") in made.report.read_text()


def test_cases_whose_codes_nobody_said_are_named(tmp_path, silent):
    truth, predicted = folders(tmp_path)
    hu = sided_truth().astype(np.int16)
    nifti.write_volume(Volume(hu=hu, grid=GRID), truth / "case1.nii.gz")
    made = evaluate(truth, predicted, tmp_path / "out", progress=silent)
    [sentence] = made.presumed
    assert "the truth's codes" in sentence
    assert sentence.endswith("read as 1 pancreas, 2 spleen, 3 left_kidney, 4 right_kidney: case1")


def test_an_organ_the_case_does_not_label_is_not_scored(tmp_path, silent):
    write(tmp_path / "a.nii.gz", sided_truth(), DISK_SCHEME)
    hu = np.zeros(GRID.shape, dtype=np.int16)
    nifti.write_volume(Volume(hu=hu, grid=GRID), tmp_path / "scan.nii.gz")
    case = Case(case_id="a", patient_id="a", image="scan.nii.gz", label="a.nii.gz",
                labelled_organs=("pancreas", "spleen", "left_kidney"))  # fmt: skip
    labels = {"0": "background"} | {str(code): name for name, code in DISK_SCHEME.codes.items()}
    kept = case.model_copy(update={"case_id": "b", "patient_id": "b", "fold": 0})
    manifest = Manifest(name="m", source="s", licence="l", labels=labels, training=(kept,), test=(case,))
    write_manifest(manifest, tmp_path / "manifest.json")
    (tmp_path / "masks").mkdir()
    empty = np.zeros(GRID.shape, dtype=np.uint8)
    write(tmp_path / "masks" / "a.nii.gz", empty, PAPER_SCHEME)
    made = evaluate(tmp_path / "manifest.json", tmp_path / "masks", tmp_path / "out", progress=silent)
    states = {score.organ: score.state for score in made.scores}
    assert states == {"pancreas": State.MISSED, "spleen": State.BOTH_EMPTY, "kidney": State.NOT_LABELLED}
    assert made.report.read_text().count("data:image/png") == 2  # contours and errors


def test_masks_without_a_common_organ_are_refused(tmp_path, silent):
    organ = (sided_truth() == 1).astype(np.uint8)
    truth = write(tmp_path / "a.nii.gz", organ, LabelScheme.from_names({"spleen": 1}))
    predicted = write(tmp_path / "p.nii.gz", organ, LabelScheme.from_names({"kidney": 1}))
    with pytest.raises(UserError, match="--truth-labels"):
        evaluate(truth, predicted, tmp_path / "out", progress=silent)
    assert not (tmp_path / "out").exists()


def folders(tmp_path, n_cases=3):
    """Truth and predictions of some cases; the predictions miss a slice of the spleen-to-be."""
    for case in range(n_cases):
        labels = sided_truth()
        write(tmp_path / "truth" / f"case{case}.nii.gz", labels, DISK_SCHEME)
        labels[:, :, 3 + case] = 0
        write(tmp_path / "predicted" / f"case{case}.nii.gz", labels, DISK_SCHEME)
    return tmp_path / "truth", tmp_path / "predicted"


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_workers_give_the_same_bytes_as_one(tmp_path, silent):
    pair = folders(tmp_path)
    evaluate(*pair, tmp_path / "one", progress=silent)
    evaluate(*pair, tmp_path / "two", progress=silent, workers=2)
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")
    assert len(files_in(tmp_path / "one")) == 3


def test_scores_per_slice_are_written_when_asked_for_and_never_left_from_before(tmp_path, silent):
    pair = folders(tmp_path)
    made = evaluate(*pair, tmp_path / "out", progress=silent, per_slice=True)
    evaluate(*pair, tmp_path / "two", progress=silent, per_slice=True, workers=2)
    assert files_in(tmp_path / "out") == files_in(tmp_path / "two")
    with made.slices_csv.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 4 * 12
    missed = [row for row in rows if row["state"] == "missed"]
    assert {(row["case_id"], row["slice"]) for row in missed} <= {(f"case{n}", str(3 + n)) for n in range(3)}
    assert {row["position_mm"] for row in rows if row["slice"] == "5"} == {"15"}
    again = evaluate(*pair, tmp_path / "out", progress=silent)
    assert again.slices_csv is None
    assert not made.slices_csv.exists()


def cohort(tmp_path, n_cases=3):
    """A manifest of test cases; the last one has an organ in neither mask."""
    truth, predicted = folders(tmp_path, n_cases)
    write(truth / f"case{n_cases - 1}.nii.gz", np.zeros(GRID.shape, np.uint8), DISK_SCHEME)
    write(predicted / f"case{n_cases - 1}.nii.gz", np.zeros(GRID.shape, np.uint8), DISK_SCHEME)
    cases = []
    for number in range(n_cases):
        scan = Volume(hu=np.full(GRID.shape, 40, np.int16), grid=GRID)
        nifti.write_volume(scan, tmp_path / f"scan{number}.nii.gz")
        cases.append(
            Case(case_id=f"case{number}", patient_id=f"p{number}", image=f"scan{number}.nii.gz",
                 label=f"truth/case{number}.nii.gz", labelled_organs=ORGANS)
        )  # fmt: skip
    labels = {"0": "background"} | {str(code): name for name, code in DISK_SCHEME.codes.items()}
    kept = cases[0].model_copy(update={"case_id": "b", "patient_id": "b", "fold": 0})
    manifest = Manifest(name="m", source="s", licence="l", labels=labels, training=(kept,), test=tuple(cases))
    write_manifest(manifest, tmp_path / "manifest.json")
    return tmp_path / "manifest.json", predicted


def test_every_case_is_drawn_side_by_side_and_the_report_is_what_it_was(tmp_path, silent):
    pair = cohort(tmp_path)
    showing = Showing(pictures=1, viewer=0, side_by_side=True)
    made = evaluate(*pair, tmp_path / "out", progress=silent, showing=showing)
    evaluate(*pair, tmp_path / "two", progress=silent, showing=showing, workers=2)
    pictures = files_in(made.pictures)
    assert sorted(pictures) == ["case0.png", "case1.png", "case2.png"]  # the empty one too
    assert pictures == files_in(tmp_path / "two" / "pictures")
    assert all(png.startswith(b"\x89PNG") for png in pictures.values())
    plain = evaluate(*pair, tmp_path / "plain", progress=silent, showing=Showing(pictures=1, viewer=0))
    assert plain.pictures is None
    assert not (tmp_path / "plain" / "pictures").exists()
    assert plain.report.read_bytes() == made.report.read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_scan_that_cannot_be_drawn_is_named_and_its_older_picture_goes(tmp_path, silent, workers):
    pair = cohort(tmp_path)
    showing = Showing(pictures=0, viewer=0, side_by_side=True)
    evaluate(*pair, tmp_path / "out", progress=silent, showing=showing)
    (tmp_path / "scan1.nii.gz").write_bytes(b"torn")
    made = evaluate(*pair, tmp_path / "out", progress=silent, showing=showing, workers=workers)
    assert sorted(files_in(made.pictures)) == ["case0.png", "case2.png"]
    [failure] = made.failures
    assert failure.startswith("case1: ")
    assert "scan1.nii.gz" in failure
    assert len({score.case_id for score in made.scores}) == 3


def test_without_a_manifest_nothing_is_drawn_side_by_side_and_nothing_is_written(tmp_path, silent):
    pair = folders(tmp_path)
    with pytest.raises(UserError, match=r"expected a manifest.*--side-by-side"):
        evaluate(*pair, tmp_path / "out", progress=silent, showing=Showing(side_by_side=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_torn_file_is_named_and_the_others_are_scored(tmp_path, silent, workers):
    truth, predicted = folders(tmp_path)
    torn = predicted / "case1.nii.gz"
    torn.write_bytes(torn.read_bytes()[:100])
    made = evaluate(truth, predicted, tmp_path / "out", progress=silent, workers=workers)
    assert {score.case_id for score in made.scores} == {"case0", "case2"}
    assert len(made.failures) == 1
    assert str(torn) in made.failures[0]
    report = made.report.read_text()
    assert "Could not be scored and in no number here (1): case1." in report
    assert str(tmp_path) not in report + made.scores_json.read_text()
    assert json.loads(made.scores_json.read_text())["settings"]["failed"] == ["case1"]


def test_where_all_cases_fail_nothing_is_written(tmp_path, silent):
    truth, predicted = folders(tmp_path, n_cases=2)
    for path in predicted.iterdir():
        path.write_bytes(b"torn")
    with pytest.raises(UserError, match="case0"):
        evaluate(truth, predicted, tmp_path / "out", progress=silent)
    assert not (tmp_path / "out").exists()


def test_progress_counts_the_cases(tmp_path, silent):
    evaluate(*folders(tmp_path), tmp_path / "out", progress=silent)
    [task] = silent.tasks
    assert (task.completed, task.total) == (3, 3)


def test_a_prediction_on_another_grid_is_refused_or_brought_over_and_said(tmp_path, silent):
    truth = write(tmp_path / "a.nii.gz", sided_truth(), DISK_SCHEME)
    fine = Grid(
        shape=(48, 20, 12),
        affine=GRID.affine @ [[0.5, 0, 0, -0.25], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    )
    predicted = tmp_path / "p.nii.gz"
    nifti.write_mask(
        Mask(labels=np.repeat(sided_truth(), 2, axis=0), grid=fine), predicted, scheme=DISK_SCHEME
    )
    with pytest.raises(UserError, match="expected the grid of"):
        evaluate(truth, predicted, tmp_path / "out", progress=silent)
    made = evaluate(truth, predicted, tmp_path / "out", progress=silent, reading=Reading(resample=True))
    assert made.resampled == ("a",)
    assert {score.dsc for score in made.scores} == {1.0, None}
    assert "brought onto it by nearest neighbour: a." in made.report.read_text()


def test_what_lies_outside_the_other_masks_grid_is_said_in_the_result_and_in_the_report(tmp_path, silent):
    """The kidneys lie in slices 3 to 8, the pancreas in 4 to 7."""
    write(tmp_path / "truth" / "a.nii.gz", sided_truth(), DISK_SCHEME)
    write(tmp_path / "truth" / "b.nii.gz", sided_truth(), DISK_SCHEME)

    def cropped(name, first, last):
        affine = GRID.affine.copy()
        affine[2, 3] += 3 * first
        grid = Grid(shape=(*GRID.shape[:2], last - first), affine=affine)
        labels = sided_truth()[:, :, first:last]
        nifti.write_mask(Mask(labels=labels, grid=grid), tmp_path / "p" / name, scheme=DISK_SCHEME)

    cropped("a.nii.gz", 0, 3)
    cropped("b.nii.gz", 2, 10)
    pair = (tmp_path / "truth", tmp_path / "p", tmp_path / "out")
    made = evaluate(*pair, progress=silent, reading=Reading(resample=True))
    assert made.resampled == ("a", "b")
    [sentence] = made.cut_off
    assert sentence.startswith("a: 100% of the true organs lie outside the prediction's grid")
    assert f"{sentence}.".replace("'", "&#39;") in made.report.read_text()
    cropped("b.nii.gz", 4, 10)
    made = evaluate(*pair, progress=silent, reading=Reading(resample=True))
    assert made.cut_off[1].startswith("b: 14% of the true organs")  # 2 x 24 of 2 x 144 + 64 voxels
    write(tmp_path / "p" / "a.nii.gz", sided_truth(), DISK_SCHEME)
    cropped_truth = Mask(labels=sided_truth()[:, :, :5], grid=Grid(shape=(24, 20, 5), affine=GRID.affine))
    nifti.write_mask(cropped_truth, tmp_path / "truth" / "a.nii.gz", scheme=DISK_SCHEME)
    made = evaluate(*pair, progress=silent, reading=Reading(resample=True))
    assert made.cut_off[0].startswith("a: 68% of the predicted organs lie outside the truth's grid")


def test_options_reach_the_scores_and_their_settings(tmp_path, silent):
    truth, predicted = folders(tmp_path, n_cases=1)
    options = ScoreOptions(surface=SurfaceConvention.CONTOUR, count_empty=True)
    made = evaluate(truth, predicted, tmp_path / "out", progress=silent, options=options)
    by_organ = {score.organ: score for score in made.scores}
    assert (by_organ["spleen"].dsc, by_organ["pancreas"].hd95_mm) == (1, None)
    settings = json.loads(made.scores_json.read_text())["settings"]
    assert (settings["surface_convention"], settings["count_empty"]) == ("contour", True)
