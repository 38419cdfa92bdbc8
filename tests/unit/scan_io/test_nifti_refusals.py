"""What is refused of NIfTI, and that a failed write leaves nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME
from ct_attn.scan_io import nifti
from ct_attn.scan_io.options import ReadingOptions
from ct_attn.volume import Grid, Mask, Volume
from tests.unit.scan_io.nifti_files import OBLIQUE, SHAPE, header, stored_numbers, write_image, write_raw

READERS = [nifti.read_volume, nifti.read_mask, nifti.read_grid, nifti.read_frame]


def refusal(path: Path, reader=nifti.read_volume) -> str:
    with pytest.raises(UserError) as caught:
        reader(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("value", [256, -1, 0.5, np.nan])
def test_what_is_no_label_map_is_refused(tmp_path, value):
    array = np.full(SHAPE, value, dtype=np.float32)
    assert "label codes" in refusal(write_image(tmp_path / "mask.nii.gz", array), nifti.read_mask)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.txt", "scan"])
def test_what_is_not_nifti_is_refused(tmp_path, reader, name):
    path = tmp_path / name
    assert "no such file" in refusal(path, reader)
    path.write_bytes(b"")
    refusal(path, reader)
    path.write_text("not a scan\n" * 100)
    refusal(path, reader)
    path.unlink()
    path.mkdir()
    assert "a folder" in refusal(path, reader)


@pytest.mark.parametrize("reader", [nifti.read_volume, nifti.read_mask])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("part", [0.999, 0.9, 0.5, 0.02])
@pytest.mark.parametrize("shape", [(20, 20, 20), (20, 20, 20, 1)])
def test_a_truncated_file_is_refused(tmp_path, reader, name, part, shape):
    noise = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
    path = write_image(tmp_path / name, noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    refusal(path, reader)


def test_a_damaged_gzip_stream_is_never_read_as_other_numbers(tmp_path):
    """nibabel stops reading before gzip's checksum."""
    noise = np.random.default_rng(0).integers(0, 200, (8, 8, 8)).astype(np.uint8)
    path = write_image(tmp_path / "scan.nii.gz", noise)
    whole = path.read_bytes()
    refused = 0
    for place in range(12, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        try:
            assert np.array_equal(nifti.read_volume(path).hu, noise)
        except UserError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "real numbers"),
        (np.zeros(SHAPE, np.complex64), "real numbers"),
        (np.zeros((4, 5), np.int16), "one 3D volume"),
        (np.zeros((2, 3, 4, 2), np.int16), "one 3D volume"),
        (np.zeros((2, 3, 4, 1, 3), np.int16), "one 3D volume"),
        (np.zeros((2, 0, 4), np.int16), "one 3D volume"),
    ],
)
def test_what_is_not_one_volume_of_real_numbers_is_refused(tmp_path, reader, array, complaint):
    path = write_image(tmp_path / "scan.nii.gz", array)
    message = refusal(path, reader)
    assert complaint in message


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_voxels_that_are_not_finite_are_counted(tmp_path, bad):
    array = np.zeros(SHAPE)
    array[0, 1, :2] = bad
    assert "2 voxels of NaN or infinity" in refusal(write_image(tmp_path / "scan.nii", array))


@pytest.mark.parametrize("reader", [nifti.read_volume, nifti.read_mask, nifti.read_grid])
@pytest.mark.parametrize("affine", [np.diag([1.0, 0, 1, 1]), np.diag([1.0, np.nan, 1, 1])])
def test_an_affine_that_is_not_invertible_is_refused(tmp_path, reader, affine):
    head = header()
    head["sform_code"] = 1
    head["srow_x"], head["srow_y"], head["srow_z"] = affine[:3]
    assert "invertible affine" in refusal(write_raw(tmp_path / "scan.nii", head, stored_numbers()), reader)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_header_that_says_too_many_bytes_is_refused(tmp_path, reader, name):
    head = header(sform=(OBLIQUE, 1))
    head["dim"][1:4] = -2
    path = write_raw(tmp_path / name, head, stored_numbers())
    refusal(path, reader)


def test_dims_beyond_the_file_are_refused(tmp_path):
    head = header(sform=(OBLIQUE, 1))
    head["dim"][1:4] = 32767
    refusal(write_raw(tmp_path / "scan.nii", head, stored_numbers()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_whatever_header_bytes_change_the_outcome_is_a_volume_or_a_refusal(tmp_path, name):
    path = write_raw(tmp_path / name, header(sform=(OBLIQUE, 1)), stored_numbers())
    whole = path.read_bytes()
    random = np.random.default_rng(3)
    outcomes = []
    for _ in range(200):
        changed = bytearray(whole)
        for place in random.integers(40 if name == "scan.nii" else 0, min(len(whole), 352), size=2):
            changed[place] = random.integers(256)
        path.write_bytes(changed)
        try:
            outcomes.append(nifti.read_volume(path).hu.dtype.kind)
        except UserError:
            outcomes.append("refused")
    assert "refused" in outcomes
    assert len(set(outcomes)) > 1 or name == "scan.nii.gz"


@pytest.mark.parametrize("older", [None, b"older"])
def test_a_failed_write_leaves_no_trace_and_the_older_file(tmp_path, monkeypatch, older):
    target = tmp_path / "mask.nii.gz"
    if older is not None:
        target.write_bytes(older)

    def write_half(self, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Nifti1Image, "to_filename", write_half)
    mask = Mask(labels=np.zeros(SHAPE, np.uint8), grid=Grid(shape=SHAPE, affine=OBLIQUE))
    with pytest.raises(OSError, match="No space left"):
        nifti.write_mask(mask, target, scheme=DISK_SCHEME)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([older] if older else [])


def test_a_name_that_nifti_does_not_have_is_refused(tmp_path):
    volume = Volume(hu=stored_numbers(), grid=Grid(shape=SHAPE, affine=OBLIQUE))
    with pytest.raises(UserError, match=r"ending in \.nii\.gz or \.nii"):
        nifti.write_volume(volume, tmp_path / "scan.mha")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("start", [1 << 25, 2e9, 300, 360.5, np.nan, -1])
def test_voxels_that_begin_far_behind_the_header_or_in_it_are_refused(tmp_path, start):
    """What lies between is read into memory: extensions, of which no scan has 16 MB."""
    path = write_raw(tmp_path / "scan.nii", header(sform=(OBLIQUE, 1)), stored_numbers())
    whole = bytearray(path.read_bytes())
    whole[108:112] = np.float32(start).tobytes()
    path.write_bytes(whole)
    assert "voxels that begin at byte" in refusal(path)


def test_a_qform_that_is_none_is_refused_unless_the_sform_is_preferred(tmp_path):
    head = header(sform=(OBLIQUE, 1), qform=(OBLIQUE, 1))
    head["quatern_b"] = 7
    path = write_raw(tmp_path / "scan.nii", head, stored_numbers())
    assert "sform and qform of which one is no affine" in refusal(path)
    assert nifti.read_volume(path, ReadingOptions(prefer="sform")).grid.is_same_as(
        Grid(shape=SHAPE, affine=OBLIQUE)
    )
    with pytest.raises(UserError, match="an invertible affine"):
        nifti.read_volume(path, ReadingOptions(prefer="qform"))
