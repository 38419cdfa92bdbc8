from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ct_attn.errors import UserError
from ct_attn.scan_io.nifti import write_volume
from ct_attn.scan_io.scan import ScanFile, find_scans, read_scan
from ct_attn.volume import Grid, Volume
from tests.unit.scan_io.dicom_files import write_series

TWO = [(0.0, 0.0, 0.0), (0.0, 0.0, 3.0)]


def write_nifti(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(
        Volume(hu=np.full((2, 3, 4), 40, np.int16), grid=Grid(shape=(2, 3, 4), affine=np.eye(4))), path
    )
    return path


def refusal(path: Path, of=find_scans) -> str:
    with pytest.raises(UserError) as caught:
        of(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_reads_a_nifti_file(tmp_path):
    assert read_scan(write_nifti(tmp_path / "a.nii.gz")).hu.shape == (2, 3, 4)


def test_reads_a_dicom_folder(tmp_path):
    write_series(tmp_path, positions=TWO)
    assert read_scan(tmp_path).grid.shape == (4, 3, 2)


@pytest.mark.parametrize("of", [read_scan, find_scans])
def test_what_is_no_scan_is_refused(tmp_path, of):
    assert "no such file or folder" in refusal(tmp_path / "absent.nii.gz", of)
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    assert "another kind of file" in refusal(text, of)
    assert "folder" in refusal(tmp_path, of)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "folder" in refusal(empty, of)


@pytest.mark.parametrize("of", [read_scan, find_scans])
def test_one_dicom_file_is_refused_with_advice(tmp_path, of):
    path = write_series(tmp_path, positions=TWO)[0]
    assert "name the folder that holds its series" in refusal(path, of)


def test_a_folder_of_nifti_files_is_not_one_scan(tmp_path):
    write_nifti(tmp_path / "a.nii.gz")
    assert "a folder without DICOM slices" in refusal(tmp_path, read_scan)


def test_a_nifti_file_is_one_scan_named_by_its_stem(tmp_path):
    path = write_nifti(tmp_path / "case.7.nii.gz")
    assert find_scans(path) == [ScanFile(name="case.7", path=path)]


def test_a_folder_of_nifti_files_is_sorted_and_not_searched_deeper(tmp_path):
    for name in ("b.nii", "A.nii.gz", "c.NII.GZ", ".hidden.nii.gz", "deeper/d.nii.gz"):
        write_nifti(tmp_path / name)
    (tmp_path / "notes.txt").write_text("hello")
    assert [(scan.name, scan.path.name) for scan in find_scans(tmp_path)] == [
        ("A", "A.nii.gz"),
        ("b", "b.nii"),
        ("c", "c.NII.GZ"),
    ]


def test_two_files_of_one_stem_are_refused(tmp_path):
    write_nifti(tmp_path / "a.nii")
    write_nifti(tmp_path / "a.nii.gz")
    message = refusal(tmp_path)
    assert "a.nii and a.nii.gz" in message


def test_a_dicom_folder_is_one_scan_named_like_it(tmp_path, monkeypatch):
    folder = tmp_path / "case_3"
    write_series(folder, positions=TWO, names=["no suffix", "other"])
    assert find_scans(folder) == [ScanFile(name="case_3", path=folder)]
    monkeypatch.chdir(folder)
    assert find_scans(Path())[0].name == "case_3"


def test_a_folder_of_series_is_one_scan_each(tmp_path):
    write_series(tmp_path / "b", positions=TWO)
    write_series(tmp_path / "a", positions=TWO)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "readme.txt").write_text("hello")
    assert find_scans(tmp_path) == [
        ScanFile(name="a", path=tmp_path / "a"),
        ScanFile(name="b", path=tmp_path / "b"),
    ]


def test_a_subfolder_without_slices_is_not_dropped_silently(tmp_path):
    write_series(tmp_path / "a", positions=TWO)
    write_series(tmp_path / "b" / "series", positions=TWO)
    assert "none directly in b;" in refusal(tmp_path)


def test_nifti_beside_dicom_is_refused(tmp_path):
    write_series(tmp_path, positions=TWO)
    write_nifti(tmp_path / "a.nii.gz")
    assert "found both" in refusal(tmp_path)


def test_reading_nifti_does_not_import_highdicom(tmp_path):
    """highdicom costs time; pydicom is imported by nibabel itself."""
    path = write_nifti(tmp_path / "a.nii.gz")
    code = f"""
import sys, pathlib
from ct_attn.scan_io import scan
scan.read_scan(pathlib.Path({str(path)!r}))
scan.find_scans(pathlib.Path({str(tmp_path)!r}))
print([name for name in ("highdicom", "ct_attn.scan_io.dicom", "torch", "monai") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_real_scans_are_found(shared_data):
    assert [scan.name for scan in find_scans(shared_data / "abdomen_ct_3mm")] == ["ct", "label"]
    assert [scan.name for scan in find_scans(shared_data / "abdomen_ct_dicom")] == ["abdomen_ct_dicom"]
