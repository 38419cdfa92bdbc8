"""docs/reading-scans.md row by row, through the command line, each with a real file made wrong on purpose.

``main`` runs in this process: it parses, predicts and exits as the command does, without
importing torch anew for each row.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from nibabel.nifti1 import Nifti1Image
from pydicom.uid import MRImageStorage, RLELossless

from ct_attn.checkpoint import Checkpoint, save_checkpoint
from ct_attn.cli import main
from ct_attn.network.build import build_network
from ct_attn.scan_io import nifti
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import Grid, Mask
from tests.cohorts import tiny_recipe
from tests.unit.scan_io.body import body_grid, hu_on
from tests.unit.scan_io.dicom_files import write_series
from tests.unit.scan_io.mha_nrrd_files import write_mha, write_nrrd
from tests.unit.scan_io.nifti_files import write_image
from tests.unit.scan_io.test_any_scan import STORED, write_dicom, write_nifti

COMMAND = Path(sys.executable).with_name("ct-attn")
GRID = body_grid("LPS")
HU = hu_on(GRID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    code: int
    stderr: str
    mask: Path

    @property
    def notes(self) -> list[str]:
        return [line.strip() for line in self.stderr.splitlines() if line.startswith("note: ")]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An untrained network, the same each time; its masks differ wherever what it sees does."""
    torch.manual_seed(4)
    recipe = tiny_recipe()
    network = build_network(recipe.network, in_channels=1, n_classes=recipe.n_classes)
    folder = tmp_path_factory.mktemp("model")
    save_checkpoint(Checkpoint(weights=network.state_dict(), recipe=recipe, provenance={}), folder)
    return folder


@pytest.fixture
def predict(model, tmp_path, monkeypatch, capsys) -> Callable[..., Done]:
    def run(scan: Path, *options: str | float) -> Done:
        mask = tmp_path / "out" / "mask.nii.gz"
        shutil.rmtree(mask.parent, ignore_errors=True)
        words = ["ct-attn", "predict", "-m", model, "-i", scan, "-o", mask, *options]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        with pytest.raises(SystemExit) as left:
            main()
        return Done(code=int(left.value.code or 0), stderr=capsys.readouterr().err, mask=mask)

    return run


def assert_refused(done: Done, *words: str) -> None:
    """One line with exit code 2, and nothing on disk."""
    assert done.code == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]
    assert not done.mask.parent.exists() or not list(done.mask.parent.iterdir())


def assert_done(done: Done, *noted: str) -> np.ndarray:
    """Exit code 0 and exactly these notes, in part quoted; returns the labels."""
    assert done.code == 0, done.stderr
    assert len(done.notes) == len(noted), done.notes
    for note, part in zip(done.notes, noted, strict=True):
        assert part in note
    return nifti.read_mask(done.mask)[0].labels


def scan_file(path: Path, hu: np.ndarray = HU, grid: Grid = GRID) -> Path:
    return write_image(path, hu, grid.affine)


def in_ras(labels: np.ndarray, grid: Grid) -> np.ndarray:
    return nib.as_closest_canonical(Nifti1Image(labels, grid.affine)).get_fdata()


def patched(path: Path, **fields) -> Path:
    """The header of a .nii file changed in place, as nibabel would not write it."""
    whole = path.read_bytes()
    header = nib.Nifti1Header(whole[:348], check=False)
    for field, value in fields.items():
        header[field] = value
    path.write_bytes(header.binaryblock + whole[348:])
    return path


@pytest.fixture
def nii(tmp_path):
    return scan_file(tmp_path / "scan.nii")


@pytest.fixture
def expected(predict, tmp_path):
    """The labels of the sound scan, which are more than one."""
    labels = assert_done(predict(scan_file(tmp_path / "sound.nii")))
    assert len(np.unique(labels)) > 1
    return labels


# dims or bytes beyond the cap, gzip bombs


def test_dims_beyond_the_cap(predict, nii, tmp_path):
    assert_refused(
        predict(patched(nii, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])), "2,000,000,000", "--max-voxels"
    )
    scan_file(nii)
    assert_refused(predict(nii, "--max-voxels", HU.size - 1), f"at most {HU.size - 1:,} voxels")
    assert_done(predict(nii, "--max-voxels", HU.size))
    folder = write_dicom(tmp_path / "dicom", GRID, HU)
    assert_refused(predict(folder, "--max-voxels", HU.size - 1), "--max-voxels")


def peak_kb(model: Path, scan: Path, output: Path) -> tuple[int, str, int]:
    """Exit code, standard error and peak resident memory of the installed command."""
    words = [str(COMMAND), "predict", "-m", str(model), "-i", str(scan), "-o", str(output)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        stderr = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, stderr, usage.ru_maxrss


@pytest.mark.slow
def test_a_gzip_bomb_costs_no_memory(model, nii, tmp_path):
    """300 MB of zeros behind a small header, and a header that promises more than its file can hold."""
    whole = nii.read_bytes()
    bomb, promise = tmp_path / "bomb.nii.gz", tmp_path / "promise.nii.gz"
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    with bomb.open("wb") as file:
        file.write(packer.compress(whole))
        for _ in range(300):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    promise.write_bytes(gzip.compress(patched(nii, dim=[3, 1200, 1200, 1200, 1, 1, 1, 1]).read_bytes()))
    code, stderr, sound_kb = peak_kb(model, scan_file(tmp_path / "sound.nii"), tmp_path / "mask.nii.gz")
    assert code == 0, stderr
    for path, complaint in ((bomb, "more than the 4,752 numbers"), (promise, "bytes, as its header says")):
        code, stderr, used_kb = peak_kb(model, path, tmp_path / "out" / "mask.nii.gz")
        assert code == 2
        assert complaint in stderr
        assert used_kb < sound_kb + 50_000
    assert not (tmp_path / "out").exists()


# truncated, empty, text, unknown dtype, complex, RGB, 2D


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_truncated_file(predict, tmp_path, name):
    path = scan_file(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(predict(path), name, "copy it again")


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.mha", "scan.nrrd"])
def test_an_empty_file_and_a_text_file(predict, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    assert_refused(predict(path), name, "an empty file")
    path.write_text("Dear colleague,\n" * 40)
    assert_refused(predict(path), name)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((20, 18, 9), np.complex64), "complex64"),
        (np.zeros((20, 18, 9), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "real numbers"),
        (np.zeros((20, 18), np.int16), "one 3D volume"),
        (np.zeros((20, 18, 9, 2), np.int16), "array of shape (20, 18, 9, 2)"),
    ],
)
def test_what_is_no_volume_of_real_numbers(predict, tmp_path, array, complaint):
    assert_refused(predict(write_image(tmp_path / "scan.nii.gz", array)), complaint)


def test_an_unknown_data_type(predict, nii):
    assert_refused(predict(patched(nii, datatype=4711)), "unknown data type 4711")


# affines and spacings


@pytest.mark.parametrize("row", [[0, 0, 0, 0], [np.nan, 0, 0, 0], [np.inf, 0, 0, 0]])
def test_an_affine_that_is_none(predict, nii, row):
    assert_refused(predict(patched(nii, srow_x=row, qform_code=0)), "an invertible affine")


@pytest.mark.parametrize("spacing", [0.01, 40])
def test_a_spacing_of_no_scan(predict, tmp_path, spacing):
    grid = Grid(shape=HU.shape, affine=np.diag([1, 1, spacing, 1]))
    assert_refused(predict(scan_file(tmp_path / "scan.nii", HU, grid)), "0.05 to 20 mm", f"{spacing:g} mm")


def test_zero_spacing_and_no_form(predict, nii):
    patched(nii, sform_code=0, qform_code=0, pixdim=[1, 0, 0, 0, 0, 0, 0, 0])
    assert_refused(predict(nii), "spacing 0 x 0 x 0", "--spacing X Y Z")
    done = predict(nii, "--spacing", 6, 6, 7)
    assert_done(done, "as --spacing says", "neither sform nor qform")
    assert nifti.read_grid(done.mask).spacing_mm == pytest.approx((6, 6, 7))


def test_spacing_is_not_used_where_the_file_knows_better(predict, nii):
    assert_done(predict(nii, "--spacing", 1, 1, 1), "--spacing was not used")


def test_metres_and_microns(predict, tmp_path, expected):
    for unit, factor in ((1, 1e-3), (3, 1e3)):
        grid = Grid(shape=HU.shape, affine=np.diag([factor, factor, factor, 1]) @ GRID.affine)
        path = patched(scan_file(tmp_path / "scan.nii", HU, grid), xyzt_units=unit)
        done = predict(path)
        labels = assert_done(done, "turned into millimetres")
        assert (labels == expected).mean() > 0.9  # 16.5 working voxels, rounded up or down
        assert nifti.read_grid(done.mask).is_same_as(GRID, tolerance_mm=0.01)


# voxels


def test_nan_and_infinity(predict, tmp_path):
    hu = HU.astype(np.float32)
    hu[3, 4, :2], hu[0, 0, 0] = np.nan, np.inf
    assert_refused(predict(scan_file(tmp_path / "scan.nii.gz", hu)), "3 voxels of NaN or infinity")


def test_4d_with_one_volume(predict, tmp_path, expected):
    done = predict(scan_file(tmp_path / "scan.nii.gz", HU[..., None]))
    assert np.array_equal(assert_done(done, "4D with one volume"), expected)


# forms that disagree, shear


def test_forms_that_disagree(predict, nii, tmp_path):
    image = nib.load(nii)
    moved = np.array(GRID.affine)
    moved[1, 3] += 0.02
    image.set_qform(moved, code=1)
    image.set_sform(GRID.affine, code=2)
    path = tmp_path / "two.nii"
    image.to_filename(path)
    assert_refused(predict(path), "disagree by 0.02 mm", "--prefer sform or --prefer qform")
    for form, affine in (("sform", GRID.affine), ("qform", moved)):
        done = predict(path, "--prefer", form)
        assert_done(done, f"the {form} was taken")
        assert nifti.read_grid(done.mask).affine == pytest.approx(affine, abs=1e-3)
    moved[1, 3] -= 0.015
    image.set_qform(moved, code=1)
    image.to_filename(path)
    assert_done(predict(path))


def test_a_sheared_scan_gets_its_mask_on_its_own_grid(predict, tmp_path):
    grid = body_grid("LPS", shear=0.2, angles=(0.1, 0.0, 0.2))
    assert not grid.is_orthogonal
    done = predict(scan_file(tmp_path / "scan.nii", hu_on(grid), grid))
    assert_done(done, "not at right angles")
    assert nib.load(done.mask).affine == pytest.approx(grid.affine, abs=1e-4)
    assert nib.load(done.mask).shape == grid.shape


# what is read right


@pytest.mark.parametrize("code", ["RAS", "LPS", "ASR", "PIL", "SLA", "RPS", "IAL"])
@pytest.mark.parametrize("angles", [(0, 0, 0), (0.1, -0.05, 0.2)])
def test_axis_orders_handedness_and_obliqueness(predict, tmp_path, code, angles):
    plain, turned = body_grid("LPS", angles=angles), body_grid(code, angles=angles)
    expected = assert_done(predict(scan_file(tmp_path / "plain.nii", hu_on(plain), plain)))
    done = predict(scan_file(tmp_path / "scan.nii.gz", hu_on(turned), turned))
    assert np.array_equal(in_ras(assert_done(done), turned), in_ras(expected, plain))
    assert nifti.read_grid(done.mask).is_same_as(turned)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kept", sorted(set(STORED) - {"int8", "uint8"}))
def test_types_scales_and_byte_orders(predict, tmp_path, expected, kept, big):
    path = write_nifti(tmp_path / "scan.nii.gz", GRID, HU, kept, big=big)
    assert np.array_equal(assert_done(predict(path)), expected)


@pytest.mark.parametrize("kept", ["int8", "uint8"])
def test_eight_bits_with_a_scale_hold_hu(predict, tmp_path, kept):
    coarse = (HU // 16 * 16 + 8).clip(-1024, 1000).astype(np.int16)
    expected = assert_done(predict(scan_file(tmp_path / "coarse.nii", coarse)))
    path = write_nifti(tmp_path / "scan.nii", GRID, coarse, kept)
    assert np.array_equal(read_scan(path).hu, coarse)
    assert np.array_equal(assert_done(predict(path)), expected)


@pytest.mark.parametrize("packed", [False, True])
def test_mha_and_nrrd(predict, tmp_path, expected, packed):
    mha = write_mha(tmp_path / "scan.mha", HU, GRID, packed=packed)
    nrrd = write_nrrd(tmp_path / "scan.nrrd", HU, GRID, encoding="gzip" if packed else "raw")
    for path in (mha, nrrd):
        done = predict(path)
        assert np.array_equal(assert_done(done), expected)
        assert nifti.read_grid(done.mask).is_same_as(GRID)


def test_a_folder_of_every_kind_of_file(model, tmp_path, monkeypatch, capsys):
    scans = tmp_path / "scans"
    scans.mkdir()
    scan_file(scans / "a.nii.gz")
    write_mha(scans / "b.mha", HU, GRID)
    write_nrrd(
        scans / "c.nrrd", HU[..., None], GRID, space_directions=_with_none(), kinds=["domain"] * 3 + ["list"]
    )
    words = ["ct-attn", "predict", "-m", model, "-i", scans, "-o", tmp_path / "masks"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr()
    assert not left.value.code, told.err
    assert "note: c: It is 4D with one volume" in told.err
    masks = [nifti.read_mask(path)[0].labels for path in sorted((tmp_path / "masks").glob("*.nii.gz"))]
    assert len(masks) == 3
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])


def _with_none() -> np.ndarray:
    directions = (np.diag([-1.0, -1, 1, 1]) @ GRID.affine)[:3, :3].T
    return np.vstack([directions, np.full((1, 3), np.nan)])


def test_names_of_corrected_series(predict, tmp_path, expected):
    for name, said in (("ct_Eq_1", "even ones"), ("ct_Tilt", "tilt of the gantry")):
        done = predict(scan_file(tmp_path / f"{name}.nii.gz"))
        assert np.array_equal(assert_done(done, said), expected)


# not HU, padding

NOT_HU = {
    "offset": (HU.clip(-1024) + 1024, (1, -1024), "an offset"),
    "0-1": (((HU + 1024.0) / 4096).astype(np.float32), (4096, -1024), "scaled to 0-1"),
    "8 bits": (((HU + 1024) // 8).clip(0, 255).astype(np.uint8), (8, -1024), "8"),
}


@pytest.mark.parametrize("name", NOT_HU)
def test_values_that_are_no_hu(predict, tmp_path, expected, name):
    values, rescale, cause = NOT_HU[name]
    path = scan_file(tmp_path / "scan.nii.gz", values)
    assert_refused(predict(path), "Hounsfield units", cause, "--rescale SLOPE INTERCEPT")
    labels = assert_done(predict(path, "--rescale", *rescale), "as --rescale says")
    assert np.array_equal(labels, expected) or name == "8 bits"


def test_padding_is_clipped_and_counted(predict, tmp_path):
    padded = HU.copy()
    padded[:2] = -2048
    clipped = np.maximum(padded, -1024)
    expected = assert_done(predict(scan_file(tmp_path / "clipped.nii", clipped)))
    done = predict(scan_file(tmp_path / "scan.nii", padded))
    labels = assert_done(done, f"{2 * HU[0].size} voxels below -1024 HU, down to -2048")
    assert np.array_equal(labels, expected)


# DICOM


@pytest.fixture
def dicom(tmp_path):
    return write_dicom(tmp_path / "dicom", GRID, HU)


def edit(path: Path, **fields) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def in_order(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])


def test_a_dicom_series_gives_the_mask_of_the_same_scan_in_nifti(predict, dicom, expected):
    """Its slices are named so that they sort wrongly."""
    assert sorted(dicom.iterdir()) != in_order(dicom)
    done = predict(dicom)
    assert np.array_equal(assert_done(done), expected)
    assert nifti.read_grid(done.mask).is_same_as(GRID)


def test_several_series(predict, dicom, expected):
    write_series(
        dicom, positions=[(0.0, 0.0, 0.0)], names=["scout"], orientation=(1, 0, 0, 0, 0, -1),
        fields={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesNumber": 1},
    )  # fmt: skip
    done = predict(dicom)
    assert np.array_equal(assert_done(done, "Of 2 series in the folder one was taken"), expected)
    heights = [(0.0, 0.0, 7.0 * index) for index in range(11)]
    write_series(
        dicom, positions=heights, names=[f"late{index}" for index in range(11)], fields={"SeriesNumber": 2}
    )
    refused = predict(dicom)
    assert_refused(
        refused, "3 series", "localiser", "axial, 11 files of 4 x 3", "axial, 12 files of 22 x 18", "--series"
    )
    number = re.search(r"(\d): CT Image Storage, CT, axial, 12 files", refused.stderr).group(1)
    assert np.array_equal(assert_done(predict(dicom, "--series", number), "was taken"), expected)
    uid = pydicom.dcmread(in_order(dicom)[-1]).SeriesInstanceUID
    assert_done(predict(dicom, "--series", uid), "was taken")
    assert "Doe" not in refused.stderr
    assert "SECRET" not in refused.stderr


def test_a_missing_slice(predict, dicom):
    in_order(dicom)[4].unlink()
    assert_refused(predict(dicom), "a gap of 14 mm where slices are 7 mm apart", "--fix-spacing")
    done = predict(dicom, "--fix-spacing")
    assert_done(done, "resampled linearly to 12 slices every 7 mm")
    assert nifti.read_grid(done.mask).is_same_as(GRID)


def test_a_duplicate_slice(predict, dicom, expected):
    path = in_order(dicom)[4]
    (dicom / "copy.dcm").write_bytes(path.read_bytes())
    assert np.array_equal(assert_done(predict(dicom), "1 slices repeat another"), expected)


def test_a_slice_at_the_place_of_another(predict, dicom):
    first, second = in_order(dicom)[4:6]
    edit(second, ImagePositionPatient=pydicom.dcmread(first).ImagePositionPatient)
    assert_refused(predict(dicom, "--fix-spacing"), "1 slices at the place of another, with other pixels")


def test_a_tilted_gantry(predict, tmp_path):
    cosine, sine = np.cos(0.2), np.sin(0.2)
    positions = [(-60.0, -50.0, 7.0 * index) for index in range(12)]
    stored = (hu_on(body_grid()).T + 1024).astype(np.uint16)
    write_series(
        tmp_path / "tilted", positions=positions, stored=stored, orientation=(1, 0, 0, 0, cosine, sine),
        fields={"PixelSpacing": [6.0, 6.0]},
    )  # fmt: skip
    assert_refused(predict(tmp_path / "tilted"), "drift sideways", "--fix-tilt")
    done = predict(tmp_path / "tilted", "--fix-tilt")
    assert_done(done, "moved upright")
    assert nifti.read_grid(done.mask).is_orthogonal


def test_a_mixed_orientation_and_a_localiser_inside_the_series(predict, dicom):
    path = in_order(dicom)[4]
    edit(path, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    assert_refused(predict(dicom, "--fix-spacing", "--fix-tilt"), "share one orientation", "1 of 12")
    edit(path, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert_refused(predict(dicom), "1 of them a localiser")


def test_what_is_no_ct(predict, tmp_path):
    positions = [(0.0, 0.0, 3.0 * index) for index in range(4)]
    write_series(tmp_path / "mr", positions=positions, sop_class=MRImageStorage, fields={"Modality": "MR"})
    assert_refused(predict(tmp_path / "mr"), "expected CT images, found MR Image Storage, MR")


def test_empty_uids(predict, dicom, expected):
    uids = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    for path in dicom.iterdir():
        edit(path, **dict.fromkeys(uids, ""))
    assert np.array_equal(assert_done(predict(dicom)), expected)


def test_per_slice_rescale_and_compression(predict, dicom, expected):
    for index, path in enumerate(in_order(dicom)):
        dataset = pydicom.dcmread(path)
        stored = dataset.pixel_array.astype(int) - 1024 + 100 * (index + 11)
        dataset.PixelData = (2 * stored).astype(np.uint16).tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5, -100 * (index + 11)
        if index % 2:
            dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    assert np.array_equal(assert_done(predict(dicom)), expected)


def test_dicom_that_is_no_hu(predict, dicom, expected):
    for path in dicom.iterdir():
        edit(path, RescaleIntercept=0)
    assert_refused(predict(dicom), "an offset", "--rescale 1 -1024")
    assert np.array_equal(assert_done(predict(dicom, "--rescale", 1, -1024), "as --rescale says"), expected)


# masks


def test_masks_are_checked_against_grid_and_codes(tmp_path, monkeypatch, capsys):
    from ct_attn.labels import DISK_SCHEME

    labels = (HU > 0).astype(np.uint8)
    nifti.write_mask(Mask(labels=labels, grid=GRID), tmp_path / "truth.nii.gz", scheme=DISK_SCHEME)
    wrong = {
        "shape": (labels[:-1], GRID.affine, "grid of"),
        "affine": (labels, GRID.affine + np.eye(4, k=3) * 3, "3 mm elsewhere"),
        "code": (labels * 9, GRID.affine, "code 9"),
        "fraction": (labels * 0.5, GRID.affine, "label codes"),
    }
    for name, (array, affine, complaint) in wrong.items():
        path = write_image(tmp_path / f"{name}.nii.gz", array, affine)
        words = [
            "evaluate",
            "--truth",
            tmp_path / "truth.nii.gz",
            "--predicted",
            path,
            "-o",
            tmp_path / "out",
        ]
        monkeypatch.setattr(sys, "argv", ["ct-attn", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        told = capsys.readouterr().err
        assert complaint in told
        assert f"{name}.nii.gz" in told
        assert not (tmp_path / "out").exists()
