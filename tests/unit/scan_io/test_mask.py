"""Label maps in all formats that are read, and what a folder of them may hold."""

from __future__ import annotations

import numpy as np
import pytest

from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME
from ct_attn.scan_io import nifti
from ct_attn.scan_io.mask import find_masks, read_mask
from ct_attn.volume import Grid, Mask
from tests.unit.scan_io.mha_nrrd_files import write_mha, write_nrrd

GRID = Grid(
    shape=(5, 4, 3), affine=np.array([[0, -1.1, 0, 9], [0.7, 0, 0, 8], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
)
LABELS = np.random.default_rng(2).integers(0, 256, GRID.shape).astype(np.uint8)


def touched(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_mask_is_the_same_in_every_format(tmp_path, dtype):
    nifti.write_mask(Mask(labels=LABELS, grid=GRID), tmp_path / "a.nii.gz", scheme=DISK_SCHEME)
    write_mha(tmp_path / "a.mha", LABELS.astype(dtype), GRID, packed=True)
    write_nrrd(tmp_path / "a.NRRD", LABELS.astype(dtype), GRID, encoding="gzip")
    for name, meaning in (("a.nii.gz", DISK_SCHEME), ("a.mha", None), ("a.NRRD", None)):
        mask, scheme = read_mask(tmp_path / name)
        assert np.array_equal(mask.labels, LABELS)
        assert mask.labels.dtype == np.uint8
        assert mask.grid.is_same_as(GRID)
        assert scheme == meaning


@pytest.mark.parametrize("value", [-1, 256, 0.5])
def test_what_is_no_code_is_refused_in_every_format(tmp_path, value):
    values = np.full(GRID.shape, value, np.float32)
    for path in (
        write_mha(tmp_path / "a.mha", values, GRID),
        write_nrrd(tmp_path / "a.nrrd", values, GRID),
    ):
        with pytest.raises(UserError, match=r"a\.\w+: expected label codes"):
            read_mask(path)


def test_another_format_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "a.mhd").write_text("NDims = 3")
    with pytest.raises(UserError, match=r"a\.mhd: expected a mask as .*convert it to NIfTI"):
        read_mask(tmp_path / "a.mhd")
    for name in ("b.nii.gz", "b.mha", "b.nrrd", "folder"):
        with pytest.raises(UserError, match="no such file"):
            read_mask(tmp_path / name)


def test_masks_of_a_folder_are_found_by_stem_and_other_files_left_aside(tmp_path):
    touched(
        tmp_path,
        "a.nii",
        "b.nii.gz",
        "c.mha",
        "d.nrrd",
        "e.seg.nrrd",
        "dataset.json",
        "a.dcm",
        "._a.nii",
        ".partial-1-e.mha",
    )
    (tmp_path / "f.nii.gz").mkdir()
    assert {stem: path.name for stem, path in find_masks(tmp_path).items()} == {
        "a": "a.nii", "b": "b.nii.gz", "c": "c.mha", "d": "d.nrrd", "e": "e.seg.nrrd",
    }  # fmt: skip


@pytest.mark.parametrize("pair", [("a.nii", "a.nii.gz"), ("a.mha", "a.nrrd"), ("a.nii.gz", "a.seg.nrrd")])
def test_two_masks_of_one_case_are_refused_by_name(tmp_path, pair):
    with pytest.raises(UserError, match=f"expected one mask for each case, found {pair[0]} and {pair[1]}"):
        find_masks(touched(tmp_path, *pair, "b.nii"))


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr", "a.hdr", "a.IMG", "a.mgz", "a.nii.bz2"])
def test_an_image_that_cannot_be_read_is_refused_by_name(tmp_path, name):
    with pytest.raises(UserError, match=f"found {name}; convert"):
        find_masks(touched(tmp_path, name, "b.nii"))


def test_a_folder_without_masks_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected masks as .*, found none"):
        find_masks(tmp_path)
    with pytest.raises(UserError, match=r"found only 1\.dcm, 2\.dcm, 3\.dcm, \.\.\.; check"):
        find_masks(touched(tmp_path, *(f"{n}.dcm" for n in range(1, 9))))
