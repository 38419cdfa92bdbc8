from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ct_attn.inference import restore
from ct_attn.inference.restore import Restorer, restore_mask, restore_values
from ct_attn.preprocessing import PreprocessingConfig, working_grid
from ct_attn.volume import Grid
from tests.unit.grids import CODES, SOME_CODES, grid_of, oblique_grids, voxel_centres_mm

CLASSES = 4
WORKING = grid_of("RAS", size=(9, 8, 7), spacing_mm=(2, 2, 2), centre_mm=(10, -20, 300))


def drawn(working: Grid) -> np.ndarray:
    random = np.random.default_rng(sum(working.shape))
    return random.standard_normal((CLASSES, *working.shape)).astype(np.float32)


def all_at_once(logits: np.ndarray, working: Grid, scan: Grid) -> np.ndarray:
    """Every class at every voxel of the scan, through scipy."""
    voxels = np.moveaxis(working.to_voxels(voxel_centres_mm(scan)), -1, 0)
    return np.stack(
        [ndimage.map_coordinates(one.astype(float), voxels, order=1, mode="nearest") for one in logits]
    )


def check(logits: np.ndarray, working: Grid, scan: Grid) -> None:
    """Compare with all classes resampled at once, save where two classes are as likely."""
    mask = restore_mask(logits, working, scan)
    assert mask.grid is scan
    assert mask.labels.dtype == np.uint8
    resampled = all_at_once(logits, working, scan)
    second, first = np.sort(resampled, axis=0)[-2:]
    clear = first - second > 1e-4
    assert clear.mean() > 0.9
    assert np.array_equal(mask.labels[clear], resampled.argmax(axis=0)[clear])


@pytest.fixture
def separable_only(monkeypatch):
    monkeypatch.setattr(restore.Restorer, "_anywhere", lambda *_: pytest.fail("took the general path"))


@pytest.mark.usefixtures("separable_only")
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("angles", [(0, 0, 0), (0.2, -0.1, 0.3)], ids=["straight", "oblique"])
def test_every_orientation_is_restored_axis_by_axis(code, angles):
    scan = grid_of(code, size=(17, 15, 6), spacing_mm=(0.9, 1.1, 3), angles=angles, centre_mm=(10, -20, 300))
    working = working_grid(scan, PreprocessingConfig(spacing_mm=(2, 1.7, 2.5)))
    check(drawn(working), working, scan)


@given(oblique_grids(fewest=1, most=14), st.floats(0.8, 6))
def test_any_scan_is_restored_from_its_working_grid(scan, spacing_mm):
    working = working_grid(scan, PreprocessingConfig(spacing_mm=[spacing_mm] * 3))
    check(drawn(working), working, scan)


@given(oblique_grids(fewest=1, most=14))
def test_any_scan_is_restored_from_any_grid(scan):
    shifted = Grid(shape=scan.shape, affine=np.array(scan.affine))
    check(drawn(WORKING), WORKING, shifted)
    near = np.array(scan.affine)
    near[:3, 3] += WORKING.centre_mm - scan.centre_mm
    check(drawn(WORKING), WORKING, Grid(shape=scan.shape, affine=near))


@pytest.mark.parametrize("code", SOME_CODES)
def test_a_sheared_scan_takes_the_general_path(code, monkeypatch):
    monkeypatch.setattr(restore.Restorer, "_separably", lambda *_: pytest.fail("took the separable path"))
    scan = grid_of(code, size=(17, 15, 12), spacing_mm=(0.9, 1.1, 2), shear=0.3)
    working = working_grid(scan, PreprocessingConfig())
    check(drawn(working), working, scan)


@pytest.mark.parametrize("code", CODES)
def test_both_paths_agree(code, monkeypatch):
    scan = grid_of(code, size=(12, 10, 9), spacing_mm=(1.3, 1.1, 2), centre_mm=(11, -21, 299))
    logits = drawn(WORKING)
    separable = restore_mask(logits, WORKING, scan).labels
    monkeypatch.setattr(restore, "is_separable", lambda _: False)
    general = restore_mask(logits, WORKING, scan).labels
    assert (separable != general).mean() < 1e-3  # ties alone


@pytest.mark.parametrize("size", [(1, 1, 1), (13, 11, 1), (1, 11, 13), (2, 1, 3)])
@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_one_slice_and_tiny_scans(size, shear):
    for code in SOME_CODES:
        scan = grid_of(code, size=size, shear=shear, centre_mm=(10, -20, 300))
        check(drawn(WORKING), WORKING, scan)
        working = working_grid(scan, PreprocessingConfig())
        check(drawn(working), working, scan)


@pytest.mark.parametrize("shear", [0.0, 0.3])
@pytest.mark.parametrize("code", SOME_CODES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_border_in_mm_falls_between_the_same_voxels(code, shear, axis):
    """Logits that rise evenly through space cross at one plane, whatever the grids."""
    scan = grid_of(code, size=(30, 26, 22), spacing_mm=(0.7, 0.8, 1.1), shear=shear, centre_mm=(10, -20, 300))
    border_mm = scan.centre_mm[axis] + 0.37
    rise = (voxel_centres_mm(WORKING)[..., axis] - border_mm).astype(np.float32)
    mask = restore_mask(np.stack([np.zeros_like(rise), rise]), WORKING, scan)
    points_mm = voxel_centres_mm(scan)[..., axis]
    near = np.abs(points_mm - border_mm) < 1e-3
    assert np.array_equal(mask.labels[~near], (points_mm > border_mm)[~near])
    assert 0 < mask.labels.mean() < 1


def test_beyond_the_working_grid_the_border_goes_on():
    logits = np.zeros((2, 3, 3, 3), np.float32)
    logits[0] = 0.9
    logits[1, 0, 0, 0] = 1  # so that one corner voxel alone, at -2 mm, is class 1
    working = grid_of(size=(3, 3, 3), spacing_mm=(2, 2, 2))
    labels = restore_mask(logits, working, grid_of(size=(15, 15, 15))).labels
    assert (labels[:6, :6, :6] == 1).all()  # voxel centres from -7 to -2 mm
    assert not labels[6:].any()
    assert not labels[:, 6:].any()
    assert not labels[:, :, 6:].any()


@pytest.mark.parametrize("slices", [1, 3, 100])
@pytest.mark.parametrize("shear", [0.0, 0.3])
@pytest.mark.parametrize("code", SOME_CODES)
def test_where_slabs_begin_and_end_makes_no_difference(code, shear, slices, monkeypatch):
    scan = grid_of(code, size=(11, 12, 19), shear=shear, centre_mm=(10, -20, 300))
    before = restore_mask(drawn(WORKING), WORKING, scan).labels
    monkeypatch.setattr(restore, "SLAB_SLICES", slices)
    assert (restore_mask(drawn(WORKING), WORKING, scan).labels != before).mean() < 1e-3  # ties alone


@pytest.mark.parametrize("code", SOME_CODES)
def test_a_slab_may_change_once_it_was_added(code):
    scan = grid_of(code, size=(11, 12, 19), centre_mm=(10, -20, 300))
    restorer = Restorer(WORKING, scan, n_values=0)
    for begin in range(0, WORKING.shape[2], 3):
        slab = drawn(WORKING)[..., begin : begin + 3].copy()
        restorer.add(begin, slab)
        slab[:] = np.nan
    expected = restore_mask(drawn(WORKING), WORKING, scan).labels
    assert (restorer.mask().labels != expected).mean() < 1e-3  # ties alone


def test_of_a_tilted_scan_with_long_voxels_few_coronal_slices_are_held():
    """Along z a voxel is seven times as long, and so moves farther along A than one along y."""
    scan = grid_of("RAS", size=(20, 100, 30), spacing_mm=(0.7, 0.7, 5.0), shear=0.36)
    assert np.abs(scan.affine[1, :3]).argmax() == 2
    working = working_grid(scan, PreprocessingConfig(spacing_mm=(1.4, None, 5.0))).ordered((0, 2, 1))
    restorer = Restorer(working, scan)
    held = []
    for begin in range(0, working.shape[2], 4):
        depth = min(4, working.shape[2] - begin)
        restorer.add(begin, np.zeros((2, *working.shape[:2], depth), dtype=np.float32))
        held.append(restorer.held.shape[3])
    reach = 0.36 * 5.0 * 30 / working.spacing_mm[2]
    assert max(held) < reach + 8
    assert max(held) < 0.8 * working.shape[2]


def test_the_same_grid_gives_plain_argmax():
    logits = drawn(WORKING)
    assert np.array_equal(restore_mask(logits, WORKING, WORKING).labels, logits.argmax(0))


def test_of_equal_logits_the_first_class_wins():
    assert not restore_mask(np.zeros((CLASSES, *WORKING.shape), np.float32), WORKING, WORKING).labels.any()
    logits = np.zeros((CLASSES, *WORKING.shape), np.float32)
    logits[2:] = 1
    assert (restore_mask(logits, WORKING, WORKING).labels == 2).all()


def test_the_logits_are_left_as_they_were():
    logits = drawn(WORKING)
    restore_mask(logits, WORKING, grid_of(size=(20, 20, 20), centre_mm=(10, -20, 300)))
    assert np.array_equal(logits, drawn(WORKING))


@pytest.mark.parametrize("code", SOME_CODES)
@pytest.mark.parametrize("changes", [{}, {"shear": 0.2}], ids=["straight", "sheared"])
def test_values_come_back_as_interpolated_all_at_once(code, changes):
    scan = grid_of(code, size=(11, 9, 13), spacing_mm=(1.1, 1.3, 0.9), centre_mm=(10, -20, 300), **changes)
    values = drawn(WORKING)
    restored = restore_values(values, WORKING, scan)
    assert restored.dtype == np.float32
    assert restored == pytest.approx(all_at_once(values, WORKING, scan), abs=1e-4)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_beyond_the_box_that_was_looked_at_no_organ_is_likely(activation, shear):
    scan = grid_of("LPS", size=(30, 28, 20), spacing_mm=(1, 1, 1.5), shear=shear, centre_mm=(10, -20, 300))
    working = working_grid(scan, PreprocessingConfig(spacing_mm=(2, 2, 2)))
    box = tuple(slice(side // 3, 2 * side // 3) for side in working.shape)
    logits = np.zeros((3, *(side.stop - side.start for side in box)), np.float32)
    logits[1] = 4
    chosen = {"softmax": activation == "softmax", "sigmoid": activation == "sigmoid"}
    restorer = Restorer(working, scan, box=box, n_values=2, **chosen)
    restorer.add(0, logits)
    labels = restorer.mask().labels
    assert 0 < labels.mean() < 0.5
    assert restorer.values[:, labels == 0].max() < 1e-15
    assert restorer.values[0][labels == 1].min() > 0.9
