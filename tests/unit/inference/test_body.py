from __future__ import annotations

import numpy as np
import pytest

from ct_attn.datasets.phantom.case import draw_case
from ct_attn.datasets.phantom.config import PhantomConfig
from ct_attn.inference.body import body_box, find_body
from ct_attn.preprocessing import PreprocessingConfig, prepare_mask, resampled
from ct_attn.scan_io.nifti import read_mask
from ct_attn.scan_io.scan import read_scan
from ct_attn.volume import Volume
from tests.unit.grids import grid_of

SMALL = PhantomConfig(in_plane_spacing_mm=(2.0, 2.5), slice_spacing_mm=(4.0, 5.0))


def patient(size=(100, 80, 20), **changes) -> Volume:
    """An ellipse of fat and organs with lungs, a thin table below it, in air; voxels of 4 mm."""
    grid = grid_of(size=size, spacing_mm=(4, 4, 4))
    i, j, _ = np.indices(size)
    hu = np.full(size, -1000, dtype=np.float32)
    hu[((i - 50) / 40) ** 2 + ((j - 45) / 25) ** 2 < 1] = 40
    hu[((i - 35) / 8) ** 2 + ((j - 45) / 10) ** 2 < 1] = -850
    hu[10:90, 8] = 100
    return Volume(hu=hu, grid=grid)


def test_lungs_belong_to_the_body_and_the_table_and_the_air_do_not():
    body = find_body(patient())
    assert body[35, 45].all()
    assert body[50, 45].all()
    assert not body[:, :12].any()
    assert not body[:3].any()


def test_the_margin_lies_on_all_sides_of_the_skin():
    volume = patient()
    skin = (volume.hu > -400) & (np.arange(80) > 15)[None, :, None]
    body = find_body(volume)
    for axis in (0, 1):
        for shift in (-2, 2):
            assert not (np.roll(skin, shift, axis) & ~body).any()


@pytest.mark.parametrize("hu", [-1000, 0, 40])
def test_where_nothing_looks_like_a_body_or_all_does_everything_is_computed(hu):
    grid = grid_of(size=(20, 18, 1), spacing_mm=(3, 3, 5))
    assert find_body(Volume(hu=np.full(grid.shape, hu, dtype=np.float32), grid=grid)).all()


@pytest.mark.parametrize("seed", range(3))
def test_no_voxel_of_an_organ_of_the_phantom_lies_outside(seed):
    case = draw_case(seed, SMALL)
    config = PreprocessingConfig(spacing_mm=(3, 3, 4))
    body = find_body(resampled(case.volume, config))
    organs = prepare_mask(case.mask, config).labels > 0
    assert organs.any()
    assert not (organs & ~body).any()
    assert body.mean() < 0.8


def test_no_voxel_of_an_organ_of_the_real_scan_lies_outside(shared_data):
    volume = read_scan(shared_data / "abdomen_ct_3mm" / "ct.nii.gz")
    mask, _ = read_mask(shared_data / "abdomen_ct_3mm" / "label.nii.gz")
    config = PreprocessingConfig()
    body = find_body(resampled(volume, config))
    organs = prepare_mask(mask, config).labels > 0
    assert organs.sum() > 10_000
    assert not (organs & ~body).any()


def test_the_box_is_the_smallest_around_the_body():
    body = np.zeros((9, 8, 7), dtype=bool)
    body[2:4, 5, 1:6] = True
    assert body_box(body) == (slice(2, 4), slice(5, 6), slice(1, 6))
