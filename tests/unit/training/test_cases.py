"""Cases as training sees them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME, PAPER_SCHEME
from ct_attn.preprocessing import PreprocessingConfig, prepare
from ct_attn.scan_io import nifti
from ct_attn.training.cases import CaseFiles, loading
from ct_attn.volume import Grid, Mask, Volume

CONFIG = PreprocessingConfig(spacing_mm=(4, 4, 4), hu_window=(-100, 200))


def write_case(folder, *, labels=None, label_affine=None):
    affine = np.diag([-2.0, 2.0, 4.0, 1.0])
    hu = np.random.default_rng(0).integers(-200, 300, size=(24, 20, 12)).astype(np.int16)
    if labels is None:
        labels = np.zeros(hu.shape, dtype=np.uint8)
        labels[:12, :, :] = 3
        labels[12:, :10, :] = 1
    files = CaseFiles(case_id="a", image=folder / "image.nii.gz", label=folder / "label.nii.gz")
    nifti.write_volume(Volume(hu=hu, grid=Grid(shape=hu.shape, affine=affine)), files.image)
    grid = Grid(shape=labels.shape, affine=affine if label_affine is None else label_affine)
    nifti.write_mask(Mask(labels=labels, grid=grid), files.label, scheme=DISK_SCHEME)
    return files


def load(files):
    return loading(DISK_SCHEME, CONFIG, PAPER_SCHEME)(files)


def test_training_sees_what_inference_sees(tmp_path):
    files = write_case(tmp_path)
    seen = load(files)["image"][0].float().numpy()
    prepared = prepare(nifti.read_volume(files.image), CONFIG)
    assert seen == pytest.approx(prepared.image, abs=1e-3)


def test_labels_come_in_the_codes_of_the_targets(tmp_path):
    item = load(write_case(tmp_path))
    labels = item["label"][0]
    assert labels.dtype == torch.uint8
    assert set(labels.unique().tolist()) == {0, 1, 3}
    # The left kidney lies in the first half of an axis that runs to the left: the right half in RAS.
    assert (labels[6:] == PAPER_SCHEME.codes["kidney"]).all()


def test_an_unknown_code_is_refused_with_the_file(tmp_path):
    files = write_case(tmp_path, labels=np.full((24, 20, 12), 9, dtype=np.uint8))
    with pytest.raises(UserError, match=r"label\.nii\.gz.*code 9"):
        load(files)


def test_a_label_map_on_another_grid_is_refused_with_both_files(tmp_path):
    shifted = np.diag([-2.0, 2.0, 4.0, 1.0])
    shifted[0, 3] = 5
    files = write_case(tmp_path, label_affine=shifted)
    with pytest.raises(UserError, match=r"label\.nii\.gz.*image\.nii\.gz"):
        load(files)
