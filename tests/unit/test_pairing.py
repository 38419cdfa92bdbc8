"""Which prediction belongs to which truth."""

from __future__ import annotations

import numpy as np
import pytest

from ct_attn.datasets.source import CodeTable
from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME, LabelScheme
from ct_attn.manifest import Case, Manifest, write_manifest
from ct_attn.pairing import Pair, Reading, find_pairs, read_pair
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Mask, Volume
from tests.unit.scan_io.mha_nrrd_files import write_mha, write_nrrd

GRID = Grid(shape=(4, 3, 2), affine=np.diag([-2.0, -2.0, 3.0, 1.0]))


def masks(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def manifest(folder, **changes):
    def case(case_id, **fields):
        return Case(
            case_id=case_id, patient_id=case_id, image=f"{case_id}.nii.gz", label=f"l/{case_id}.nii", **fields
        )

    fields = {
        "name": "m", "source": "s", "licence": "l", "labels": {"0": "background", "1": "pancreas"},
        "training": (case("a", fold=0), case("b", fold=1)),
        "test": (case("t", labelled_organs=("pancreas",)),),
    }  # fmt: skip
    write_manifest(Manifest(**fields | changes), folder / "manifest.json")
    return folder / "manifest.json"


def test_two_files_are_a_pair_named_like_the_truth(tmp_path):
    (pair,) = find_pairs(tmp_path / "case7.nii.gz", tmp_path / "anything.nii.gz")
    assert (pair.case_id, pair.predicted.name) == ("case7", "anything.nii.gz")


def test_folders_are_paired_by_name_whatever_the_suffix(tmp_path):
    truth = masks(tmp_path / "truth", "b.nii.gz", "a.nii", "notes.txt", ".partial-1-c.nii.gz")
    predicted = masks(tmp_path / "predicted", "a.nii.gz", "b.nii.gz")
    pairs = find_pairs(truth, predicted)
    assert [(pair.case_id, pair.truth.name, pair.predicted.name) for pair in pairs] == [
        ("a", "a.nii", "a.nii.gz"),
        ("b", "b.nii.gz", "b.nii.gz"),
    ]


def test_one_truth_finds_its_prediction_in_a_folder(tmp_path):
    predicted = masks(tmp_path / "predicted", "a.nii.gz")
    (pair,) = find_pairs(tmp_path / "a.nii.gz", predicted)
    assert pair.predicted == predicted / "a.nii.gz"


def test_a_manifest_means_its_test_cases_with_their_scans(tmp_path):
    predicted = masks(tmp_path / "predicted", "t.nii.gz")
    (pair,) = find_pairs(manifest(tmp_path), predicted)
    assert pair.image == tmp_path / "t.nii.gz"
    assert pair.truth == tmp_path / "l" / "t.nii"
    assert pair.labelled_organs == ("pancreas",)
    assert pair.truth_scheme.codes == {"pancreas": 1}


def test_a_fold_of_a_manifest_means_its_cases(tmp_path):
    predicted = masks(tmp_path / "predicted", "b.nii.gz")
    assert [pair.case_id for pair in find_pairs(manifest(tmp_path), predicted, fold=1)] == ["b"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a.nii.gz",), "none for b.nii.gz;"),
        (("a.nii.gz", "b.nii.gz", "z.nii.gz"), "in addition z.nii.gz;"),
        ((), "expected masks as .*, found none"),
    ],
)
def test_missing_and_extra_predictions_are_named(tmp_path, names, words):
    truth = masks(tmp_path / "truth", "a.nii.gz", "b.nii.gz")
    with pytest.raises(UserError, match=words):
        find_pairs(truth, masks(tmp_path / "predicted", *names))


def test_a_missing_prediction_is_named_by_its_case_where_the_truth_is_called_otherwise(tmp_path):
    case = Case(case_id="t", patient_id="t", image="t.nii.gz", label="l/segmentation.nii")
    with pytest.raises(UserError, match=r"none for t \(segmentation\.nii\); in addition z\.mha"):
        find_pairs(manifest(tmp_path, test=(case,)), masks(tmp_path / "predicted", "z.mha"))


def test_metaimage_and_nrrd_are_paired_like_nifti(tmp_path):
    truth = masks(tmp_path / "truth", "a.mha", "b.nii.gz")
    predicted = masks(tmp_path / "predicted", "a.nii.gz", "b.nrrd")
    assert [pair.predicted.name for pair in find_pairs(truth, predicted)] == ["a.nii.gz", "b.nrrd"]
    (pair,) = find_pairs(tmp_path / "b.mha", masks(tmp_path / "one", "b.nrrd"))
    assert (pair.case_id, pair.predicted.name) == ("b", "b.nrrd")


@pytest.mark.parametrize("twice", ["truth", "predicted"])
def test_two_masks_of_one_case_are_refused_on_either_side(tmp_path, twice):
    for side in ("truth", "predicted"):
        masks(tmp_path / side, "a.nii.gz", "b.nii.gz")
    masks(tmp_path / twice, "a.nii")
    with pytest.raises(UserError, match=rf"{twice}: .*found a\.nii and a\.nii\.gz"):
        find_pairs(tmp_path / "truth", tmp_path / "predicted")


def test_a_manifest_without_test_cases_asks_for_a_fold(tmp_path):
    with pytest.raises(UserError, match="--fold"):
        find_pairs(manifest(tmp_path, test=()), masks(tmp_path / "predicted", "a.nii.gz"))


def test_a_file_where_a_folder_of_predictions_is_needed_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected a folder of predicted masks"):
        find_pairs(masks(tmp_path / "truth", "a.nii.gz"), tmp_path / "a.nii.gz")


def labels_of(*codes):
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels.ravel()[: len(codes)] = codes
    return labels


def silent_mask(path, *codes, grid=GRID):
    """A mask that doesn't say what its codes mean."""
    nifti.write_volume(Volume(hu=labels_of(*codes).astype(np.int16), grid=grid), path)
    return path


def pair_of(tmp_path, truth, predicted, **fields):
    return Pair(
        case_id="a",
        truth=silent_mask(tmp_path / "t.nii.gz", *truth),
        predicted=silent_mask(tmp_path / "p.nii.gz", *predicted),
        **fields,
    )


def test_several_codes_become_one_organ_and_ignored_ones_background(tmp_path):
    table = CodeTable(organs={7: "pancreas", 2: "kidney", 3: "kidney"}, ignored={5: "ignore", 255: "ignore"})
    pair = pair_of(tmp_path, (1, 3, 4), (7, 2, 3, 5, 255))
    masks = read_pair(pair, Reading(predicted_codes=table))
    assert masks.predicted_scheme.codes == {"pancreas": 1, "kidney": 2}
    assert masks.predicted.labels.ravel()[:6].tolist() == [1, 2, 2, 0, 0, 0]
    assert (masks.truth_scheme, masks.overlap) == (DISK_SCHEME, None)


def test_a_prediction_that_says_nothing_is_read_by_the_table_of_the_truth(tmp_path):
    table = CodeTable(organs={7: "pancreas", 9: "pancreas"}, ignored={5: "ignore"})
    masks = read_pair(pair_of(tmp_path, (7, 9, 5), (9, 5, 7)), Reading(truth_codes=table))
    assert masks.truth.labels.ravel()[:3].tolist() == [1, 1, 0]
    assert masks.predicted.labels.ravel()[:3].tolist() == [1, 0, 1]


def test_a_manifest_says_what_codes_mean_where_the_file_does_not(tmp_path):
    scheme = LabelScheme.from_names({"spleen": 1, "pancreas": 2})
    pair = pair_of(tmp_path, (1, 2), (2, 1), truth_scheme=scheme)
    masks = read_pair(pair, Reading())
    assert (masks.truth_scheme, masks.predicted_scheme) == (scheme, scheme)
    assert masks.presumed == ("prediction",)
    nifti.write_mask(Mask(labels=labels_of(1, 2), grid=GRID), pair.truth, scheme=DISK_SCHEME)
    assert read_pair(pair, Reading()).truth_scheme == DISK_SCHEME


def test_masks_of_which_nothing_is_said_are_read_in_the_codes_of_the_house_and_known_as_such(tmp_path):
    pair = pair_of(tmp_path, (1, 2), (2, 1))
    masks = read_pair(pair, Reading())
    assert (masks.truth_scheme, masks.predicted_scheme) == (DISK_SCHEME, DISK_SCHEME)
    assert masks.presumed == ("truth", "prediction")
    table = CodeTable(organs={1: "spleen", 2: "pancreas"})
    assert read_pair(pair, Reading(truth_codes=table)).presumed == ("prediction",)
    assert read_pair(pair, Reading(predicted_codes=table)).presumed == ("truth",)
    for path in (pair.truth, pair.predicted):
        nifti.write_mask(Mask(labels=labels_of(1, 2), grid=GRID), path, scheme=DISK_SCHEME)
    assert read_pair(pair, Reading()).presumed == ()


def test_codes_without_a_meaning_are_refused_with_what_to_add(tmp_path):
    pair = pair_of(tmp_path, (1, 2), (1, 6, 5, 7, 9))
    codes = r"expected the label codes 0 background, 1 pancreas, 2 spleen, .*found code 5-7, 9"
    with pytest.raises(UserError, match=rf"p\.nii\.gz: {codes}; say with --predicted-labels what all"):
        read_pair(pair, Reading())
    table = CodeTable(organs={1: "spleen", 2: "pancreas"})
    complaint = r"1 spleen, 2 pancreas, found code 5-7, 9; .*add ignore=5-7,ignore=9 to --predicted-labels$"
    with pytest.raises(UserError, match=complaint):
        read_pair(pair, Reading(predicted_codes=table))
    pair = pair_of(tmp_path, (200,), (1,))
    with pytest.raises(UserError, match=r"t\.nii\.gz: .*code 200; say with --truth-labels"):
        read_pair(pair, Reading())


def test_masks_of_different_formats_lie_on_one_grid(tmp_path):
    pair = Pair(
        case_id="a",
        truth=write_mha(tmp_path / "a.mha", labels_of(0, 1, 2), GRID),
        predicted=write_nrrd(tmp_path / "a.nrrd", labels_of(0, 1, 2), GRID),
    )
    masks = read_pair(pair, Reading())
    assert np.array_equal(masks.truth.labels, masks.predicted.labels)


def test_it_is_measured_how_much_of_the_organs_lies_where_the_other_grid_does_not_reach(tmp_path):
    affine = GRID.affine.copy()
    affine[:3, 3] += GRID.affine[:3, :3] @ (0, 0, 1)  # starts at the truth's second slice
    pair = Pair(
        case_id="a",
        truth=silent_mask(
            tmp_path / "t.nii.gz", 1, 1, 1, 1, 1
        ),  # three in the first slice, two in the second
        predicted=silent_mask(tmp_path / "p.nii.gz", 1, 1, 1, 1, grid=Grid(shape=GRID.shape, affine=affine)),
    )
    masks = read_pair(pair, Reading(resample=True))
    assert masks.overlap is not None
    assert (masks.overlap.of_truth, masks.overlap.of_predicted) == (
        pytest.approx(2 / 5),
        pytest.approx(2 / 4),
    )
