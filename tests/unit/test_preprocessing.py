from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ct_attn.preprocessing import PreprocessingConfig, canonical_axes, prepare, prepare_mask, working_grid
from ct_attn.volume import Grid, Mask, Volume
from tests.unit.grids import CODES, SOME_CODES, grid_of, oblique_grids, voxel_centres_mm

WINDOW = (-1024.0, 1024.0)
RAMP_HU_PER_MM = np.array([0.7, -0.5, 0.9])
SPACINGS = st.tuples(*[st.floats(0.8, 6)] * 3)


def ramp_hu(points_mm: np.ndarray, grid: Grid) -> np.ndarray:
    """HU that rise evenly in space, 0 at the centre of ``grid``."""
    return (points_mm - grid.centre_mm) @ RAMP_HU_PER_MM


def well_inside(points_mm: np.ndarray, grid: Grid, margin_mm: float) -> np.ndarray:
    """Which points lie ``margin_mm`` and a voxel away from the outermost voxels of ``grid``."""
    voxels = grid.to_voxels(points_mm)
    margin = 1 + margin_mm / np.array(grid.spacing_mm)
    return ((voxels >= margin) & (voxels <= np.array(grid.shape) - 1 - margin)).all(axis=-1)


def check_ramp(grid: Grid, config: PreprocessingConfig) -> int:
    """Prepare a ramp on ``grid``, compare it with the ramp on the working grid, count the voxels compared."""
    hu = ramp_hu(voxel_centres_mm(grid), grid).astype(np.float32)
    prepared = prepare(Volume(hu=hu, grid=grid), config)
    assert prepared.grid.is_orthogonal
    points_mm = voxel_centres_mm(prepared.grid)
    inner = well_inside(points_mm, grid, max(config.spacing_mm))
    found_hu = prepared.image * (WINDOW[1] - WINDOW[0]) + WINDOW[0]
    assert found_hu[inner] == pytest.approx(ramp_hu(points_mm, grid)[inner], abs=1e-2)
    return int(inner.sum())


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("code", CODES)
def test_a_ramp_in_space_stays_that_ramp_in_every_orientation(code, antialias):
    grid = grid_of(code, size=(18, 20, 12), spacing_mm=(0.9, 0.8, 2.5), angles=(0.2, -0.1, 0.3))
    config = PreprocessingConfig(spacing_mm=(2, 1.7, 3), hu_window=WINDOW, antialias=antialias)
    assert check_ramp(grid, config) >= 50


@given(oblique_grids(), SPACINGS, st.booleans())
def test_a_ramp_in_space_stays_that_ramp_on_any_grid(grid, spacing_mm, antialias):
    check_ramp(grid, PreprocessingConfig(spacing_mm=spacing_mm, hu_window=WINDOW, antialias=antialias))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("code", SOME_CODES)
def test_a_ramp_in_space_stays_that_ramp_on_a_sheared_scan(code, antialias):
    grid = grid_of(code, size=(20, 24, 16), spacing_mm=(1, 1, 2), shear=0.3)
    config = PreprocessingConfig(spacing_mm=(2, 2, 2), hu_window=WINDOW, antialias=antialias)
    assert check_ramp(grid, config) >= 50


@given(oblique_grids(), SPACINGS)
def test_the_working_grid_is_ras_with_the_asked_spacing_around_the_same_centre(grid, spacing_mm):
    working = working_grid(grid, PreprocessingConfig(spacing_mm=spacing_mm))
    assert working.orientation == "RAS"
    assert working.is_orthogonal
    assert np.linalg.det(working.directions) == pytest.approx(1)
    assert working.spacing_mm == pytest.approx(spacing_mm)
    assert working.centre_mm == pytest.approx(grid.centre_mm)
    axes, _ = canonical_axes(grid)
    for world, axis in enumerate(axes):
        extent_mm = grid.shape[axis] * grid.spacing_mm[axis]
        rounded = max(1, extent_mm / spacing_mm[world])
        assert abs(working.shape[world] - rounded) <= 0.5 + 1e-6
        assert abs(working.directions[:, world] @ grid.directions[:, axis]) == pytest.approx(1)


def test_a_working_grid_by_hand():
    """20 x 30 x 40 mm at 2 x 3 x 4 mm: ten voxels a side, the first centre half a voxel inside."""
    source = grid_of("LPS", size=(20, 30, 8), spacing_mm=(1, 1, 5))
    working = working_grid(source, PreprocessingConfig(spacing_mm=(2, 3, 4)))
    assert working.shape == (10, 10, 10)
    assert working.to_mm(np.zeros(3)) == pytest.approx([-9, -13.5, -18])
    assert working.to_mm(np.array([9, 9, 9])) == pytest.approx([9, 13.5, 18])


@pytest.mark.parametrize("code", CODES)
def test_canonical_axes_of_every_code(code):
    axes, flipped = canonical_axes(grid_of(code))
    assert "".join(code[axis] for axis in axes) == "".join(
        "LPI"[world] if flips else "RAS"[world] for world, flips in enumerate(flipped)
    )


def reordered(ras: np.ndarray, code: str) -> np.ndarray:
    """The array [R, A, S] with its axes as ``code`` says."""
    axes = [next(axis for axis, pair in enumerate(("LR", "PA", "IS")) if letter in pair) for letter in code]
    return np.flip(ras.transpose(axes), [axis for axis, letter in enumerate(code) if letter in "LPI"])


def test_copies_of_a_scan_in_every_orientation_give_the_same_image_and_labels():
    noise = np.random.default_rng(0).integers(-1000, 1000, (15, 11, 9)).astype(np.int16)
    labels = (noise > 0).astype(np.uint8)
    config = PreprocessingConfig(spacing_mm=(2.3, 1.1, 1.6), hu_window=(-200, 300))
    where = {
        "size": noise.shape,
        "spacing_mm": (1, 0.9, 2),
        "angles": (0.1, 0.2, 0.1),
        "centre_mm": (5, 6, 700),
    }
    first = prepare(Volume(hu=noise, grid=grid_of("RAS", **where)), config)
    first_mask = prepare_mask(Mask(labels=labels, grid=grid_of("RAS", **where)), config)
    assert first.image.std() > 0.1
    for code in CODES:
        grid = grid_of(code, **where)
        prepared = prepare(Volume(hu=reordered(noise, code), grid=grid), config)
        assert prepared.source_grid is grid
        assert prepared.grid.is_same_as(first.grid)
        np.testing.assert_allclose(prepared.image, first.image, rtol=0, atol=1e-5)
        mask = prepare_mask(Mask(labels=reordered(labels, code), grid=grid), config)
        assert mask.grid.is_same_as(prepared.grid)
        assert np.array_equal(mask.labels, first_mask.labels)


@given(oblique_grids(), SPACINGS)
def test_labels_come_from_the_nearest_voxel(grid, spacing_mm):
    labels = np.random.default_rng(grid.shape).integers(0, 5, grid.shape).astype(np.uint8)
    mask = prepare_mask(Mask(labels=labels, grid=grid), PreprocessingConfig(spacing_mm=spacing_mm))
    voxels = grid.to_voxels(voxel_centres_mm(mask.grid))
    between = (np.abs(voxels - np.floor(voxels) - 0.5) < 1e-3).any(axis=-1)  # two are equally near
    nearest = np.clip(np.rint(voxels), 0, np.array(grid.shape) - 1).astype(int)
    expected = labels[tuple(np.moveaxis(nearest, -1, 0))]
    assert np.array_equal(mask.labels[~between], expected[~between])


@pytest.mark.parametrize("code", CODES)
def test_a_box_stays_where_it_is_in_mm(code):
    grid = grid_of(
        code, size=(24, 24, 12), spacing_mm=(1, 1, 2), angles=(0.1, -0.2, 0.1), centre_mm=(50, 60, -70)
    )
    low_mm, high_mm = np.array([44, 56, -76]), np.array([52, 66, -64])

    def inside(points_mm, margin_mm):
        return ((points_mm > low_mm + margin_mm) & (points_mm < high_mm - margin_mm)).all(axis=-1)

    source = Mask(labels=3 * inside(voxel_centres_mm(grid), 0).astype(np.uint8), grid=grid)
    mask = prepare_mask(source, PreprocessingConfig(spacing_mm=(1.5, 1.5, 1.5)))
    points_mm = voxel_centres_mm(mask.grid)
    assert (mask.labels[inside(points_mm, 1.5)] == 3).all()
    assert not mask.labels[~inside(points_mm, -1.5)].any()
    assert (mask.labels == 3).sum() * 1.5**3 == pytest.approx(8 * 10 * 12, rel=0.15)


@pytest.mark.parametrize("size", [(1, 1, 1), (9, 11, 1), (1, 7, 6), (2, 3, 1), (3, 3, 3)])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("spacing_mm", [0.7, 2.0, 50.0])
def test_single_slices_and_tiny_volumes(size, antialias, spacing_mm):
    for code in SOME_CODES:
        grid = grid_of(code, size=size, angles=(0.1, 0.1, 0.1), centre_mm=(100, 200, 300))
        config = PreprocessingConfig(spacing_mm=[spacing_mm] * 3, hu_window=(0, 100), antialias=antialias)
        prepared = prepare(Volume(hu=np.full(grid.shape, 25, np.int16), grid=grid), config)
        assert prepared.image.shape == prepared.grid.shape
        assert prepared.image == pytest.approx(0.25, abs=1e-6)
        mask = prepare_mask(Mask(labels=np.full(grid.shape, 2, np.uint8), grid=grid), config)
        assert (mask.labels == 2).all()


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("antialias", [True, False])
def test_the_hu_window_becomes_0_to_1_and_what_lies_outside_is_clipped(dtype, antialias):
    """The -2048 is what scanners write outside the field of view."""
    hu = np.repeat(np.array([-2048, -160, -60, 40, 240, 3000], dtype), 3)
    grid = grid_of(size=(18, 3, 3))
    volume = Volume(hu=np.broadcast_to(hu[:, None, None], grid.shape).copy(), grid=grid)
    config = PreprocessingConfig(spacing_mm=(3, 3, 3), hu_window=(-160, 240), antialias=antialias)
    image = prepare(volume, config).image
    assert image.dtype == np.float32
    assert image[:, 0, 0] == pytest.approx([0, 0, 0.25, 0.5, 1, 1], abs=1e-6)


def test_antialiasing_averages_whole_blocks():
    noise = np.random.default_rng(0).normal(0, 100, (18, 24, 12)).astype(np.float32)
    volume = Volume(hu=noise, grid=grid_of(size=noise.shape))
    blocks = noise.reshape(6, 3, 8, 3, 6, 2).mean(axis=(1, 3, 5))
    config = PreprocessingConfig(spacing_mm=(3, 3, 2), hu_window=WINDOW)
    assert prepare(volume, config).image * 2048 - 1024 == pytest.approx(blocks, abs=1e-2)
    points = noise[1::3, 1::3, 0::2] / 2 + noise[1::3, 1::3, 1::2] / 2
    config = PreprocessingConfig(spacing_mm=(3, 3, 2), hu_window=WINDOW, antialias=False)
    assert prepare(volume, config).image * 2048 - 1024 == pytest.approx(points, abs=1e-2)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_the_scan_is_left_as_it_was_and_need_not_be_writeable(antialias, dtype):
    hu = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 8)).astype(dtype)
    before = hu.copy()
    hu.flags.writeable = False
    config = PreprocessingConfig(spacing_mm=(1, 1, 1), hu_window=WINDOW, antialias=antialias)
    prepared = prepare(Volume(hu=hu, grid=grid_of(size=hu.shape)), config)
    assert prepared.image * 2048 - 1024 == pytest.approx(before, abs=1e-3)
    prepared.image[:] = 0
    assert np.array_equal(hu, before)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hu_window", (240, -160)),
        ("hu_window", (40, 40)),
        ("hu_window", (0, float("nan"))),
        ("hu_window", (0, float("inf"))),
        ("spacing_mm", (2, 0, 2)),
        ("spacing_mm", (2, 2, -1)),
        ("spacing_mm", (2, 2)),
        ("spacings_mm", (2, 2, 2)),
    ],
)
def test_impossible_configs_are_refused(field, value):
    with pytest.raises(ValidationError, match=field):
        PreprocessingConfig(**{field: value})


@given(oblique_grids(), st.integers(0, 2))
def test_an_axis_without_a_spacing_keeps_the_scans_own_slices(grid, axis):
    """Axis of R, A and S; the oblique grids are at right angles, so its slices stay where they are."""
    spacing_mm = tuple(None if other == axis else 2.0 for other in range(3))
    working = working_grid(grid, PreprocessingConfig(spacing_mm=spacing_mm))
    own = canonical_axes(grid)[0][axis]
    assert working.shape[axis] == grid.shape[own]
    assert working.spacing_mm[axis] == pytest.approx(grid.spacing_mm[own])
    first = working.affine[:3, 3] + working.affine[:3, :3] @ ((np.array(working.shape) - 1) / 2)
    assert first == pytest.approx(grid.centre_mm)
