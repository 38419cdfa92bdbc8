"""Which prediction belongs to which truth."""

from __future__ import annotations

import pytest

from ct_attn.errors import UserError
from ct_attn.manifest import Case, Manifest, write_manifest
from ct_attn.pairing import find_pairs


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


def test_a_fold_of_a_manifest_means_its_cases(tmp_path):
    predicted = masks(tmp_path / "predicted", "b.nii.gz")
    assert [pair.case_id for pair in find_pairs(manifest(tmp_path), predicted, fold=1)] == ["b"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a.nii.gz",), "without b"),
        (("a.nii.gz", "b.nii.gz", "z.nii.gz"), "in addition z"),
        ((), "expected NIfTI masks, found none"),
    ],
)
def test_missing_and_extra_predictions_are_named(tmp_path, names, words):
    truth = masks(tmp_path / "truth", "a.nii.gz", "b.nii.gz")
    with pytest.raises(UserError, match=words):
        find_pairs(truth, masks(tmp_path / "predicted", *names))


def test_a_manifest_without_test_cases_asks_for_a_fold(tmp_path):
    with pytest.raises(UserError, match="--fold"):
        find_pairs(manifest(tmp_path, test=()), masks(tmp_path / "predicted", "a.nii.gz"))


def test_a_file_where_a_folder_of_predictions_is_needed_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected a folder of predicted masks"):
        find_pairs(masks(tmp_path / "truth", "a.nii.gz"), tmp_path / "a.nii.gz")
