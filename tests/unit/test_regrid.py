"""Masks on other grids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.regrid import nearest_on, share_inside
from ct_attn.volume import Grid, Mask

LABELS = np.random.default_rng(4).integers(0, 4, (6, 5, 4)).astype(np.uint8)
MASK = Mask(labels=LABELS, grid=Grid(shape=LABELS.shape, affine=np.diag([2.0, 2.0, 3.0, 1.0])))


def on(affine, shape=LABELS.shape):
    return nearest_on(
        MASK, Grid(shape=shape, affine=MASK.grid.affine @ np.asarray(affine, dtype=float))
    ).labels


def test_its_own_grid_changes_nothing():
    assert np.array_equal(nearest_on(MASK, MASK.grid).labels, LABELS)


def test_what_lies_outside_is_background():
    moved = on([[1, 0, 0, 2], [0, 1, 0, -1], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert np.array_equal(moved[:4, 1:], LABELS[2:, :4])
    assert not moved[4:].any()
    assert not moved[:, 0].any()


def test_halved_voxels_repeat_their_code():
    halved = on([[0.5, 0, 0, -0.25], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], shape=(12, 5, 4))
    assert np.array_equal(halved, np.repeat(LABELS, 2, axis=0))


def test_axes_may_be_flipped_and_reordered():
    turned = on([[0, 0, -1, 5], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], shape=(5, 4, 6))
    assert np.array_equal(turned, LABELS[::-1].transpose(1, 2, 0))


@given(shift=st.floats(-0.49, 0.49), tilt=st.floats(-0.01, 0.01))
def test_less_than_half_a_voxel_changes_nothing(shift, tilt):
    shift *= 0.8
    again = on([[1, tilt, 0, shift], [0, 1, 0, 0], [0, 0, 1, shift], [0, 0, 0, 1]])
    assert np.array_equal(again, LABELS)


@pytest.mark.parametrize("rounding", [-1e-9, 0, 1e-9])
def test_in_the_middle_between_two_voxels_rounding_does_not_decide(rounding):
    between = on([[1, 0, 0, 0.5 + rounding], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert np.array_equal(between[:-1], LABELS[1:])


@given(shift=st.tuples(*[st.integers(-7, 7)] * 3))
def test_the_share_inside_another_grid_is_what_comes_through(shift):
    affine = MASK.grid.affine.copy()
    affine[:3, 3] += MASK.grid.affine[:3, :3] @ shift
    grid = Grid(shape=LABELS.shape, affine=affine)
    came = np.count_nonzero(nearest_on(MASK, grid).labels)
    assert share_inside(MASK, grid) == pytest.approx(came / np.count_nonzero(LABELS))


def test_voxels_count_by_their_centres_and_an_empty_mask_loses_nothing():
    far = Grid(shape=(2, 2, 2), affine=np.array([[1, 0, 0, 999], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    assert share_inside(MASK, far) == 0
    assert share_inside(Mask(labels=np.zeros_like(LABELS), grid=MASK.grid), far) == 1
    halved = Grid(
        shape=(6, 10, 8),
        affine=MASK.grid.affine @ [[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 0.5, -0.25], [0, 0, 0, 1]],
    )
    assert share_inside(MASK, halved) == np.count_nonzero(LABELS[:3]) / np.count_nonzero(LABELS)
