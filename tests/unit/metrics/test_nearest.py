from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from ct_attn.metrics import nearest
from ct_attn.metrics.areas import step_vectors_mm
from ct_attn.metrics.nearest import nearest_distances_mm

masks = arrays(bool, (5, 4, 6), elements=st.booleans(), fill=st.nothing())
steps = st.builds(
    step_vectors_mm,
    st.tuples(*[st.sampled_from([0.5, 0.8, 1.0, 2.5, 9.0])] * 3),
    st.sampled_from([None, np.array([[1, 0, 0.6], [0, 1, 0], [0, 0, 0.8]])]),
)


def by_comparing_every_pair(points, others, steps_mm):
    return cdist(*(np.argwhere(mask) @ steps_mm.T for mask in (points, others))).min(axis=1)


@pytest.mark.parametrize("n_places", [1, 20, 250])
@given(points=masks, others=masks, steps_mm=steps)
def test_distances_are_those_of_comparing_every_pair(n_places, points, others, steps_mm):
    """Whether all is found nearby, all by the tree, or some each way; on leaning axes too."""
    assume(others.any())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "N_NEAR_PLACES", n_places)
        found = nearest_distances_mm(points, others, steps_mm)
    np.testing.assert_allclose(found, by_comparing_every_pair(points, others, steps_mm), atol=1e-9)


def test_far_and_near_points_come_in_the_order_of_the_places():
    points, others = np.zeros((2, 90, 1, 1), dtype=bool)
    points[[0, 30, 89]], others[31] = True, True
    assert nearest_distances_mm(points, others, np.eye(3) * 2).tolist() == [62, 2, 116]


def test_no_points_no_distances():
    others = np.ones((2, 2, 2), dtype=bool)
    assert nearest_distances_mm(~others, others, np.eye(3)).size == 0
