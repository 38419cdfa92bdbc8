from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.errors import UserError
from ct_attn.volume import Grid, Mask, Volume, bounding_box, in_order, require_same_grid, size_of

SHAPE = (2, 3, 4)
#: Spacing 1 x 2 x 3 mm, voxel (0, 0, 0) at RAS (10, 20, 30).
BOX = np.array([[1.0, 0, 0, 10], [0, 2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])


def grid(affine=BOX, shape=SHAPE) -> Grid:
    return Grid(shape=shape, affine=np.array(affine, dtype=float))


def rotation(a: float, b: float, c: float) -> np.ndarray:
    """Turned by ``a`` about x, then ``b`` about y, then ``c`` about z (radians)."""
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


@st.composite
def grids(draw) -> Grid:
    angles = [draw(st.floats(-3, 3)) for _ in range(3)]
    spacing = [draw(st.floats(0.1, 10)) for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = rotation(*angles) * spacing * [draw(st.sampled_from([-1, 1])), 1, 1]
    affine[:3, 3] = [draw(st.floats(-1000, 1000)) for _ in range(3)]
    return grid(affine, tuple(draw(st.integers(1, 600)) for _ in range(3)))


def test_a_box_measured_by_hand():
    box = grid()
    assert box.spacing_mm == (1, 2, 3)
    assert box.voxel_volume_mm3 == pytest.approx(6)
    assert box.orientation == "RAS"
    assert box.to_mm(np.array([1, 2, 3])).tolist() == [11, 24, 39]
    assert box.to_voxels(np.array([11, 24, 39])) == pytest.approx([1, 2, 3])
    assert box.corners_mm.min(axis=0).tolist() == [10, 20, 30]
    assert box.corners_mm.max(axis=0).tolist() == [11, 24, 39]
    assert box.corners_mm.shape == (8, 3)
    assert box.describe() == "2 x 3 x 4 voxels of 1 x 2 x 3 mm, RAS"


def test_a_mirrored_box_has_the_same_positive_volume():
    mirrored = grid(BOX @ np.diag([-1, 1, 1, 1]))
    assert mirrored.voxel_volume_mm3 == pytest.approx(6)
    assert mirrored.orientation == "LAS"


@given(grids(), st.lists(st.tuples(*[st.floats(-700, 700)] * 3), min_size=1, max_size=5))
def test_to_voxels_undoes_to_mm(some, points):
    voxels = np.array(points)
    assert some.to_voxels(some.to_mm(voxels)) == pytest.approx(voxels, abs=1e-6)
    assert some.to_mm(voxels)[0] == pytest.approx((some.affine @ [*voxels[0], 1])[:3])


@given(grids())
def test_spacing_and_volume_of_turned_grids(some):
    assert some.voxel_volume_mm3 == pytest.approx(np.prod(some.spacing_mm))
    steps = [np.linalg.norm(some.to_mm(np.eye(3)[axis]) - some.to_mm(np.zeros(3))) for axis in range(3)]
    assert some.spacing_mm == pytest.approx(steps)
    assert some.is_orthogonal


CODES = [
    "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(("LR", "PA", "IS"))
    for signs in product((0, 1), repeat=3)
]


def test_there_are_48_codes():
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("code", CODES)
def test_orientation_of_each_code_even_when_turned_by_20_degrees(code):
    affine = np.eye(4)
    for axis, letter in enumerate(code):
        world = ["LR", "PA", "IS"].index(next(pair for pair in ("LR", "PA", "IS") if letter in pair))
        affine[:, axis] = 0
        affine[world, axis] = (0.7 + axis) * (1 if letter in "RAS" else -1)
    assert grid(affine).orientation == code
    assert code[grid(affine).axial_axis] in "SI"
    turn = np.eye(4)
    turn[:3, :3] = rotation(0.2, -0.2, 0.2)
    assert grid(turn @ affine).orientation == code
    assert "".join(nib.aff2axcodes(turn @ affine)) == code


def test_orientation_uses_each_world_axis_once():
    """i and j both lie closest to x; the closer one takes it."""
    affine = np.eye(4)
    affine[:3, 0] = [0.8, 0.6, 0]
    affine[:3, 1] = [0.9, -0.1, 0]
    assert grid(affine).orientation == "ARS"


def test_a_sheared_grid_is_not_orthogonal():
    sheared = BOX.copy()
    sheared[0, 1] = 0.1
    assert not grid(sheared).is_orthogonal


@given(grids())
def test_a_grid_is_the_same_as_itself_and_not_as_one_shifted(some):
    def shifted(mm: float) -> Grid:
        affine = some.affine.copy()
        affine[1, 3] += mm
        return grid(affine, some.shape)

    assert some.is_same_as(some)
    assert some.is_same_as(shifted(0.009))
    assert not some.is_same_as(shifted(0.011))
    assert not some.is_same_as(grid(some.affine, (some.shape[0] + 1, *some.shape[1:])))


def test_a_wrong_spacing_shows_at_the_far_corner():
    """One thousandth of a mm per voxel is 0.3 mm after 300 voxels."""
    wide = grid(np.eye(4), (301, 2, 2))
    assert not wide.is_same_as(grid(np.diag([1.001, 1, 1, 1]), (301, 2, 2)))
    assert wide.is_same_as(grid(np.diag([1.001, 1, 1, 1]), (301, 2, 2)), tolerance_mm=0.31)


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((2, 3), BOX),
        ((2, 3, 4, 5), BOX),
        ((2, 0, 4), BOX),
        (SHAPE, np.eye(3)),
        (SHAPE, np.diag([1.0, 0, 1, 1])),
        (SHAPE, np.diag([1.0, np.nan, 1, 1])),
        (SHAPE, np.diag([1.0, np.inf, 1, 1])),
        (SHAPE, np.diag([1.0, 1, 1, 2])),
    ],
)
def test_what_is_no_grid_is_refused(shape, affine):
    with pytest.raises(ValueError, match=r"grid|affine"):
        Grid(shape=shape, affine=affine)


def test_a_grid_cannot_be_changed_through_the_array_it_was_made_of():
    affine = BOX.copy()
    some = grid(affine)
    affine[0, 3] = 99
    assert some.affine[0, 3] == 10
    with pytest.raises(ValueError, match="read-only"):
        some.affine[0, 3] = 99


def test_arrays_must_fit_their_grid_and_kind():
    with pytest.raises(ValueError, match="does not fit"):
        Volume(hu=np.zeros((2, 3, 5), np.int16), grid=grid())
    with pytest.raises(ValueError, match="does not fit"):
        Mask(labels=np.zeros((4, 3, 2), np.uint8), grid=grid())
    with pytest.raises(ValueError, match="float64"):
        Volume(hu=np.zeros(SHAPE), grid=grid())
    with pytest.raises(ValueError, match="int16"):
        Mask(labels=np.zeros(SHAPE, np.int16), grid=grid())
    assert Volume(hu=np.zeros(SHAPE, np.float32), grid=grid()).grid.shape == SHAPE


def test_pairing_different_grids_names_both_and_the_distance():
    require_same_grid(grid(), grid(), subject="mask.nii", than="scan.nii")
    with pytest.raises(UserError, match=r"mask\.nii.*scan\.nii.*2 x 3 x 5 voxels"):
        require_same_grid(grid(shape=(2, 3, 5)), grid(), subject="mask.nii", than="scan.nii")
    elsewhere = BOX.copy()
    elsewhere[2, 3] += 7
    with pytest.raises(UserError, match="up to 7 mm elsewhere"):
        require_same_grid(grid(elsewhere), grid(), subject="mask.nii", than="scan.nii")


def test_the_bounding_box_holds_all_and_no_plane_too_many():
    member = np.zeros((5, 6, 7), dtype=bool)
    assert bounding_box(member) is None
    member[1, 2, 3] = member[3, 2, 6] = True
    assert bounding_box(member) == (slice(1, 4), slice(2, 3), slice(3, 7))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_axes_in_another_order_name_the_same_points(order):
    some = grid(
        np.diag([1.0, 2.0, 3.0, 1.0]) @ np.block([[rotation(0.1, 0.2, 0.3), np.ones((3, 1))], [BOX[3]]])
    )
    other = some.ordered(order)
    assert other.shape == in_order(some.shape, order) == tuple(SHAPE[axis] for axis in order)
    for voxel in product(*map(range, SHAPE)):
        np.testing.assert_allclose(
            other.to_mm(np.array(in_order(voxel, order))), some.to_mm(np.array(voxel)), rtol=0, atol=1e-12
        )


def test_a_box_is_as_long_as_what_it_cuts_out():
    box = (slice(2, 5), slice(0, 4), slice(3, 4))
    assert size_of(box) == np.zeros((9, 9, 9))[box].shape == (3, 4, 1)
