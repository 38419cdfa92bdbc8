"""``ct-attn check`` finds what is wrong with a manifest, through the command line."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from ct_attn.labels import DISK_SCHEME
from ct_attn.manifest import Case, Manifest, file_digest, read_manifest, source_digest, write_manifest
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Mask, Volume
from tests.command import ct_attn
from tests.downloads import copy_of, patient, write_dicom

LABELS = {"0": "background", **{str(code): name for name, code in DISK_SCHEME.codes.items()}}


def check(*arguments):
    return ct_attn("check", *arguments)


def wrong(done):
    """The findings, after the code and the absence of a traceback were looked at."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return [line.removeprefix("wrong  ") for line in done.stdout.splitlines() if line.startswith("wrong  ")]


def write_manifest_of(folder, cases):
    write_manifest(
        Manifest(name="small", source="a test", licence="CC0-1.0", labels=LABELS, training=tuple(cases)),
        folder / "manifest.json",
    )


def on_one_grid(seeds):
    """Scans and labels of these patients, cropped to one size and put at one place."""
    found = [patient(seed) for seed in seeds]
    shape = np.min([volume.grid.shape for volume, _ in found], axis=0)
    box = tuple(slice(0, int(size)) for size in shape)
    grid = Grid(shape=tuple(shape), affine=found[0][0].grid.affine)
    for volume, mask in found:
        yield Volume(hu=volume.hu[box].copy(), grid=grid), Mask(labels=mask.labels[box].copy(), grid=grid)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a manifest of four cases that share a grid, with digests."""
    folder = tmp_path_factory.mktemp("sound") / "data"
    cases = []
    for number, (volume, mask) in enumerate(on_one_grid((1, 2, 4, 6))):
        image, label = f"images/c{number}.nii.gz", f"labels/c{number}.nii.gz"
        nifti.write_volume(volume, folder / image)
        nifti.write_mask(mask, folder / label, scheme=DISK_SCHEME)
        digests = {
            "image_digest": file_digest(folder / image), "label_digest": file_digest(folder / label)
        }  # fmt: skip
        cases.append(
            Case(case_id=f"c{number}", patient_id=f"p{number}", image=image, label=label, fold=number % 2,
                 **digests)
        )  # fmt: skip
    write_manifest_of(folder, cases)
    return folder


@pytest.fixture
def data(sound, tmp_path):
    """A copy to spoil."""
    return copy_of(sound, tmp_path / "data")


def without_digests(data):
    cases = read_manifest(data / "manifest.json").training
    write_manifest_of(
        data, [case.model_copy(update={"image_digest": None, "label_digest": None}) for case in cases]
    )


def rewrite(label, change):
    """Change the labels of a file and write it back, with its digest in the manifest made right again."""
    mask, _ = nifti.read_mask(label)
    labels = mask.labels.copy()
    labels, grid = change(labels), mask.grid
    nifti.write_mask(Mask(labels=labels, grid=grid), label, scheme=DISK_SCHEME)


def test_a_sound_manifest_passes_with_a_summary(sound):
    done = check(sound / "manifest.json")
    assert done.returncode == 0, done.stdout
    assert "4 of 4 patients" in done.stdout
    assert "fold 0: 2, fold 1: 2" in done.stdout
    assert "pancreas: 4, spleen: 4, left_kidney: 4, right_kidney: 4" in done.stdout
    assert "8 verified, 0 unverified" in done.stdout
    assert "wrong" not in done.stdout
    assert "doubtful" not in done.stdout


def test_several_processes_find_the_same(data):
    image = data / "images" / "c1.nii.gz"
    image.write_bytes(image.read_bytes() + b"\0")
    assert check(data / "manifest.json", "--jobs", 2).stdout == check(data / "manifest.json").stdout


@pytest.mark.parametrize("file", ["images/c1.nii.gz", "labels/c2.nii.gz"])
def test_a_changed_byte_is_found(data, file):
    content = bytearray((data / file).read_bytes())
    content[4] ^= 1  # gzip's time stamp: the volume reads as before
    (data / file).write_bytes(content)
    (found,) = wrong(check(data / "manifest.json"))
    assert file in found
    assert "its bytes are not those of the digest" in found


def swap(data, first="c0", second="c2"):
    one, other = (data / "labels" / f"{name}.nii.gz" for name in (first, second))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def test_swapped_labels_are_found_by_their_digests(data):
    swap(data)
    found = wrong(check(data / "manifest.json"))
    assert [line.split(":")[0] for line in found] == ["c0", "c2"]


@pytest.mark.parametrize("pair", [("c0", "c2"), ("c1", "c3"), ("c0", "c1")])
def test_swapped_labels_without_digests_are_found_by_the_evidence(data, pair):
    swap(data, *pair)
    without_digests(data)
    found = wrong(check(data / "manifest.json"))
    assert [line.split(":")[0] for line in found] == list(pair)
    assert f"the label of {pair[1]} fits this scan better" in found[0]
    assert f"the label of {pair[0]} fits this scan better" in found[1]


def test_right_labels_without_digests_are_unverified_and_not_accused(data):
    without_digests(data)
    done = check(data / "manifest.json")
    assert done.returncode == 0, done.stdout
    assert "0 verified, 8 unverified" in done.stdout
    assert "--fill-digests" in done.stderr


def test_missing_digests_are_filled_in_but_of_what_is_wrong(data):
    complete = read_manifest(data / "manifest.json")
    without_digests(data)
    rewrite(data / "labels" / "c3.nii.gz", lambda labels: np.where(labels == 4, 9, labels).astype(np.uint8))
    done = check(data / "manifest.json", "--fill-digests")
    assert done.returncode == 1
    filled = read_manifest(data / "manifest.json").training
    assert filled[:3] == complete.training[:3]
    assert filled[3].label_digest is None
    assert "filled in now: 6" in done.stdout


def test_a_leaking_patient_is_found(data):
    cases = list(read_manifest(data / "manifest.json").training)
    cases[1] = cases[1].model_copy(update={"patient_id": "p0"})
    write_manifest_of(data, cases)
    (found,) = wrong(check(data / "manifest.json"))
    assert "leaks between folds, the same patient: c0 in fold 0, c1 in fold 1" in found


def test_a_patient_in_training_and_test_is_one_line(data):
    fields = json.loads((data / "manifest.json").read_text())
    last = fields["training"].pop()
    fields["test"] = [last | {"fold": None, "patient_id": "p0"}]
    (data / "manifest.json").write_text(json.dumps(fields))
    done = check(data / "manifest.json")
    assert done.returncode == 2
    assert "patient p0 is in training and in test" in done.stderr


def test_a_scan_under_two_names_in_two_folds_is_found_whatever_its_compression(data):
    volume = nifti.read_volume(data / "images" / "c0.nii.gz")
    nifti.write_volume(volume, data / "images" / "c1.nii")
    (data / "labels" / "c1.nii.gz").write_bytes((data / "labels" / "c0.nii.gz").read_bytes())
    cases = list(read_manifest(data / "manifest.json").training)
    cases[1] = cases[1].model_copy(
        update={"image": "images/c1.nii", "image_digest": None, "label_digest": None}
    )
    write_manifest_of(data, cases)
    (found,) = wrong(check(data / "manifest.json"))
    assert "leaks between folds, the same scan: c0 in fold 0, c1 in fold 1" in found


def test_an_unknown_code_is_found(data):
    rewrite(data / "labels" / "c0.nii.gz", lambda labels: np.where(labels == 1, 77, labels).astype(np.uint8))
    found = wrong(check(data / "manifest.json"))
    assert any("code 77, which the manifest does not know" in line for line in found)


def test_a_grid_mismatch_is_found(data):
    without_digests(data)
    label = data / "labels" / "c0.nii.gz"
    image = nib.load(label)
    affine = image.affine.copy()
    affine[2, 3] += 7
    nib.Nifti1Image(np.asarray(image.dataobj), affine).to_filename(label)
    (found,) = wrong(check(data / "manifest.json"))
    assert "labels/c0.nii.gz: expected the grid of images/c0.nii.gz" in found
    assert "7 mm" in found


def test_an_organ_that_the_case_does_not_claim_is_found(data):
    cases = list(read_manifest(data / "manifest.json").training)
    cases[0] = cases[0].model_copy(update={"labelled_organs": ("pancreas", "spleen", "left_kidney")})
    write_manifest_of(data, cases)
    (found,) = wrong(check(data / "manifest.json"))
    assert "holds right_kidney, which labelled_organs leaves out" in found


def test_a_mirrored_label_is_found_by_the_evidence(data):
    without_digests(data)
    rewrite(data / "labels" / "c0.nii.gz", lambda labels: labels[:, ::-1])
    assert any(
        "fits its scan when mirrored (flip front-back" in line
        for line in wrong(check(data / "manifest.json"))
    )


def test_a_label_of_nothing_in_particular_is_doubtful_not_wrong(data):
    def box(labels):
        labels[:] = 0
        labels[13:21, 13:21, 20:28] = 1
        return labels

    without_digests(data)
    rewrite(data / "labels" / "c0.nii.gz", box)
    done = check(data / "manifest.json")
    lines = [line for line in done.stdout.splitlines() if line.startswith("doubtful  c0")]
    assert any("the scan does not show organs where it lies" in line for line in lines)
    assert any("says labelled_organs, but holds none of it" in line for line in lines)


def test_missing_and_torn_files_are_found(data):
    without_digests(data)
    (data / "images" / "c0.nii.gz").unlink()
    torn = data / "labels" / "c1.nii.gz"
    torn.write_bytes(torn.read_bytes()[:100])
    found = wrong(check(data / "manifest.json"))
    assert found[0].startswith("c0: images/c0.nii.gz: expected a file, found no such file")
    assert found[1].startswith("c1: labels/c1.nii.gz: expected a")
    assert not any(str(data) in line for line in found)


def test_the_data_may_lie_elsewhere(sound, tmp_path):
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes((sound / "manifest.json").read_bytes())
    assert check(manifest, "--data-root", sound).returncode == 0
    assert len(wrong(check(manifest))) == 8


def test_a_dicom_series_is_checked_by_the_digest_of_its_files(tmp_path):
    volume, mask = patient(1)
    write_dicom(tmp_path / "series", volume)
    nifti.write_mask(mask, tmp_path / "label.nii.gz", scheme=DISK_SCHEME)
    case = Case(case_id="c0", patient_id="p0", image="series", label="label.nii.gz", fold=0,
                image_digest=source_digest(tmp_path / "series"))  # fmt: skip
    write_manifest_of(tmp_path, [case])
    assert check(tmp_path / "manifest.json").returncode == 0
    slices = sorted((tmp_path / "series").iterdir())
    slices[3].rename(tmp_path / "series" / "zzz.dcm")
    assert check(tmp_path / "manifest.json").returncode == 0  # names don't count
    content = bytearray(slices[0].read_bytes())
    content[5] ^= 1  # in the preamble, which holds no data
    slices[0].write_bytes(content)
    (found,) = wrong(check(tmp_path / "manifest.json"))
    assert "series: its bytes are not those of the digest" in found
