"""Whatever the axes, the type and the file: the same HU at the same millimetre."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import LPS_TO_RAS, Grid, Volume
from tests.unit.grids import CODES, oblique_grids
from tests.unit.scan_io.body import body_grid, hu_at, hu_on
from tests.unit.scan_io.dicom_files import write_series
from tests.unit.scan_io.mha_nrrd_files import write_mha, write_nrrd

#: How HU are kept: the type, and the scale that makes HU of what is stored.
STORED = {
    "int8": ("i1", 16.0, 200.0),
    "uint8": ("u1", 8.0, -1024.0),
    "int16": ("i2", 1.0, 0.0),
    "int16, scaled": ("i2", 0.5, -3.0),
    "uint16": ("u2", 1.0, -1024.0),
    "int32": ("i4", 1.0, 0.0),
    "uint32": ("u4", 0.25, -1000.0),
    "int64": ("i8", 1.0, 0.0),
    "uint64": ("u8", 1.0, -1024.0),
    "float32": ("f4", 1.0, 0.0),
    "float64": ("f8", 1.0, 0.0),
    "float64, scaled": ("f8", 2.0, 100.0),
}
FORMS = ["sform", "qform", "both"]


def write_nifti(
    path: Path, grid: Grid, hu: np.ndarray, kept: str, *, form="both", big=False, version=1
) -> Path:
    """``hu`` as the rule ``kept`` stores them, with nibabel's header and our own bytes."""
    code, slope, intercept = STORED[kept]
    dtype = np.dtype(code).newbyteorder(">" if big else "<")
    header = (nib.Nifti1Header if version == 1 else nib.Nifti2Header)(endianness=">" if big else "<")
    header.set_data_shape(grid.shape)
    header.set_data_dtype(dtype)
    header.set_xyzt_units("mm")
    header.set_qform(grid.affine, code=int(form != "sform"), strip_shears=True)
    header.set_sform(grid.affine, code=int(form != "qform"))
    header.set_slope_inter(slope, intercept)
    header["magic"], header["vox_offset"] = header.single_magic, header.single_vox_offset
    stored = (hu - intercept) / slope
    values = np.rint(stored) if np.dtype(code).kind in "iu" else stored
    body = values.astype(dtype).tobytes(order="F")
    with nib.openers.Opener(path, "wb") as file:
        file.write(header.binaryblock + b"\0" * 4 + body)
    return path


def write_dicom(folder: Path, grid: Grid, hu: np.ndarray) -> Path:
    """[column, row, slice] as DICOM, names in any order; needs a right-handed stack in LPS."""
    lps = LPS_TO_RAS @ grid.affine
    across, down = (lps[:3, axis] / grid.spacing_mm[axis] for axis in (0, 1))
    positions = [lps[:3, 3] + index * lps[:3, 2] for index in range(grid.shape[2])]
    write_series(
        folder,
        positions=[[float(f"{value:.10g}") for value in position] for position in positions],
        stored=(hu.T.astype(int) + 1024).astype(np.uint16),
        orientation=[float(f"{value:.12g}") for value in (*across, *down)],
        names=[f"{(index * 11) % grid.shape[2]}.dcm" for index in range(grid.shape[2])],
        fields={"PixelSpacing": [float(f"{grid.spacing_mm[axis]:.12g}") for axis in (1, 0)]},
    )
    return folder


def assert_same_hu_at_the_same_place(volume: Volume, grid: Grid, hu: np.ndarray, *, within=0.0) -> None:
    """Without regard to how the file's axes came to be the volume's: by millimetres."""
    assert volume.hu.size == hu.size
    voxels = np.stack(np.meshgrid(*(np.arange(size) for size in grid.shape), indexing="ij"), axis=-1)
    found = volume.grid.to_voxels(grid.to_mm(voxels))
    nearest = np.rint(found).astype(int)
    assert np.abs((found - nearest) * volume.grid.spacing_mm).max() < 0.01
    assert np.abs(volume.hu[tuple(np.moveaxis(nearest, -1, 0))].astype(float) - hu).max() <= within


def a_body_on(grid: Grid) -> np.ndarray:
    """HU with a value of its own nearly everywhere, and air."""
    centred = Grid(shape=grid.shape, affine=np.block([[grid.affine[:3, :3], np.zeros((3, 1))], [0, 0, 0, 1]]))
    steps = np.array(grid.shape) - 1
    shift = centred.to_mm(steps / 2)
    spread = 45 / np.abs(centred.corners_mm - shift).max()
    indices = np.stack(np.meshgrid(*(np.arange(size) for size in grid.shape), indexing="ij"), axis=-1)
    return hu_at((centred.to_mm(indices) - shift) * spread).clip(-1000, 1000)


@given(
    grid=oblique_grids(fewest=6, most=10),
    kept=st.sampled_from(sorted(STORED)),
    form=st.sampled_from(FORMS),
    big=st.booleans(),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
    version=st.sampled_from([1, 1, 2]),
)
def test_nifti_of_any_grid_and_type(tmp_path_factory, grid, kept, form, big, suffix, version):
    hu = a_body_on(grid)
    path = tmp_path_factory.mktemp("any") / f"scan{suffix}"
    write_nifti(path, grid, hu, kept, form=form, big=big, version=version)
    volume = read_scan(path)
    slope = STORED[kept][1]
    assert_same_hu_at_the_same_place(volume, grid, hu, within=slope / 2 + 1e-3 if slope != 1 else 0)


@given(grid=oblique_grids(fewest=6, most=10), packed=st.booleans(), kind=st.sampled_from(["mha", "nrrd"]))
def test_metaimage_and_nrrd_of_any_grid(tmp_path_factory, grid, packed, kind):
    hu = a_body_on(grid)
    path = tmp_path_factory.mktemp("any") / f"scan.{kind}"
    if kind == "mha":
        write_mha(path, hu, grid, packed=packed)
    else:
        write_nrrd(path, hu, grid, encoding="bzip2" if packed else "raw")
    assert_same_hu_at_the_same_place(read_scan(path), grid, hu)


@given(grid=oblique_grids(fewest=6, most=8).filter(lambda grid: np.linalg.det(grid.affine) > 0))
def test_dicom_of_any_right_handed_grid(tmp_path_factory, grid):
    hu = a_body_on(grid)
    folder = write_dicom(tmp_path_factory.mktemp("any"), grid, hu)
    assert_same_hu_at_the_same_place(read_scan(folder), grid, hu)


@pytest.mark.parametrize("code", CODES)
def test_every_axis_order(tmp_path, code):
    grid = body_grid(code, angles=(0.1, -0.2, 0.3), centre_mm=(30, -20, 400))
    hu = a_body_on(grid)
    path = write_nifti(tmp_path / "scan.nii", grid, hu, "int16")
    volume = read_scan(path)
    assert volume.grid.orientation == code
    assert_same_hu_at_the_same_place(volume, grid, hu)


def test_the_body_tells_places_apart():
    """Guards the tests above: mirrored or shifted by a voxel it differs."""
    hu = hu_on(body_grid()).astype(int)
    for axis in range(3):
        assert (np.flip(hu, axis) != hu).mean() > 0.2
        assert (np.roll(hu, 1, axis) != hu).mean() > 0.2
