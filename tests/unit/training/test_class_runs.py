"""The index of a label map gives every voxel of every class, once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ct_attn.training.class_runs import find_runs

LABELS = arrays.arrays(
    np.uint8, arrays.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, 3)
)


@given(LABELS)
def test_ranks_of_a_class_count_its_voxels_in_order(labels):
    runs = find_runs(labels, n_classes=5)
    for code in range(5):
        expected = np.flatnonzero(labels.ravel() == code).tolist()
        assert [runs.voxel(code, rank) for rank in range(int(runs.voxels[code]))] == expected
    assert runs.present == np.unique(labels).tolist()


def test_a_rank_that_no_voxel_has_is_refused():
    runs = find_runs(np.array([[[0, 1, 1]]], dtype=np.uint8), n_classes=3)
    for code, rank in ((1, 2), (1, -1), (2, 0)):
        with pytest.raises(IndexError):
            runs.voxel(code, rank)


def test_a_ball_needs_far_fewer_runs_than_voxels():
    axes = np.ogrid[:40, :40, :40]
    ball = (sum((axis - 20) ** 2 for axis in axes) < 15**2).astype(np.uint8)
    assert len(find_runs(ball, n_classes=2).starts) < ball.sum() / 8
