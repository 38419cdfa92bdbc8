"""Random changes: within their bounds, off at 0, in plane and in mm, repeatable."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms import Affine

from ct_attn.training.augmentation import (
    SLAB,
    IntensityChanges,
    Pose,
    draw_pose,
    read_region,
    region_positions,
    sample_linearly,
    sample_nearest,
)
from ct_attn.training_config import AugmentationConfig

SQUARE = (1.0, 1.0)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_poses_fill_the_bounds_of_the_config_and_keep_to_them():
    config = AugmentationConfig(affine_probability=1, rotation_degrees=10, shift_fraction=0.2, zoom=(0.5, 2))
    poses = [draw_pose(config, rng(seed)) for seed in range(400)]
    for values, low, high in (
        ([pose.angle_rad for pose in poses], -pi / 18, pi / 18),
        ([side for pose in poses for side in pose.shift], -0.2, 0.2),
        ([side for pose in poses for side in pose.zoom], 0.5, 2),
    ):
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high


def test_the_share_of_patches_with_a_pose_is_that_of_the_config():
    config = AugmentationConfig(affine_probability=0.25)
    changed = sum(draw_pose(config, rng(seed)) is not None for seed in range(1000))
    assert 200 < changed < 300


def test_what_is_drawn_after_a_pose_does_not_depend_on_whether_there_is_one():
    first, second = rng(), rng()
    draw_pose(AugmentationConfig(affine_probability=0), first)
    draw_pose(AugmentationConfig(affine_probability=1), second)
    assert first.random() == second.random()


def test_a_pose_that_changes_nothing_reads_every_voxel_where_it_is():
    where = region_positions((3, -2, 5), (4, 3, 2), Pose(), SQUARE)
    expected = np.stack(np.meshgrid([3, 4, 5, 6], [-2, -1, 0], indexing="ij"), axis=-1)
    assert where == pytest.approx(expected)


def test_positions_by_hand():
    """A patch of 3 x 3 around (10, 20): a quarter turn, a shift by a third, zoom 2 along the first axis."""
    turned = region_positions((9, 19, 0), (3, 3, 1), Pose(angle_rad=pi / 2), SQUARE)
    assert turned[2, 1] == pytest.approx([10, 21])  # one step along the first axis is one along the second
    moved = region_positions((9, 19, 0), (3, 3, 1), Pose(shift=(1 / 3, 0)), SQUARE)
    assert moved[1, 1] == pytest.approx([11, 20])
    zoomed = region_positions((9, 19, 0), (3, 3, 1), Pose(zoom=(2, 1)), SQUARE)
    assert zoomed[2, 2] == pytest.approx([12, 21])


@given(st.floats(-pi, pi), st.floats(0.5, 3), st.floats(0.5, 3))
def test_a_turn_keeps_distances_in_mm(angle, step_i, step_j):
    spacing_mm = (step_i, step_j)
    where = region_positions((0, 0, 0), (6, 5, 1), Pose(angle_rad=angle), spacing_mm) * spacing_mm
    along_i = np.linalg.norm(np.diff(where, axis=0), axis=-1)
    along_j = np.linalg.norm(np.diff(where, axis=1), axis=-1)
    assert along_i == pytest.approx(np.full_like(along_i, step_i))
    assert along_j == pytest.approx(np.full_like(along_j, step_j))


def test_sampling_in_plane_is_monais_affine_in_3d():
    depth = 2 * SLAB + 5
    volume = torch.rand(24, 20, depth, generator=torch.Generator().manual_seed(0))
    pose = Pose(angle_rad=0.2, shift=(0.1, -0.05), zoom=(1.2, 0.8))
    where = region_positions((0, 0, 0), (24, 20, depth), pose, SQUARE)
    cos, sin = np.cos(0.2), np.sin(0.2)
    matrix = np.eye(4)
    matrix[:2, :2] = np.array([[cos, -sin], [sin, cos]]) * pose.zoom
    matrix[:2, 3] = 0.1 * 24, -0.05 * 20
    for mode, sample in (("bilinear", sample_linearly), ("nearest", sample_nearest)):
        affine = Affine(affine=matrix, padding_mode="zeros", mode=mode, image_only=True)
        expected = affine(volume[None])[0].as_tensor()
        sampled = sample(volume, where, 0, depth)
        assert (sampled - expected).abs().gt(1e-4).float().mean() < (0.001 if mode == "nearest" else 1e-9)


@given(
    st.tuples(*[st.integers(-6, 9)] * 3),
    st.tuples(*[st.integers(1, 8)] * 3),
    st.tuples(*[st.integers(1, 6)] * 3),
)
def test_a_region_is_what_the_array_has_there_and_zero_elsewhere(start, size, shape):
    array = torch.arange(1, 1 + int(np.prod(shape)), dtype=torch.float16).reshape(shape)
    region = read_region(array, start, size)
    assert region.dtype == torch.float32
    for index in np.ndindex(*size):
        place = tuple(int(a + b) for a, b in zip(start, index, strict=True))
        inside = all(0 <= p < n for p, n in zip(place, shape, strict=True))
        assert float(region[index]) == (float(array[place]) if inside else 0)


@given(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), st.integers(-3, 5))
def test_positions_far_outside_a_volume_are_zero(shift, start_k):
    where = region_positions((0, 0, 0), (4, 4, 3), Pose(), SQUARE) + np.array(shift)
    far = ((where <= -1) | (where >= np.array([5, 1]))).any(axis=-1)
    near = ((where > -0.49) & (where < np.array([4.49, 0.49]))).all(axis=-1)
    slices = torch.tensor([0 <= start_k + k < 4 for k in range(3)])
    for sample in (sample_linearly, sample_nearest):
        sampled = sample(torch.ones(5, 1, 4), where, start_k, 3)
        assert sampled.shape == (4, 4, 3)
        assert not sampled[torch.from_numpy(far)].any()
        seen = sampled[torch.from_numpy(near)] > 0
        assert torch.equal(seen, slices.expand(len(seen), 3))


OFF = {
    "noise": 0, "brightness": 0, "contrast": 0, "gamma": 0, "blur_voxels": 0, "low_resolution": 0,
    "intensity_probability": 1, "resolution_probability": 1,
}  # fmt: skip
IMAGE = torch.rand(1, 12, 11, 10, generator=torch.Generator().manual_seed(1))


def changed(seed=0, **amounts):
    return IntensityChanges(AugmentationConfig(**OFF | amounts))(IMAGE.clone(), rng(seed))


def test_with_all_amounts_at_zero_or_no_share_of_patches_nothing_changes():
    assert torch.equal(changed(), IMAGE)
    never = AugmentationConfig(intensity_probability=0, resolution_probability=0)
    assert torch.equal(IntensityChanges(never)(IMAGE.clone(), rng()), IMAGE)


@pytest.mark.parametrize(
    "change",
    [
        {"noise": 0.1}, {"brightness": 0.1}, {"contrast": 0.3}, {"gamma": 0.5}, {"blur_voxels": 1.5},
        {"low_resolution": 6},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_every_change_changes_and_repeats_and_differs_by_seed(change):
    first = changed(seed=1, **change)
    assert type(first) is torch.Tensor
    assert first.dtype == torch.float32
    assert first.shape == IMAGE.shape
    assert not torch.equal(first, IMAGE)
    assert torch.equal(first, changed(seed=1, **change))
    assert not torch.equal(first, changed(seed=2, **change))


def test_switching_one_change_off_leaves_what_the_others_draw():
    both = changed(brightness=0.1, low_resolution=6) - changed(low_resolution=6)
    alone = changed(brightness=0.1) - IMAGE
    assert float(both.mean()) == pytest.approx(float(alone.mean()), abs=1e-6)


def test_what_the_amounts_mean():
    noise = torch.stack([changed(seed, noise=0.1) - IMAGE for seed in range(60)])
    assert 0.07 < float(noise.std(dim=(1, 2, 3, 4)).max()) < 0.11
    assert abs(float(noise.mean())) < 0.005
    shifts = [changed(seed, brightness=0.1) - IMAGE for seed in range(60)]
    assert 0.08 < max(float(shift.abs().max()) for shift in shifts) < 0.1001
    for seed in range(5):
        assert float(changed(seed, contrast=0.3).mean()) == pytest.approx(float(IMAGE.mean()), abs=1e-5)
        bent = changed(seed, gamma=0.5)
        assert float(bent.min()) == pytest.approx(float(IMAGE.min()), abs=1e-5)
        assert float(bent.max()) == pytest.approx(float(IMAGE.max()), abs=1e-5)
        assert float(changed(seed, blur_voxels=1.5).std()) < float(IMAGE.std())
    coarse = torch.stack([changed(seed, low_resolution=6) for seed in range(8)])
    assert float(coarse.std()) < 0.95 * float(IMAGE.std())
