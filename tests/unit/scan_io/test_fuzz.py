"""However a scan is damaged: the right volume, a readable one, or one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.unit.scan_io.body import body_grid, hu_on
from tests.unit.scan_io.mha_nrrd_files import write_mha, write_nrrd
from tests.unit.scan_io.test_any_scan import write_dicom, write_nifti

ROOT = Path(__file__).resolve().parents[3]
GRID = body_grid("LPS", size=(10, 9, 8), spacing_mm=(10.0, 9.0, 8.0))


def a_scan(folder: Path, kind: str) -> tuple[Path, Path]:
    """What is read, and the file in it that is damaged."""
    hu = hu_on(GRID)
    if kind == "dicom":
        return write_dicom(folder, GRID, hu), folder / "3.dcm"
    path = folder / f"scan.{kind}"
    folder.mkdir()
    if kind.startswith("nii"):
        write_nifti(path, GRID, hu, "int16")
    elif kind == "mha":
        write_mha(path, hu, GRID, packed=True)
    else:
        write_nrrd(path, hu, GRID, encoding="gzip")
    return path, path


def fuzz(folder: Path, kind: str, count: int, seed: int) -> dict:
    source, target = a_scan(folder / "scan", kind)
    command = [sys.executable, "-m", "tests.unit.scan_io.fuzz", source, target, count, seed]
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Doe" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_clean(found: dict, *, least_refused: int) -> None:
    assert found["wrong"] == []
    assert found["refused"] >= least_refused


@pytest.mark.parametrize("kind", ["nii", "nii.gz", "mha", "nrrd", "dicom"])
def test_a_damaged_scan_is_read_or_refused(tmp_path, kind):
    count = 60 if kind == "dicom" else 150
    assert_clean(fuzz(tmp_path, kind, count, seed=1), least_refused=count // 6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nii", "nii.gz", "mha", "nrrd", "dicom"])
@pytest.mark.parametrize("seed", [2, 3])
def test_a_damaged_scan_is_read_or_refused_at_length(tmp_path, kind, seed):
    count = 250 if kind == "dicom" else 800
    assert_clean(fuzz(tmp_path, kind, count, seed), least_refused=count // 6)


def test_the_fuzz_finds_what_it_looks_for(tmp_path):
    """Guards the tests above: the sound file is read, and other numbers are noticed."""
    from tests.unit.scan_io.fuzz import outcome

    source, _ = a_scan(tmp_path / "scan", "nii.gz")
    hu = hu_on(GRID)
    assert outcome(source, hu, has_checksum=True) == "read"
    assert "other numbers" in outcome(source, np.flip(hu, 0), has_checksum=True)
