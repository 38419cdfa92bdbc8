from __future__ import annotations

import gzip
import os
import tracemalloc
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Extension, Nifti1Header, Nifti1Image

from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME, PAPER_SCHEME
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Mask, Volume

READERS = [nifti.read_volume, nifti.read_mask, nifti.read_grid, nifti.read_frame]
SHAPE = (2, 3, 4)

COSINE, SINE = np.cos(0.3), np.sin(0.3)
#: 0.3 rad about x, spacing 0.7 x 1.1 x 2.5 mm; determinant above 0.
OBLIQUE = np.array(
    [
        [0.7, 0, 0, -101.3],
        [0, 1.1 * COSINE, -2.5 * SINE, 55.5],
        [0, 1.1 * SINE, 2.5 * COSINE, 7],
        [0, 0, 0, 1],
    ]
)
MIRRORED = OBLIQUE @ np.diag([-1.0, 1, 1, 1])
ELSEWHERE = np.diag([3.0, 2, 1, 1])
SHEARED = OBLIQUE + np.array([[0, 0.4, 0, 0], *np.zeros((3, 4))])


def header(*, sform=None, qform=None, units="mm", slope=None, big_endian=False) -> Nifti1Header:
    made = Nifti1Header(endianness=">" if big_endian else "<")
    made.set_data_shape(SHAPE)
    made.set_data_dtype(np.int16)
    made.set_zooms((0.7, 1.1, 2.5))
    made.set_xyzt_units(units)
    if slope is not None:
        made.set_slope_inter(*slope)
    for setter, form in ((made.set_qform, qform), (made.set_sform, sform)):
        if form is not None:
            setter(form[0], code=form[1])
    return made


HEADERS = {
    "qform only": header(qform=(OBLIQUE, 1)),
    "qform only, left handed": header(qform=(MIRRORED, 1)),
    "sform only": header(sform=(OBLIQUE, 2)),
    "sform only, sheared": header(sform=(SHEARED, 4)),
    "both": header(sform=(OBLIQUE, 1), qform=(OBLIQUE, 1)),
    "both, left handed": header(sform=(MIRRORED, 2), qform=(MIRRORED, 3)),
    "both, different": header(sform=(OBLIQUE, 4), qform=(ELSEWHERE, 1)),
    "qform kept without a code": header(sform=(OBLIQUE, 2), qform=(ELSEWHERE, 0)),
    "none": header(),
    "no units": header(sform=(OBLIQUE, 1), units=0),
    "microns": header(sform=(OBLIQUE, 1), units="micron"),
    "scaled": header(sform=(OBLIQUE, 1), slope=(0.5, -3)),
    "big endian": header(sform=(OBLIQUE, 2), qform=(MIRRORED, 1), big_endian=True),
}


def write_raw(path: Path, head: Nifti1Header, stored: np.ndarray) -> Path:
    """A file of exactly this header and these stored numbers; nibabel's images would mend the header."""
    head = head.copy()
    head["vox_offset"] = 352
    head["magic"] = b"n+1"
    body = stored.astype(head.get_data_dtype()).tobytes(order="F")
    content = head.binaryblock + b"\0" * 4 + body
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_image(path: Path, array: np.ndarray, affine=None) -> Path:
    image = Nifti1Image(array, np.eye(4) if affine is None else affine, dtype=array.dtype)
    image.to_filename(path)
    return path


def stored_numbers() -> np.ndarray:
    return np.arange(24, dtype=np.int16).reshape(SHAPE) - 5


def refusal(path: Path, reader=nifti.read_volume) -> str:
    with pytest.raises(UserError) as caught:
        reader(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


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


def test_left_handed_headers_here_do_have_a_negative_qfac():
    assert HEADERS["qform only, left handed"]["pixdim"][0] == -1
    assert HEADERS["both"]["pixdim"][0] == 1


@pytest.mark.parametrize("name", HEADERS)
def test_numbers_are_read_as_the_header_scales_them(tmp_path, name):
    path = write_raw(tmp_path / "scan.nii", HEADERS[name], stored_numbers())
    volume = nifti.read_volume(path)
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
    """Stored (2), scaled (4) and reordered (4) numbers need 10 bytes a voxel; float64 would add 4."""
    shape = (64, 64, 64)
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
    assert peak_bytes / volume.hu.size < 11


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


@pytest.mark.parametrize("value", [256, -1, 0.5, np.nan])
def test_what_is_no_label_map_is_refused(tmp_path, value):
    array = np.full(SHAPE, value, dtype=np.float32)
    assert "label codes" in refusal(write_image(tmp_path / "mask.nii.gz", array), nifti.read_mask)


def test_the_same_mask_gives_the_same_bytes(tmp_path, monkeypatch):
    mask = Mask(labels=np.ones(SHAPE, np.uint8), grid=Grid(shape=SHAPE, affine=OBLIQUE))
    nifti.write_mask(mask, tmp_path / "mask.nii.gz", scheme=DISK_SCHEME)
    first = (tmp_path / "mask.nii.gz").read_bytes()
    monkeypatch.setattr("time.time", lambda: 1.0)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    nifti.write_mask(mask, tmp_path / "mask.nii.gz", scheme=DISK_SCHEME)
    assert (tmp_path / "mask.nii.gz").read_bytes() == first


# ---------------------------------------------------------------- refusals


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


# ---------------------------------------------------------------- failed writes


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
