"""What NIfTI is read as, and how it is written."""

from __future__ import annotations

import os
import tracemalloc
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Extension, Nifti1Image

from ct_attn.labels import DISK_SCHEME, PAPER_SCHEME
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Mask, Volume
from tests.unit.scan_io.nifti_files import (
    HEADERS,
    OBLIQUE,
    SHAPE,
    SHEARED,
    header,
    stored_numbers,
    write_image,
    write_raw,
)

GRID_FIELDS = (
    "sform_code",
    "qform_code",
    "xyzt_units",
    "srow_x",
    "srow_y",
    "srow_z",
    "quatern_b",
    "quatern_c",
)
GRID_FIELDS += ("quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("with_time_axis", [False, True])
def test_a_mask_states_its_grid_exactly_as_the_scan_does(tmp_path, name, with_time_axis):
    head = HEADERS[name].copy()
    if with_time_axis:
        head.set_data_shape((*SHAPE, 1))
        head["pixdim"][4] = 1.5
    scan = write_raw(tmp_path / "scan.nii.gz", head, stored_numbers())
    grid = nifti.read_grid(scan)
    labels = (np.arange(24) % 5).astype(np.uint8).reshape(SHAPE)

    out = tmp_path / "mask.nii.gz"
    nifti.write_mask(Mask(labels=labels, grid=grid), out, scheme=DISK_SCHEME, frame=nifti.read_frame(scan))

    before, after = nib.load(scan).header, nib.load(out).header
    for field in GRID_FIELDS:
        assert np.array_equal(after[field], before[field]), field
    assert np.array_equal(after["pixdim"][:4], before["pixdim"][:4])
    assert nib.load(out).shape == SHAPE
    assert np.array_equal(nib.load(out).affine, nib.load(scan).affine)
    assert np.array_equal(np.asarray(nib.load(out).dataobj), labels)
    assert nib.load(out).get_data_dtype() == np.uint8
    assert np.array_equal(nifti.read_grid(out).affine, grid.affine)
    assert nifti.frame_of(scan, grid) == nifti.read_frame(scan)


def test_left_handed_headers_here_do_have_a_negative_qfac():
    assert HEADERS["qform only, left handed"]["pixdim"][0] == -1
    assert HEADERS["both"]["pixdim"][0] == 1


@pytest.mark.parametrize("name", HEADERS)
def test_numbers_are_read_as_the_header_scales_them(tmp_path, name):
    path = write_raw(tmp_path / "scan.nii", HEADERS[name], stored_numbers())
    volume = nifti.read_volume(path)
    in_ram = header(sform=(OBLIQUE, 1)) if name == "microns" else HEADERS[name]
    assert volume.grid.is_same_as(Grid(shape=SHAPE, affine=in_ram.get_best_affine()), tolerance_mm=1e-4)
    if name == "scaled":
        assert volume.hu.dtype == np.float32
        assert np.array_equal(volume.hu, stored_numbers() * 0.5 - 3)
    else:
        assert volume.hu.dtype == np.int16
        assert np.array_equal(volume.hu, stored_numbers())
    assert volume.hu.dtype.isnative


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (np.int32([-2048, 3071]), np.int16),
        (np.int32([-40000, 0]), np.float32),
        (np.uint16([0, 40000]), np.float32),
        (np.uint8([0, 255]), np.int16),
        (np.float64([0.25, -1000]), np.float32),
        (np.float32([1, 2]), np.float32),
    ],
)
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_integers_that_fit_become_int16_and_nothing_is_wrapped(tmp_path, stored, dtype, name):
    volume = nifti.read_volume(write_image(tmp_path / name, stored.reshape(1, 2, 1)))
    assert volume.hu.dtype == dtype
    assert volume.hu.ravel().tolist() == stored.tolist()


def test_scaled_numbers_take_no_float64(tmp_path):
    """Two arrays of float32 at once are 8 bytes a voxel; one of float64 and one of float32 are 12."""
    shape = (128, 128, 128)
    head = header(sform=(OBLIQUE, 1), slope=(1, -1024))
    head.set_data_shape(shape)
    path = write_raw(tmp_path / "scan.nii.gz", head, np.full(shape, 1064))
    tracemalloc.start()
    try:
        volume = nifti.read_volume(path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (volume.hu == 40).all()
    assert peak_bytes / volume.hu.size < 9


AXES = [
    np.array([[sign * (axis == row) for axis, sign in zip(order, signs, strict=True)] for row in range(3)])
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]


@given(
    axes=st.sampled_from(AXES),
    spacing=st.tuples(*[st.floats(0.0625, 20, width=32)] * 3),
    offset=st.tuples(*[st.floats(-1000, 1000, width=32)] * 3),
    shape=st.tuples(*[st.integers(1, 4)] * 3),
)
def test_what_is_written_is_read_back(tmp_path_factory, axes, spacing, offset, shape):
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = offset
    path = tmp_path_factory.mktemp("identity") / "scan.nii.gz"
    for dtype in (np.float32, np.int16):
        hu = (np.arange(np.prod(shape)).reshape(shape) * 7 - 900).astype(dtype)
        nifti.write_volume(Volume(hu=hu, grid=Grid(shape=shape, affine=affine)), path)
        back = nifti.read_volume(path)
        assert back.hu.dtype == dtype
        assert np.array_equal(back.hu, hu)
        assert back.grid.is_same_as(Grid(shape=shape, affine=affine), tolerance_mm=1e-4)
    stated = nib.load(path).header
    assert (stated["sform_code"], stated["qform_code"]) == (1, 1)
    assert stated.get_qform() == pytest.approx(affine, abs=1e-3)


def test_a_sheared_grid_is_stated_by_the_sform_alone(tmp_path):
    grid = Grid(shape=SHAPE, affine=SHEARED)
    nifti.write_volume(Volume(hu=stored_numbers(), grid=grid), tmp_path / "scan.nii")
    assert nib.load(tmp_path / "scan.nii").header["qform_code"] == 0
    assert nifti.read_grid(tmp_path / "scan.nii").is_same_as(grid)


def test_a_scan_turned_by_almost_half_a_turn_is_not_stated_twice_and_differently(tmp_path):
    """A quaternion of float32 near half a turn is off by a tenth of a mm at 500 mm."""
    turn = np.pi - 0.001
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    grid = Grid(shape=(512, 512, 2), affine=affine)
    path = tmp_path / "mask.nii.gz"
    nifti.write_mask(Mask(labels=np.zeros(grid.shape, np.uint8), grid=grid), path, scheme=DISK_SCHEME)
    assert nib.load(path).header["qform_code"] == 0
    assert nifti.read_grid(path).is_same_as(grid)


def test_a_frame_is_for_the_grid_that_its_file_says(tmp_path):
    scan = write_raw(tmp_path / "scan.nii", HEADERS["both"], stored_numbers())
    grid = nifti.read_grid(scan)
    assert nifti.frame_of(scan, grid) == nifti.read_frame(scan)
    assert nifti.frame_of(scan, Grid(shape=SHAPE, affine=SHEARED)) is None
    torn = write_raw(
        tmp_path / "torn.nii", header(sform=(OBLIQUE, 1), qform=(SHEARED * 2, 1)), stored_numbers()
    )
    assert nifti.frame_of(torn, grid) is None
    assert nifti.frame_of(tmp_path, grid) is None


@pytest.mark.parametrize("scheme", [DISK_SCHEME, PAPER_SCHEME])
def test_a_mask_brings_the_meaning_of_its_codes(tmp_path, scheme):
    mask = Mask(
        labels=(np.arange(24) % 4).astype(np.uint8).reshape(SHAPE), grid=Grid(shape=SHAPE, affine=OBLIQUE)
    )
    nifti.write_mask(mask, tmp_path / "mask.nii.gz", scheme=scheme)
    back, read = nifti.read_mask(tmp_path / "mask.nii.gz")
    assert read == scheme
    assert np.array_equal(back.labels, mask.labels)
    assert back.grid.is_same_as(mask.grid, tolerance_mm=1e-4)


@pytest.mark.parametrize(
    "comment", [b"hello", b"[1]", b'{"ct_attn label scheme": [{"code": 0}]}', b"\xff\xfe"]
)
def test_comments_of_other_programs_are_passed_over(tmp_path, comment):
    image = Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4))
    image.header.extensions.append(Nifti1Extension(6, comment))
    image.to_filename(tmp_path / "mask.nii")
    assert nifti.read_mask(tmp_path / "mask.nii")[1] is None


def test_the_same_mask_gives_the_same_bytes(tmp_path, monkeypatch):
    mask = Mask(labels=np.ones(SHAPE, np.uint8), grid=Grid(shape=SHAPE, affine=OBLIQUE))
    nifti.write_mask(mask, tmp_path / "mask.nii.gz", scheme=DISK_SCHEME)
    first = (tmp_path / "mask.nii.gz").read_bytes()
    monkeypatch.setattr("time.time", lambda: 1.0)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    nifti.write_mask(mask, tmp_path / "mask.nii.gz", scheme=DISK_SCHEME)
    assert (tmp_path / "mask.nii.gz").read_bytes() == first


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.nii.gz", "a"), ("a.b.nii", "a.b"), ("A.NII.GZ", "A"), ("a.gz", "a"), ("a.nii.nii.gz", "a.nii")],
)
def test_stem(name, stem):
    assert nifti.stem(Path("x.nii") / name) == stem


def test_real_scan_and_label(shared_data):
    folder = shared_data / "abdomen_ct_3mm"
    volume = nifti.read_volume(folder / "ct.nii.gz")
    assert volume.grid.shape == (122, 101, 112)
    assert volume.grid.spacing_mm == pytest.approx((3, 3, 3))
    assert volume.grid.orientation == "RAS"
    assert volume.hu.dtype == np.int16
    assert volume.hu.min() < -900
    assert 1000 < volume.hu.max() < 4000
    frame = nifti.read_frame(folder / "ct.nii.gz")
    assert (frame.sform_code, frame.qform_code) == (2, 0)

    mask, scheme = nifti.read_mask(folder / "label.nii.gz")
    assert scheme is None
    assert mask.grid.is_same_as(volume.grid)
    ml = [(mask.labels == code).sum() * mask.grid.voxel_volume_mm3 / 1000 for code in (1, 2, 3, 4)]
    assert ml == pytest.approx([14.7, 260, 139, 185], rel=0.01)
    assert np.array_equal(np.asarray(nib.load(folder / "ct.nii.gz").dataobj), volume.hu)
