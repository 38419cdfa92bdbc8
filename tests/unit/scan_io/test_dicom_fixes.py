"""Duplicates dropped, holes filled and tilts taken out, each with every voxel at its millimetre."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from ct_attn.errors import UserError
from ct_attn.scan_io.dicom import read_series
from ct_attn.scan_io.options import ReadingOptions
from tests.unit.grids import voxel_centres_mm
from tests.unit.scan_io.dicom_files import write_series

#: A plane in RAS mm, which linear interpolation keeps.
SLOPES = np.array([1.5, -2.0, 3.0])
ROWS, COLUMNS = 30, 24


def ramp(points_mm: np.ndarray) -> np.ndarray:
    return points_mm @ SLOPES


def stored_ramp(positions, orientation) -> np.ndarray:
    """Stored numbers [slice, row, column] (HU + 1024) of the ramp, 2 mm between rows, 1.5 between columns."""
    across, down = np.array(orientation, dtype=float).reshape(2, 3)
    row, column = np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij")
    place = row[..., None] * 2.0 * down + column[..., None] * 1.5 * across
    lps = np.array(positions, dtype=float)[:, None, None, :] + place
    return np.rint(ramp(lps * [-1, -1, 1]) + 1024).astype(np.uint16)


def read(folder, positions, orientation=(1, 0, 0, 0, 1, 0), **options):
    stored = stored_ramp(positions, orientation)
    write_series(folder, positions=positions, stored=stored, orientation=orientation)
    notes = []
    return read_series(folder, ReadingOptions(**options), notes.append), notes


def at(heights) -> list[tuple[float, float, float]]:
    return [(-10.0, -20.0, float(height)) for height in heights]


def assert_is_the_ramp(volume, *, tolerance=1.01):
    """Within two roundings, of what was stored and of what is interpolated; returns the share inside."""
    expected = ramp(voxel_centres_mm(volume.grid))
    inside = volume.hu != -1024
    assert np.abs(volume.hu - expected)[inside].max() <= tolerance
    return inside.mean()


def test_exact_duplicates_are_dropped_and_said(tmp_path):
    positions = at([0, 3, 6, 9, 12, 6, 12])
    volume, notes = read(tmp_path, positions)
    assert volume.grid.shape == (COLUMNS, ROWS, 5)
    assert_is_the_ramp(volume)
    assert notes == ["2 slices repeat another one pixel by pixel and were dropped."]


@pytest.mark.parametrize(
    ("heights", "count", "step_mm"),
    [
        ([0, 3, 6, 12, 15], 6, 3.0),  # one missing
        ([0, 3, 6, 15, 18, 27, 30], 11, 3.0),  # several missing, in two places
        ([0, 2.5, 5, 10, 15, 20], 9, 2.5),  # thin slices, then thick ones
        ([0, 0.7, 1.3, 2.0, 2.7, 4.0, 4.7], 8, 0.675),  # rounded positions with one missing
    ],
)
def test_uneven_slices_are_resampled_when_asked(tmp_path, heights, count, step_mm):
    with pytest.raises(UserError, match="resample it with --fix-spacing") as caught:
        read(tmp_path, at(heights), fix_tilt=True)
    assert "evenly stacked" in str(caught.value)
    volume, notes = read(tmp_path, at(heights), fix_spacing=True)
    assert volume.grid.shape[2] in {count, count - 1}
    assert volume.grid.spacing_mm[2] == pytest.approx(step_mm, abs=0.02)
    assert assert_is_the_ramp(volume, tolerance=1.3) == 1
    assert volume.hu.dtype == np.int16
    assert len(notes) == 1
    assert "resampled linearly" in notes[0]


def test_slices_that_are_there_are_kept_to_the_bit(tmp_path):
    volume, _ = read(tmp_path, at([0, 3, 6, 12, 15]), fix_spacing=True)
    stated = stored_ramp(at([0, 3, 6, 12, 15]), (1, 0, 0, 0, 1, 0)).astype(int) - 1024
    assert np.array_equal(volume.hu[..., [0, 1, 2, 4, 5]], stated.T)


@pytest.mark.parametrize("degrees", [12.0, -20.0])
@pytest.mark.parametrize("order", [1, -1])
def test_a_tilted_gantry_is_refused_or_taken_out(tmp_path, degrees, order):
    """The table moves along z, the planes are turned about x."""
    angle = np.radians(degrees)
    orientation = (1, 0, 0, 0, np.cos(angle), np.sin(angle))
    positions = at(3.0 * np.arange(8))[::order]
    with pytest.raises(UserError, match="drift sideways") as caught:
        read(tmp_path, positions, orientation, fix_spacing=True)
    assert "--fix-tilt" in str(caught.value)
    volume, notes = read(tmp_path, positions, orientation, fix_tilt=True)
    assert volume.grid.is_orthogonal
    assert volume.grid.shape[1] > ROWS
    assert volume.grid.spacing_mm[2] == pytest.approx(3 * np.cos(angle))
    share = assert_is_the_ramp(_without_edges(volume))
    assert share > 0.4  # the rest is the air around what was moved
    assert "moved upright" in notes[0]


def _without_edges(volume):
    """Beside air that was put in, rows and slices are half air."""
    hu = volume.hu.copy()
    hu[binary_dilation(hu < -500, iterations=2)] = -1024
    return type(volume)(hu=hu, grid=volume.grid)


def test_tilted_and_uneven_needs_both_words(tmp_path):
    angle = np.radians(10)
    orientation = (1, 0, 0, 0, np.cos(angle), np.sin(angle))
    positions = at([0, 3, 6, 12, 15])
    for options in ({}, {"fix_tilt": True}, {"fix_spacing": True}):
        with pytest.raises(UserError):
            read(tmp_path, positions, orientation, **options)
    volume, notes = read(tmp_path, positions, orientation, fix_tilt=True, fix_spacing=True)
    assert volume.grid.shape[2] == 6
    assert_is_the_ramp(_without_edges(volume), tolerance=1.6)
    assert len(notes) == 2


def test_a_regular_series_is_read_alike_with_all_fixes_asked_for(tmp_path):
    plain, _ = read(tmp_path, at([0, 3, 6, 9]))
    fixed, notes = read(tmp_path, at([0, 3, 6, 9]), fix_tilt=True, fix_spacing=True)
    assert np.array_equal(plain.hu, fixed.hu)
    assert np.array_equal(plain.grid.affine, fixed.grid.affine)
    assert notes == []


def test_what_a_fix_would_make_too_large_is_refused(tmp_path):
    positions = at([0, 1, 2, 900])
    with pytest.raises(UserError, match="901 in the header"):
        read(tmp_path, positions, fix_spacing=True, max_voxels=100_000)
