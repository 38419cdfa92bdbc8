"""MSD, BTCV, AMOS and a folder of one's own, by names alone; integration tests show what comes of them."""

from __future__ import annotations

import json

import pytest

from ct_attn.datasets.amos import find_amos
from ct_attn.datasets.btcv import find_btcv
from ct_attn.datasets.folder import find_folder, parse_code_table
from ct_attn.datasets.msd import find_msd
from ct_attn.datasets.source import NAMES
from ct_attn.errors import UserError

PANCREAS = {"0": "background", "1": "pancreas", "2": "cancer"}
AMOS = {"1": "spleen", "2": "right kidney", "3": "left kidney", "10": "pancreas"}


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def describe(folder, labels, training=()):
    listed = [{"image": f"./imagesTr/{name}.nii.gz"} for name in training]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "training": listed}))


def test_msd_tells_what_is_listed_and_missing_and_what_is_there_and_not_listed(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/b.nii.gz")
    describe(tmp_path, PANCREAS, ["a", "c"])
    data = find_msd(tmp_path)
    assert [case.case_id for case in data.cases] == ["a"]
    assert data.notices == (
        "listed in dataset.json but not complete on disk: c",
        "on disk but not listed in dataset.json, left out: b",
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[]", "JSON object"),
        ("{", "damaged JSON"),
        ('{"labels": {"1": "prostate"}}', "found prostate"),
        (
            '{"labels": {"0": "background", "1": "cancer", "2": "pancreas"}}',
            "found background, cancer, pancreas",
        ),
        ("{}", "found none"),
    ],
)
def test_another_task_or_a_damaged_list_is_one_line(tmp_path, content, complaint):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(UserError, match=complaint):
        find_msd(tmp_path)


def test_btcv_refuses_a_case_with_two_scans(tmp_path):
    touch(tmp_path, "img/img0001.nii.gz", "img/img0002.nii.gz", "copy/img0002.nii.gz", "img/._img0001.nii.gz")
    touch(tmp_path, *(f"label/label{number}.nii.gz" for number in ("0001", "0002", "0009")))
    data = find_btcv(tmp_path)
    assert [case.case_id for case in data.cases] == ["btcv_0001"]
    assert list(data.refused) == ["btcv_0002"]
    assert data.notices == ("labels without a scan: 9",)


def test_amos_takes_no_mri_and_no_other_codes(tmp_path):
    touch(
        tmp_path,
        *(f"{kind}Tr/amos_{number}.nii.gz" for kind in ("images", "labels") for number in ("0499", "0500")),
    )
    describe(tmp_path, AMOS)
    assert [case.case_id for case in find_amos(tmp_path).cases] == ["amos_0499"]
    describe(tmp_path, AMOS | {"3": "gall bladder"})
    with pytest.raises(UserError, match="found 3 gall bladder"):
        find_amos(tmp_path)


def own(folder, **more):
    table = parse_code_table("spleen=1")
    return find_folder(folder / "i", folder / "l", table, name="n", source="s", licence="l", **more)


def test_a_folder_drops_nnunets_ending_and_refuses_names_unfit_for_files(tmp_path):
    touch(tmp_path, "i/a_0000.nii.gz", "l/a.nii.gz", "i/b c.nii.gz", "l/b c.nii.gz")
    data = own(tmp_path)
    assert [case.case_id for case in data.cases] == ["a"]
    assert list(data.refused) == ["b c"]
    assert data.notices == ("no --patients given: every case counts as another patient",)


def test_a_case_without_its_patient_is_one_line(tmp_path):
    touch(tmp_path, "i/a.nii.gz", "l/a.nii.gz")
    patients = tmp_path / "patients.csv"
    patients.write_text("case_id,patient_id\nb,p\n")
    with pytest.raises(UserError, match="none for a"):
        own(tmp_path, patients=patients)
    for incomplete in ("a", "a,"):
        patients.write_text(f"case_id,patient_id\n{incomplete}\n")
        with pytest.raises(UserError, match="none for a"):
            own(tmp_path, patients=patients)
    patients.write_text("case\na\n")
    with pytest.raises(UserError, match="case_id and patient_id"):
        own(tmp_path, patients=patients)


def test_code_tables():
    table = parse_code_table("pancreas=1, pancreas=2,left_kidney=3,ignore=9")
    assert table.organs == {1: "pancreas", 2: "pancreas", 3: "left_kidney"}
    assert table.ignored == {9: "ignore"}
    table = parse_code_table("spleen = 1, ignore=4-6, ignore=9-9", NAMES)
    assert (table.organs, list(table.ignored)) == ({1: "spleen"}, [4, 5, 6, 9])
    assert parse_code_table("kidney=2,kidney=3", NAMES).organs == {2: "kidney", 3: "kidney"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "nothing is not organ=code"),
        ("spleen", "spleen is not"),
        ("spleen=x", "spleen=x is not"),
        ("spleen=1,pancreas=1", "code 1 stands twice"),
        ("ignore=1", "no organ"),
        ("kidney=2", "unknown organ kidney"),
        ("spleen=300", "1 to 255"),
        ("spleen=0", "1 to 255"),
        ("spleen=1,ignore=1-3", "code 1 stands twice"),
        ("spleen=1,ignore=5-", "ignore=5- is not"),
        ("spleen=1,ignore=5-4", "lower one first"),
        ("spleen=1,ignore=2-99999999999", "1 to 255"),
    ],
)
def test_a_code_table_that_cannot_be_read_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_code_table(text)
