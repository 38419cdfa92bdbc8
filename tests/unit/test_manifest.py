from __future__ import annotations

import hashlib
import json

import pytest
from pydantic import ValidationError

from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME, ORGANS
from ct_attn.manifest import (
    Case,
    Manifest,
    choose_fold,
    file_digest,
    read_manifest,
    source_digest,
    source_files,
    write_manifest,
)


def case(number: int, **fields) -> Case:
    given = {
        "case_id": f"case_{number}",
        "patient_id": f"patient_{number}",
        "image": f"images/case_{number}.nii.gz",
        "label": f"labels/case_{number}.nii.gz",
        "fold": number % 2,
    }
    return Case(**(given | fields))


def manifest(**fields) -> Manifest:
    given = {
        "name": "small",
        "source": "made for a test",
        "licence": "CC0-1.0",
        "labels": {"0": "background", **{str(code): name for name, code in DISK_SCHEME.codes.items()}},
        "training": (case(1), case(2), case(3, labelled_organs=("pancreas",), image_digest="sha256:00")),
        "test": (case(4, fold=None),),
    }
    return Manifest(**(given | fields))


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def changed(path, **fields):
    """The file of :func:`manifest` with some fields replaced."""
    write_manifest(manifest(), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return path


def test_what_is_written_is_read_back(tmp_path):
    write_manifest(manifest(), tmp_path / "dataset.json")
    assert read_manifest(tmp_path / "dataset.json") == manifest()


def test_counts_are_written_for_decathlon_readers(tmp_path):
    write_manifest(manifest(), tmp_path / "dataset.json")
    fields = json.loads((tmp_path / "dataset.json").read_text())
    assert (fields["numTraining"], fields["numTest"]) == (3, 1)


def test_monai_reads_it(tmp_path):
    from monai.data import load_decathlon_datalist

    write_manifest(manifest(), tmp_path / "dataset.json")
    training = load_decathlon_datalist(tmp_path / "dataset.json", True, "training")
    assert [item["image"] for item in training] == [
        str(tmp_path / f"images/case_{number}.nii.gz") for number in (1, 2, 3)
    ]
    assert training[0]["label"] == str(tmp_path / "labels/case_1.nii.gz")
    assert [item["fold"] for item in training] == [1, 0, 1]
    test = load_decathlon_datalist(tmp_path / "dataset.json", True, "test")
    assert [item["image"] for item in test] == [str(tmp_path / "images/case_4.nii.gz")]


def test_scheme_cases_and_folds():
    assert manifest().label_scheme == DISK_SCHEME
    assert [one.case_id for one in manifest().cases] == ["case_1", "case_2", "case_3", "case_4"]
    assert manifest().folds == (0, 1)
    assert case(1).labelled_organs == ORGANS


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"test": (case(2, patient_id="another", fold=None),)}, "case_id case_2 occurs more than once"),
        (
            {"test": (case(4, patient_id="patient_1", fold=None),)},
            "patient patient_1 is in training and in test",
        ),
        ({"training": (case(1, fold=None),)}, "every training case needs a fold"),
        ({"test": (case(4, fold=1),)}, "a test case has no fold"),
        ({"labels": {"1": "liver"}}, "unknown organ liver"),
        ({"labels": {"one": "spleen"}}, "one"),
        ({"labels": {"1": "kidney", "2": "left_kidney"}}, "every organ once"),
    ],
)
def test_what_contradicts_itself_is_refused(fields, complaint):
    with pytest.raises(ValidationError, match=complaint):
        manifest(**fields)


def test_the_same_patient_may_have_several_training_cases():
    assert len(manifest(training=(case(1), case(3, patient_id="patient_1"))).training) == 2


@pytest.mark.parametrize("case_id", ["", "../up", "a/b", ".hidden", "a b"])
def test_a_case_id_is_fit_to_name_files(case_id):
    with pytest.raises(ValidationError, match="case_id"):
        case(1, case_id=case_id)


def test_an_organ_nobody_knows_is_refused():
    with pytest.raises(ValidationError, match="unknown organ liver; known are pancreas"):
        case(1, labelled_organs=("liver",))


def test_a_file_that_is_no_manifest_is_refused_by_name(tmp_path):
    path = tmp_path / "dataset.json"
    assert "No such file" in refusal(path)
    path.write_text("{")
    assert "JSON" in refusal(path)
    path.write_bytes(b"\xff\xfe\x00")
    assert "JSON" in refusal(path)
    path.write_text("[]")
    refusal(path)
    path.unlink()
    path.mkdir()
    refusal(path)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"trainig": []}, "trainig"),
        ({"version": 2}, "version"),
        ({"format": "other"}, "format"),
        ({"training": [{"image": "a", "label": "b"}]}, r"training.0.case_id"),
        ({"training": [case(1).model_dump() | {"imgae": "a"}]}, "imgae"),
    ],
)
def test_unknown_missing_and_wrong_keys_are_named(tmp_path, fields, complaint):
    assert complaint in refusal(changed(tmp_path / "dataset.json", **fields))


def test_a_fold_held_out(tmp_path):
    training, validation = choose_fold(manifest(), 1, path=tmp_path)
    assert [one.case_id for one in training] == ["case_2"]
    assert [one.case_id for one in validation] == ["case_1", "case_3"]


@pytest.mark.parametrize(
    ("training", "fold", "complaint"),
    [
        ((case(1), case(2)), 5, "found folds 0, 1"),
        ((case(1), case(3)), 1, "found folds 1"),
        ((), 0, "no training cases"),
        ((case(1), case(2, patient_id="patient_1")), 0, "patient patient_1 on both sides"),
    ],
)
def test_a_fold_that_cannot_be_held_out_is_refused(training, fold, complaint, tmp_path):
    with pytest.raises(UserError, match=complaint) as caught:
        choose_fold(manifest(training=training), fold, path=tmp_path / "dataset.json")
    assert "dataset.json" in str(caught.value)


def test_file_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == f"sha256:{hashlib.sha256(b'abc').hexdigest()}"
    assert file_digest(tmp_path / "a").startswith("sha256:ba7816bf")


def test_the_digest_of_a_folder_is_over_its_files_sorted_digests(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"def")
    (tmp_path / ".hidden").write_bytes(b"no matter")
    lines = sorted(file_digest(tmp_path / name) for name in "ab")
    expected = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert source_digest(tmp_path) == f"sha256:{expected}"
    (tmp_path / "b").rename(tmp_path / "0")
    assert source_digest(tmp_path) == f"sha256:{expected}"
    assert source_digest(tmp_path / "a") == file_digest(tmp_path / "a")
    assert [path.name for path in source_files(tmp_path)] == ["0", "a"]


def test_the_digest_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        source_digest(tmp_path / "none")
