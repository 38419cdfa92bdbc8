"""``ct-attn prepare`` on miniature downloads, through the command line."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ct_attn.labels import DISK_SCHEME
from ct_attn.manifest import file_digest, read_manifest, source_digest
from ct_attn.scan_io import nifti
from ct_attn.volume import Volume
from tests import downloads
from tests.command import ct_attn
from tests.downloads import LEFT_KIDNEY, PANCREAS, RIGHT_KIDNEY, SPLEEN, patient
from tests.unit.scan_io.dicom_files import PATIENT_ID, PATIENT_NAME

COMMAND = Path(sys.executable).with_name("ct-attn")
ROOT = Path(__file__).resolve().parents[2]


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pancreas_ct_arguments(download, output):
    images, labels, more = download
    folders = ("--images", images, "--labels", labels, "--multi-organ", more, "-o", output)
    return ("prepare", "pancreas-ct", *folders)


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    return downloads.make_pancreas_ct(tmp_path_factory.mktemp("download"))


@pytest.fixture(scope="module")
def prepared(download, tmp_path_factory):
    """The output folder of an undisturbed run of the installed command, and what it said."""
    output = tmp_path_factory.mktemp("prepared") / "pancreas_ct"
    command = [COMMAND, *map(str, pancreas_ct_arguments(download, output))]
    return output, subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def truth(number):
    """Label codes as they should come out: the pancreas, and what the multi-organ labels add."""
    labels = patient(number)[1].labels
    kept = [PANCREAS, SPLEEN, LEFT_KIDNEY] if number in (1, 4) else [PANCREAS]
    return np.where(np.isin(labels, kept), labels, 0)


def test_pancreas_ct_becomes_exactly_the_expected_manifest(prepared):
    output, _ = prepared
    manifest = read_manifest(output / "manifest.json")
    shipped = read_manifest(ROOT / "data_manifests" / "pancreas_ct_4_fold.json")
    fold_of = {case.case_id: case.fold for case in shipped.cases}
    multi = ("pancreas", "spleen", "left_kidney")
    assert [(case.case_id, case.labelled_organs, case.fold) for case in manifest.cases] == [
        (case_id, organs, fold_of[case_id])
        for case_id, organs in (
            ("pancreas_0001", multi),
            ("pancreas_0002", ("pancreas",)),
            ("pancreas_0004", multi),
            ("pancreas_0006", ("pancreas",)),
        )
    ]
    assert manifest.label_scheme == DISK_SCHEME
    for case in manifest.cases:
        assert case.patient_id == case.case_id
        assert case.image_digest == file_digest(output / case.image)
        assert case.label_digest == file_digest(output / case.label)


@pytest.mark.parametrize("number", [1, 2, 4, 6])
def test_scans_and_labels_come_out_where_they_belong(prepared, number):
    output, _ = prepared
    volume, _ = patient(number)
    image = nifti.read_volume(output / "imagesTr" / f"pancreas_{number:04d}.nii.gz")
    mask, scheme = nifti.read_mask(output / "labelsTr" / f"pancreas_{number:04d}.nii.gz")
    assert image.hu.dtype == np.int16
    assert np.array_equal(image.hu, volume.hu)
    assert image.grid.is_same_as(volume.grid)
    assert mask.grid.is_same_as(volume.grid)
    assert np.array_equal(mask.labels, truth(number))
    assert scheme == DISK_SCHEME


def test_only_the_case_that_no_flip_fits_is_refused_and_leaves_nothing(prepared):
    output, said = prepared
    assert said.returncode == 1
    refusals = [line for line in said.stderr.splitlines() if line.startswith("refused: ")]
    assert [line.split(":")[1].strip() for line in refusals] == ["pancreas_0005"]
    assert "one flip fits" in refusals[0]
    assert "edge" in refusals[0]
    assert not list(output.rglob("*0005*"))
    assert "Traceback" not in said.stderr


def test_what_is_missing_withdrawn_or_in_excess_is_listed(prepared):
    _, said = prepared
    noticed = [line.removeprefix("noticed   ") for line in said.stdout.splitlines() if "noticed" in line]
    assert noticed == [
        "case 25 is withdrawn, it repeats case 2: left out (scans, labels, multi-organ labels)",
        "case 70 is withdrawn, it repeats case 2: left out (labels)",
        "cases without scan and label: 7-24, 26-69, 71-82",
        "labels without a scan: 3",
        "numbers that the data set does not have, left out: 83",
        "multi-organ labels for 2 cases",
    ]


def test_provenance_holds_source_digests_flips_and_their_evidence(prepared, download):
    output, _ = prepared
    lines = [json.loads(line) for line in (output / "provenance.jsonl").read_text().splitlines()]
    assert [line["case_id"] for line in lines] == [f"pancreas_{number:04d}" for number in (1, 2, 4, 6)]
    flips = {line["case_id"]: [label["flip"] for label in line["labels"]] for line in lines}
    assert flips == {
        "pancreas_0001": ["left-right+front-back", "left-right+front-back"],
        "pancreas_0002": ["none"],
        "pancreas_0004": ["none", "left-right+front-back"],
        "pancreas_0006": ["up-down"],
    }
    first = lines[0]
    images, labels, _ = download
    assert first["scan"] == source_digest(next((images / "PANCREAS_0001").rglob("1-001.dcm")).parent)
    assert first["scan_files"] == patient(1)[0].grid.shape[2]
    assert first["labels"][0]["digest"] == file_digest(labels / "label0001.nii.gz")
    assert len(first["labels"][0]["evidence"]) == 8
    assert first["labels"][0]["decided_by"] == "image"
    assert first["agreement"] == {"pancreas": 1.0}
    assert set(first["versions"]) >= {"ct_attn", "nibabel", "pydicom", "highdicom"}


def test_the_contact_sheet_shows_every_case_and_every_refusal(prepared):
    output, _ = prepared
    sheet = (output / "contact_sheet.html").read_text()
    assert sheet.count("data:image/png;base64,") == 4
    assert "Refused: 1" in sheet
    assert "pancreas_0005" in sheet
    assert "case 70 is withdrawn" in sheet
    assert len(list((output / "pictures").iterdir())) == 4


def test_nothing_tells_who_when_or_where(prepared, download):
    output, said = prepared
    told = said.stdout + said.stderr
    contents = [(name, content) for name, content in files_of(output).items()]
    texts = [told.encode(), *(gzip.decompress(c)[:4000] if n.endswith(".gz") else c for n, c in contents)]
    secrets = (PATIENT_NAME, PATIENT_ID, "20151124", "11-24-2015", str(download[0].parent), "63502")
    for secret in secrets:
        assert not any(secret.encode() in text for text in texts), secret
        assert not any(secret in name for name, _ in contents), secret


def test_a_second_run_makes_nothing_anew(prepared, download):
    output, _ = prepared
    before = {path: path.stat().st_mtime_ns for path in (output / "imagesTr").iterdir()}
    ct_attn(*pancreas_ct_arguments(download, output))
    assert {path: path.stat().st_mtime_ns for path in (output / "imagesTr").iterdir()} == before


def test_a_changed_output_is_made_again_and_a_changed_source_too(prepared, download, tmp_path):
    output = downloads.copy_of(prepared[0], tmp_path / "out")
    image = output / "imagesTr" / "pancreas_0002.nii.gz"
    image.write_bytes(image.read_bytes()[:-9])
    ct_attn(*pancreas_ct_arguments(download, output))
    assert files_of(output) == files_of(prepared[0])
    images, labels, more = (downloads.copy_of(one, tmp_path / one.name) for one in download)
    volume, mask = patient(6)
    halved = downloads.recoded(mask, {PANCREAS: 1})
    halved[:, :, : volume.grid.shape[2] // 2] = 0
    downloads.write_label(labels / "label0006.nii.gz", halved, volume.grid.affine)
    ct_attn(*pancreas_ct_arguments((images, labels, more), output))
    again, _ = nifti.read_mask(output / "labelsTr" / "pancreas_0006.nii.gz")
    assert np.array_equal(again.labels, halved)


def test_a_label_in_doubt_is_taken_by_the_users_word(download, prepared, tmp_path):
    output = downloads.copy_of(prepared[0], tmp_path / "out")
    done = ct_attn(*pancreas_ct_arguments(download, output), "--flip", "pancreas_0005=none")
    assert done.returncode == 0, done.stderr
    case = read_manifest(output / "manifest.json").cases[3]
    assert case.case_id == "pancreas_0005"
    records = [json.loads(line) for line in (output / "provenance.jsonl").read_text().splitlines()]
    assert records[3]["labels"][0]["decided_by"] == "user"


def test_several_processes_change_no_byte(prepared, download, tmp_path):
    output = tmp_path / "out"
    ct_attn(*pancreas_ct_arguments(download, output), "--jobs", 2, "--memory-gb", 64)
    assert files_of(output) == files_of(prepared[0])


@pytest.mark.slow
def test_killed_at_ten_random_moments_and_rerun_it_gives_the_same_bytes(prepared, download, tmp_path):
    moments = random.Random(11)
    began = time.monotonic()
    ct_attn(*pancreas_ct_arguments(download, tmp_path / "timed"))
    undisturbed_s = time.monotonic() - began
    expected = files_of(prepared[0])
    unfinished = 0
    for attempt in range(10):
        output = tmp_path / f"out{attempt}"
        command = [*pancreas_ct_arguments(download, output), "--jobs", 1 + attempt % 2]
        with subprocess.Popen(
            [COMMAND, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as killed:
            time.sleep(moments.uniform(0.3, 1) * undisturbed_s)
            os.kill(killed.pid, signal.SIGKILL)
        unfinished += not (output / "manifest.json").exists()
        ct_attn(*command)
        assert files_of(output) == expected, f"killed run {attempt}"
    assert unfinished >= 5


def assert_refused(done, *words):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_folders_that_hold_no_such_data_are_one_line(download, tmp_path):
    images, labels, _ = download
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    none = tmp_path / "none"
    cases = (
        (("pancreas-ct", "--images", none, "--labels", labels), "no such folder"),
        (("pancreas-ct", "--images", tmp_path / "empty", "--labels", labels), "scans none"),
        (("pancreas-ct", "--images", images, "--labels", labels, "--split", "3-fold"), "5-fold"),
        (("pancreas-ct", "--images", images, "--labels", labels, "--flip", "x=none"), "none of that name"),
        (("pancreas-ct", "--images", images, "--labels", labels, "--flip", "pancreas_0001=up"), "front-back"),
        (("msd", tmp_path / "empty"), "dataset.json"),
        (("btcv", tmp_path / "empty"), "img0001.nii.gz"),
        (("amos", tmp_path / "empty"), "dataset.json"),
        (("folder", "--images", none, "--labels", none, "--labels-map", "pancreas"), "organ=code"),
        (("folder", "--images", none, "--labels", none, "--labels-map", "liver=1"), "unknown organ liver"),
    )
    for arguments, word in cases:
        assert_refused(ct_attn("prepare", *arguments, "-o", out), word)
    assert not out.exists()


def test_an_output_with_something_else_in_it_is_left_alone(download, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert_refused(ct_attn(*pancreas_ct_arguments(download, tmp_path)), "something else in it")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def prepare_others(name, folder, *arguments):
    output = folder / "out"
    done = ct_attn("prepare", name, *arguments, "-o", output, "--folds", 2)
    assert done.returncode == 0, done.stderr
    return read_manifest(output / "manifest.json"), output, done.stdout


def labels_of(output, case_id):
    return nifti.read_mask(output / "labelsTr" / f"{case_id}.nii.gz")[0].labels


def kept(seed, *organs):
    labels = patient(seed)[1].labels
    return np.where(np.isin(labels, organs), labels, 0)


def test_a_tumour_of_the_pancreas_is_pancreas_in_msd(tmp_path):
    manifest, output, said = prepare_others("msd", tmp_path, downloads.make_msd(tmp_path))
    assert [case.case_id for case in manifest.cases] == ["pancreas_001", "pancreas_002", "pancreas_010"]
    assert {case.labelled_organs for case in manifest.cases} == {("pancreas",)}
    assert np.array_equal(labels_of(output, "pancreas_010"), kept(4, PANCREAS))
    assert "not complete on disk: pancreas_011" in said
    assert manifest.folds == (0, 1)


def test_msd_spleen(tmp_path):
    manifest, output, _ = prepare_others("msd", tmp_path, downloads.make_msd(tmp_path, task="spleen"))
    assert {case.labelled_organs for case in manifest.cases} == {("spleen",)}
    assert np.array_equal(labels_of(output, "spleen_001"), kept(1, SPLEEN))


def test_btcv(tmp_path):
    manifest, output, said = prepare_others("btcv", tmp_path, downloads.make_btcv(tmp_path))
    assert [case.case_id for case in manifest.cases] == ["btcv_0001", "btcv_0002"]
    assert np.array_equal(labels_of(output, "btcv_0002"), patient(2)[1].labels)
    assert "scans without a label: 61" in said


def test_amos_gives_its_ct_cases(tmp_path):
    manifest, output, said = prepare_others("amos", tmp_path, downloads.make_amos(tmp_path))
    assert [case.case_id for case in manifest.cases] == ["amos_0001", "amos_0013"]
    assert np.array_equal(labels_of(output, "amos_0013"), patient(4)[1].labels)
    assert "1 MRI cases left out" in said


def test_a_folder_of_ones_own_with_patients(tmp_path):
    images, labels = downloads.make_folder(tmp_path)
    (tmp_path / "patients.csv").write_text("case_id,patient_id\nanna,p1\nbert,p2\nbert-2,p2\n")
    manifest, output, said = prepare_others(
        "folder", tmp_path, "--images", images, "--labels", labels,
        "--labels-map", "pancreas=1,left_kidney=3,ignore=7", "--patients", tmp_path / "patients.csv",
        "--name", "mine", "--licence", "CC0-1.0",
    )  # fmt: skip
    assert (manifest.name, manifest.licence) == ("mine", "CC0-1.0")
    assert [case.labelled_organs for case in manifest.cases] == [("pancreas", "left_kidney")] * 3
    fold_of = {case.case_id: case.fold for case in manifest.cases}
    assert fold_of["bert"] == fold_of["bert-2"] != fold_of["anna"]
    assert np.array_equal(labels_of(output, "anna"), kept(1, PANCREAS, LEFT_KIDNEY))
    assert "the same scan under several names, which must share a fold: bert, bert-2" in said


def test_scans_with_an_offset_are_refused_until_the_user_says_how_they_become_hu(tmp_path):
    images, labels = downloads.make_folder(tmp_path)
    for path in images.iterdir():
        volume = nifti.read_volume(path)
        downloads.write_scan(path, Volume(hu=(volume.hu + 1024).astype(np.int16), grid=volume.grid))
    words = ("folder", "--images", images, "--labels", labels,
             "--labels-map", "pancreas=1,left_kidney=3,ignore=7")  # fmt: skip
    done = ct_attn("prepare", *words, "-o", tmp_path / "refused", "--folds", 2)
    assert done.returncode == 1
    assert done.stderr.count("with --rescale SLOPE INTERCEPT") == 3
    _, output, _ = prepare_others(*words[:1], tmp_path, *words[1:], "--rescale", 1, -1024)
    scan = nifti.read_volume(output / "imagesTr" / "anna.nii.gz")
    assert np.array_equal(scan.hu, np.maximum(patient(1)[0].hu, -1024))


def test_a_code_that_the_table_lacks_refuses_the_case(tmp_path):
    images, labels = downloads.make_folder(tmp_path)
    done = ct_attn("prepare", "folder", "--images", images, "--labels", labels, "-o", tmp_path / "out",
                   "--labels-map", "pancreas=1,left_kidney=3", "--folds", 2)  # fmt: skip
    assert done.returncode == 1
    assert "refused: anna: the label: expected the label codes" in done.stderr
    assert "code 7" in done.stderr
    assert str(tmp_path) not in done.stderr
    assert not list((tmp_path / "out").rglob("*.nii.gz"))
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_label_on_another_grid_or_mirrored_against_a_trusted_header_is_refused(tmp_path):
    root = downloads.make_btcv(tmp_path)
    label = root / "Training" / "label"
    volume, mask = patient(1)
    codes = downloads.recoded(mask, {SPLEEN: 1, RIGHT_KIDNEY: 2, LEFT_KIDNEY: 3, PANCREAS: 11})
    shifted = volume.grid.affine.copy()
    shifted[2, 3] += 10
    downloads.write_label(label / "label0001.nii.gz", codes, shifted)
    volume, mask = patient(2)
    codes = downloads.recoded(mask, {SPLEEN: 1, RIGHT_KIDNEY: 2, LEFT_KIDNEY: 3, PANCREAS: 11})
    downloads.write_label(label / "label0002.nii.gz", codes[:, ::-1], volume.grid.affine)
    done = ct_attn("prepare", "btcv", root, "-o", tmp_path / "out", "--folds", 2)
    assert done.returncode == 1
    first, second = (line for line in done.stderr.splitlines() if line.startswith("refused"))
    assert "btcv_0001: the label: expected the grid of the scan" in first
    assert "10 mm" in first
    assert "btcv_0002" in second
    assert "flip front-back" in second


FOLDER_CODES = ("--labels-map", "pancreas=1,spleen=2,left_kidney=3,right_kidney=4", "--folds", 2)
BURNT = {"PatientName": "Müller^Hans", "PatientID": "PAT-4711", "PatientBirthDate": "19500103"}


def dicom_folder(folder, names):
    """DICOM scans of one patient under ``names``, which may be telling, with their labels."""
    for seed, name in enumerate(names, start=1):
        volume, mask = patient(seed)
        fields = {"SpecificCharacterSet": "ISO_IR 192", **BURNT}
        downloads.write_dicom(folder / "scans" / name, volume, fields=fields)
        downloads.write_label(folder / "labels" / f"{name}.nii.gz", mask.labels, volume.grid.affine)
    return ("--images", folder / "scans", "--labels", folder / "labels", *FOLDER_CODES)


def test_a_share_is_kept_apart_for_the_test_by_whole_patients(tmp_path):
    arguments = dicom_folder(tmp_path / "in", ["abdomen_a", "abdomen_b", "abdomen_c", "abdomen_d"])
    patients, output = tmp_path / "patients.csv", tmp_path / "out"
    patients.write_text("case_id,patient_id\nabdomen_a,one\nabdomen_b,one\nabdomen_c,two\nabdomen_d,three\n")
    words = ("prepare", "folder", *arguments, "--patients", patients, "-o", output, "--seed", 42)
    done = ct_attn(*words, "--test-share", 0.25)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(output / "manifest.json")
    assert [case.patient_id for case in manifest.test] in (["two"], ["three"])
    assert manifest.folds == (0, 1)
    assert "for training now" not in done.stdout + ct_attn(*words, "--test-share", 0.25).stdout
    again = ct_attn(*words[:-2], "--seed", 43, "--test-share", 0.25)
    moved = {case.case_id for case in manifest.test} & {
        case.case_id for case in read_manifest(output / "manifest.json").training
    }
    assert len(moved) == 1
    said = " ".join(again.stdout.split())
    assert "1 of the 1 test cases of the manifest that was here are for training now" in said
    assert_refused(ct_attn(*words[:-4], "-o", tmp_path / "other", "--test-share", 0.75), "--folds 2")
    none = ct_attn(*words[:-4], "-o", tmp_path / "other", "--test-share", 0.05)
    assert_refused(none, "--test-share 0.05: expected a share that holds the cases of a patient")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["MUELLER_HANS_1950", "scan-4711", "ct 1950-01-03"])
def test_a_folder_that_repeats_its_scans_identity_is_refused_in_words_that_do_not(tmp_path, name):
    arguments = dicom_folder(tmp_path / "in", ["abdomen", name])
    done = ct_attn("prepare", "folder", *arguments, "-o", tmp_path / "out")
    assert_refused(done, "found 1 of 2 that do", "--pseudonyms KEYFILE")
    assert name not in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


def test_a_patients_id_or_a_lone_label_that_repeats_an_identity_is_refused_too(tmp_path):
    arguments = dicom_folder(tmp_path / "in", ["abdomen"])
    patients = tmp_path / "patients.csv"
    patients.write_text("case_id,patient_id\nabdomen,PAT 4711\n")
    done = ct_attn("prepare", "folder", *arguments, "-o", tmp_path / "out", "--patients", patients)
    assert_refused(done, "--pseudonyms KEYFILE")
    assert "4711" not in done.stderr
    (tmp_path / "in" / "labels" / "mueller.nii.gz").touch()
    assert_refused(ct_attn("prepare", "folder", *arguments, "-o", tmp_path / "out"), "found 1 of 2")


def test_pseudonyms_replace_names_everywhere_and_are_kept_from_run_to_run(tmp_path):
    arguments = dicom_folder(tmp_path / "in", ["MUELLER_HANS_1950", "Müller 2"])
    patients, key, output = tmp_path / "patients.csv", tmp_path / "safe" / "key.csv", tmp_path / "out"
    patients.write_text("case_id,patient_id\nMUELLER_HANS_1950,Hans\nMüller 2,Hans\nAnna,Anna\n")
    (tmp_path / "in" / "labels" / "Zoe.nii.gz").touch()
    words = ("prepare", "folder", *arguments, "--patients", patients, "--pseudonyms", key)
    # One patient in all: two folds can't be had, and nothing is written.
    assert_refused(ct_attn(*words, "-o", output), "--folds 2")
    assert not key.exists()
    volume, mask = patient(4)
    downloads.write_dicom(tmp_path / "in" / "scans" / "Anna", volume, fields=BURNT)
    downloads.write_label(tmp_path / "in" / "labels" / "Anna.nii.gz", mask.labels, volume.grid.affine)
    done = ct_attn(*words, "-o", output)
    assert done.returncode == 0, done.stderr
    assert key.read_text().splitlines() == [
        "case_id,patient_id,name,patient",
        "case_0001,patient_0001,Anna,Anna",
        "case_0002,patient_0002,MUELLER_HANS_1950,Hans",
        "case_0003,patient_0002,Müller 2,Hans",
    ]
    cases = read_manifest(output / "manifest.json").cases
    assert [case.case_id for case in cases] == ["case_0001", "case_0002", "case_0003"]
    assert cases[1].patient_id == cases[2].patient_id == "patient_0002"
    assert cases[1].fold == cases[2].fold != cases[0].fold
    assert "left aside: 1 without a patient" in done.stdout
    everything = b"".join(name.encode() + content for name, content in files_of(output).items())
    for secret in ("MUELLER", "Müller", "Hans", "Anna", "Zoe", str(key)):
        assert secret.encode() not in everything
        assert secret not in done.stdout + done.stderr
    # A case that comes before the others by name gets the next number, and no other is moved.
    for part in ("scans", "labels"):
        for path in (tmp_path / "in" / part).glob("Anna*"):
            path.rename(path.with_name(path.name.replace("Anna", "Aaron")))
    # So does one whose patient becomes known.
    patients.write_text(patients.read_text() + "Aaron,Anna\nZoe,Hans\n")
    done = ct_attn(*words, "-o", output)
    assert done.returncode == 0, done.stderr
    assert key.read_text().splitlines()[4:] == [
        "case_0004,patient_0001,Aaron,Anna", "case_0005,patient_0002,Zoe,Hans",
    ]  # fmt: skip
    assert "labels without a scan: case_0005" in done.stdout
    again = read_manifest(output / "manifest.json").cases
    assert [case.case_id for case in again] == ["case_0002", "case_0003", "case_0004"]
    # Another key would give the numbers of some to others.
    mistyped = (*words[:-1], key.with_name("kye.csv"))
    assert_refused(ct_attn(*mistyped, "-o", output), "the key with which", "no such file")


def test_a_key_among_the_data_or_over_another_file_is_refused(tmp_path):
    arguments = dicom_folder(tmp_path / "in", ["Hans", "Jutta"])
    words = ("prepare", "folder", *arguments, "-o", tmp_path / "out", "--pseudonyms")
    assert_refused(ct_attn(*words, tmp_path / "out" / "key.csv"), "a key file outside")
    (tmp_path / "mine.csv").write_text("mine")
    assert_refused(ct_attn(*words, tmp_path / "mine.csv"), "a key with the columns")
    assert (tmp_path / "mine.csv").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_names_of_an_earlier_run_do_not_stay_beside_pseudonyms(tmp_path):
    images, labels = downloads.make_folder(tmp_path)
    words = ("folder", "--images", images, "--labels", labels,
             "--labels-map", "pancreas=1,left_kidney=3,ignore=7")  # fmt: skip
    prepare_others(*words[:1], tmp_path, *words[1:])
    done = ct_attn(
        "prepare", *words, "--folds", 2, "-o", tmp_path / "out", "--pseudonyms", tmp_path / "key.csv"
    )
    assert_refused(done, "something else in it")
    assert not (tmp_path / "key.csv").exists()
