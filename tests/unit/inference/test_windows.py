from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.inference.memory import MOST_WINDOW_VOXELS
from ct_attn.inference.windows import (
    choose_slices,
    choose_windows,
    overlap_voxels,
    plan_slices,
    plan_windows,
    take,
)
from ct_attn.network.configs import SlicesConfig

SIZES = st.tuples(*[st.integers(1, 300)] * 3)
OVERLAPS = st.tuples(*[st.integers(0, 60)] * 3)


def at_most(voxels):
    return lambda size: prod(size) <= voxels


def covered(plan) -> np.ndarray:
    seen = np.zeros(plan.box, dtype=int)
    for start in plan.starts:
        seen[
            tuple(slice(max(0, begin), begin + side) for begin, side in zip(start, plan.size, strict=True))
        ] += 1
    return seen


@given(box=SIZES, overlap=OVERLAPS, most=st.integers(16**3, 4_000_000))
def test_chosen_windows_cover_the_box_fit_and_overlap_as_asked(box, overlap, most):
    plan = choose_windows(box, overlap, (16, 16, 16), at_most(most))
    assert prod(plan.size) <= most
    assert all(side % 16 == 0 for side in plan.size)
    for axis in range(3):
        begins = sorted({start[axis] for start in plan.starts})
        side, length = plan.size[axis], box[axis]
        assert begins[0] <= 0
        assert begins[-1] + side >= length
        for before, after in pairwise(begins):
            assert before + side - after >= min(overlap[axis], side // 2)


def test_every_voxel_of_the_box_is_covered():
    plan = choose_windows((205, 190, 200), (80, 80, 48), (16, 16, 16), at_most(3_000_000))
    assert (covered(plan) > 0).all()


def test_one_window_covers_the_plane_of_a_body_where_memory_allows():
    plan = choose_windows((170, 122, 200), (80, 80, 48), (16, 16, 16), at_most(MOST_WINDOW_VOXELS))
    assert plan.size == (176, 128, 128)
    assert len(plan.starts) == 2


def test_a_whole_volume_is_one_window_where_it_fits():
    plan = choose_windows((170, 122, 200), (80, 80, 48), (16, 16, 16), at_most(10_000_000))
    assert plan.starts == ((-3, -3, -4),)


def test_windows_are_no_smaller_than_the_trainings_patch_unless_memory_is_short():
    box, least = (197, 150, 200), (160, 160, 96)
    enough = choose_windows(box, (80, 80, 48), (16, 16, 16), at_most(MOST_WINDOW_VOXELS), least)
    assert all(
        side >= min(short, length) for side, short, length in zip(enough.size, least, box, strict=True)
    )
    assert prod(choose_windows(box, (80, 80, 48), (16, 16, 16), at_most(300_000), least).size) <= 300_000


def test_where_nothing_fits_the_smallest_windows_are_taken():
    assert prod(choose_windows((100, 100, 100), (8, 8, 8), (16, 16, 16), at_most(1)).size) == 16**3


def test_windows_come_by_rising_slice():
    plan = plan_windows((40, 30, 50), (16, 16, 16), (8, 8, 8))
    slices = [start[2] for start in plan.starts]
    assert slices == sorted(slices)


def test_as_many_slices_are_taken_at_a_time_as_fit_and_at_least_one():
    slices = SlicesConfig(plane="coronal", neighbours=3, at_a_time=9)
    taken = {}
    for most in (32 * 11 * 24, 32 * 10 * 24, 32 * 3 * 24, 1):
        plan, smallest = choose_slices((40, 50, 30), (32, 1, 24), 0.5, slices, at_most(most))
        assert smallest == 32 * 3 * 24
        assert (covered(plan) > 0).all()
        taken[most] = plan.size[1] - 2  # less the neighbours
    assert list(taken.values()) == [9, 8, 1, 1]


@pytest.mark.parametrize("at_a_time", [1, 4, 7, 16, 50, 60])
@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_no_slice_is_predicted_twice(at_a_time, neighbours):
    slices = SlicesConfig(plane="coronal", neighbours=neighbours, at_a_time=at_a_time)
    plan = plan_slices((40, 50, 30), (40, 1, 30), 0.5, slices)
    halo = neighbours // 2
    counted = []
    for _, begin, _ in plan.starts:
        first = begin + halo if begin > 0 else 0
        counted += range(first, min(50, begin + plan.size[1] - (halo if begin + plan.size[1] < 50 else 0)))
    assert counted == list(range(50))


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 2, 0)])
def test_windows_in_another_order_of_axes_are_the_same_windows(order):
    plan = plan_slices((40, 50, 30), (32, 1, 24), 0.5, SlicesConfig(plane="coronal", at_a_time=4))
    other = plan.ordered(order)
    back = [order.index(axis) for axis in range(3)]
    assert {tuple(start[axis] for axis in back) for start in other.starts} == set(plan.starts)
    assert np.array_equal(covered(other).transpose(back), covered(plan))
    assert order[other.across] == plan.across == 1
    along = [start[2] for start in other.starts]
    assert along == sorted(along)


@pytest.mark.parametrize(("share", "voxels"), [(0.5, (48, 48, 32)), (0.0, (0, 0, 0)), (0.25, (24, 24, 16))])
def test_overlap_in_voxels_is_that_of_the_training_patch(share, voxels):
    assert overlap_voxels((96, 96, 64), share) == voxels


def test_beyond_the_image_a_window_holds_zeros():
    image = np.ones((4, 5, 6), dtype=np.float32)
    window = take(image, (-2, 1, 3), (8, 8, 8))
    assert window.sum() == 4 * 4 * 3
    assert (window[2:6, :4, :3] == 1).all()
