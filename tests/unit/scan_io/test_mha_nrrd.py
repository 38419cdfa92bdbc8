"""MetaImage and NRRD: read as ITK writes them, refused where they are damaged or say too little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.errors import UserError
from ct_attn.scan_io import metaimage, nrrd
from ct_attn.scan_io.options import ReadingOptions
from ct_attn.volume import Grid
from tests.unit.grids import oblique_grids
from tests.unit.scan_io.mha_nrrd_files import write_mha, write_nrrd

FILES = Path(__file__).with_name("files")
GRID = Grid(
    shape=(5, 4, 3), affine=np.array([[0, -1.1, 0, 9], [0.7, 0, 0, 8], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
)
ARRAY = (np.arange(60, dtype=np.int16) - 1000).reshape(GRID.shape, order="F")
TYPES = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]


def read(path: Path, notes=None, **options):
    reader = metaimage if path.suffix == ".mha" else nrrd
    return reader.read_stored(path, ReadingOptions(**options), (notes or []).append).volume


def refusal(path: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        read(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["itk.mha", "itk_packed.mha", "itk.nrrd", "itk_packed.nrrd"])
def test_files_that_simpleitk_wrote(name):
    """SimpleITK 2.5.7: int16 0 to 59 less 1000, 0.3 rad about x, 0.7 x 1.1 x 2.5 mm, origin in LPS."""
    volume = read(FILES / name)
    assert volume.hu.dtype == np.int16
    assert np.array_equal(volume.hu, ARRAY)
    cosine, sine = np.cos(0.3), np.sin(0.3)
    lps = [
        [0.7, 0, 0, -101.3],
        [0, 1.1 * cosine, -2.5 * sine, 55.5],
        [0, 1.1 * sine, 2.5 * cosine, 7],
        [0, 0, 0, 1],
    ]
    assert volume.grid.affine == pytest.approx(np.diag([-1, -1, 1, 1]) @ lps)


@given(
    grid=oblique_grids(fewest=2, most=5),
    dtype=st.sampled_from(TYPES),
    packed=st.booleans(),
    big=st.booleans(),
)
def test_any_grid_and_type_comes_back(tmp_path_factory, grid, dtype, packed, big):
    folder = tmp_path_factory.mktemp("any")
    values = (
        np.random.default_rng(0)
        .integers(0 if np.dtype(dtype).kind == "u" else -100, 100, grid.shape)
        .astype(dtype)
    )
    paths = [
        write_mha(folder / "scan.mha", values, grid, packed=packed, big_endian=big),
        write_nrrd(
            folder / "scan.nrrd",
            values.astype(values.dtype.newbyteorder(">" if big else "<")),
            grid,
            encoding="gzip" if packed else "raw",
            endian="big" if big else "little",
        ),
    ]
    for path in paths:
        volume = read(path)
        assert np.array_equal(volume.hu, values)
        assert volume.hu.dtype == (np.float32 if np.dtype(dtype).kind == "f" else np.int16)
        assert volume.grid.is_same_as(grid, tolerance_mm=1e-6)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("write", [write_mha, write_nrrd])
@pytest.mark.parametrize("part", [0.98, 0.9, 0.5, 0.01])
def test_a_truncated_file_is_refused(tmp_path, write, packed, part):
    kind = {"packed": packed} if write is write_mha else {"encoding": "gzip" if packed else "raw"}
    path = write(tmp_path / f"scan.{write.__name__[6:]}", ARRAY, GRID, **kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    refusal(path)
    path.write_bytes(whole + b"more")
    refusal(path)


@pytest.mark.parametrize("name", ["itk_packed.mha", "itk_packed.nrrd"])
def test_a_changed_bit_in_packed_voxels_is_never_read_as_other_numbers(tmp_path, name):
    """SimpleITK takes such a .mha without a word (docs/decisions/002-mha-nrrd.md)."""
    whole = (FILES / name).read_bytes()
    refused = 0
    for place in range(len(whole) - 60, len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 16
        (tmp_path / name).write_bytes(changed)
        try:
            assert np.array_equal(read(tmp_path / name).hu, ARRAY)
        except UserError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("replaced", "complaint"),
    [
        ([("= LOCAL", "= other.raw")], "another file's name"),
        ([("MET_SHORT", "MET_SHORT_ARRAY")], "element type MET_SHORT_ARRAY"),
        ([("BinaryData = True", "BinaryData = False")], "numbers as text"),
        ([("DimSize = 5 4 3", "DimSize = 5 4")], "2 of 3 sizes"),
        ([("DimSize = 5 4 3", "DimSize = 5 4 9")], "bytes, as its header says"),
        ([("DimSize = 5 4 3", "DimSize = 5000 4000 3000")], "60,000,000,000"),
        ([("DimSize = 5 4 3", "DimSize = 5 -4 3")], "one 3D volume"),
        ([("ElementType", "ElementNumberOfChannels = 3\nElementType")], "3 channels"),
        ([("ElementSpacing = ", "ElementSpacing = nan ")], "4 of 3 numbers"),
        ([("Offset = ", "Offset = x ")], "4 of 3 numbers"),
        ([("NDims = 3", "NDims = three")], "damaged"),
        ([("ElementDataFile", "DataFile")], "something else"),
        ([("ElementType", "DistanceUnits = m\nElementType")], "DistanceUnits"),
    ],
)
def test_a_metaimage_header_that_says_too_little_is_refused(tmp_path, replaced, complaint):
    path = write_mha(tmp_path / "scan.mha", ARRAY, GRID, replaced=replaced)
    message = refusal(path)
    assert complaint in message or (complaint.startswith("60,") and "at most 2,000,000,000" in message)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"space": None, "space_directions": None, "space_origin": None}, "space not stated"),
        ({"space": "scanner-xyz"}, "space scanner-xyz"),
        ({"encoding": "ascii"}, "encoding raw, gzip or bzip2"),
        ({"space_directions": np.zeros((3, 3))}, "invertible affine"),
        ({"space_directions": np.eye(3) * 50}, "a spacing of 0.05 to 20 mm"),
        ({"space_units": ["parsec"] * 3}, "space units"),
    ],
)
def test_a_nrrd_header_that_says_too_little_is_refused(tmp_path, fields, complaint):
    assert complaint in refusal(write_nrrd(tmp_path / "scan.nrrd", ARRAY, GRID, **fields))


@pytest.mark.parametrize("line", [b"data file: ../other.raw", b"byte skip: 7", b"garbage"])
def test_a_nrrd_that_keeps_its_voxels_elsewhere_is_refused(tmp_path, line):
    path = write_nrrd(tmp_path / "scan.nrrd", ARRAY, GRID)
    path.write_bytes(path.read_bytes().replace(b"\n\n", b"\n" + line + b"\n\n", 1))
    refusal(path)


@pytest.mark.parametrize("space", ["RAS", "right-anterior-superior", "left-anterior-superior", "LAS"])
def test_every_space_of_a_patient_is_understood(tmp_path, space):
    to_space = np.diag([-1.0 if space[0].lower() == "l" else 1.0, 1, 1, 1]) @ GRID.affine
    path = write_nrrd(
        tmp_path / "scan.nrrd", ARRAY, GRID, space=space, space_directions=to_space[:3, :3].T,
        space_origin=to_space[:3, 3],
    )  # fmt: skip
    assert read(path).grid.is_same_as(GRID, tolerance_mm=1e-6)


def test_other_units_become_millimetres_and_are_noted(tmp_path):
    notes: list[str] = [""]
    centimetres = Grid(shape=GRID.shape, affine=np.diag([0.1, 0.1, 0.1, 1]) @ GRID.affine)
    units = [("ElementType", "DistanceUnits = cm\nElementType")]
    mha = write_mha(tmp_path / "scan.mha", ARRAY, centimetres, replaced=units)
    assert read(mha, notes).grid.is_same_as(GRID, tolerance_mm=1e-6)
    microns = Grid(shape=GRID.shape, affine=np.diag([1000.0, 1000, 1000, 1]) @ GRID.affine)
    path = write_nrrd(tmp_path / "scan.nrrd", ARRAY, microns, space_units=["um"] * 3)
    assert read(path, notes).grid.is_same_as(GRID, tolerance_mm=1e-6)
    assert [note.split(";")[0] for note in notes[1:]] == ["Its lengths are in cm", "Its lengths are in um"]


def test_a_fourth_axis_of_one_volume_is_taken(tmp_path):
    path = write_mha(
        tmp_path / "scan.mha", ARRAY, GRID,
        replaced=[("NDims = 3", "NDims = 4"), ("DimSize = 5 4 3", "DimSize = 5 4 3 1"),
                  ("TransformMatrix", "Ignored"), ("Offset = ", "Offset = 1 2 3 0\nIgnored ="),
                  ("ElementSpacing = ", "ElementSpacing = 1 2 3 1\nIgnored =")],
    )  # fmt: skip
    notes: list[str] = [""]
    volume = read(path, notes)
    assert np.array_equal(volume.hu, ARRAY)
    assert volume.grid.affine[:3, 3].tolist() == [-1, -2, 3]
    assert "4D with one volume" in notes[1]


def test_nan_is_counted(tmp_path):
    values = ARRAY.astype(np.float32)
    values[1, 2] = np.nan
    assert "3 voxels of NaN" in refusal(write_mha(tmp_path / "scan.mha", values, GRID))
    assert "3 voxels of NaN" in refusal(write_nrrd(tmp_path / "scan.nrrd", values, GRID))


@pytest.mark.parametrize("name", ["scan.mha", "scan.nrrd"])
@pytest.mark.parametrize("content", [b"", b"not a scan\n" * 50, b"NRRD0004\n", b"\0" * 200_000])
def test_what_is_another_kind_of_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refusal(tmp_path / name)
