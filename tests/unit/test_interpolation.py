from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.interpolation import interpolation_weights, is_separable
from tests.unit.grids import CODES, grid_of

WORKING = grid_of(spacing_mm=(2, 1.7, 3))


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.integers(1, 12))
def test_weights_are_those_of_numpys_interp(positions, size):
    values = np.random.default_rng(size).standard_normal(size)
    weights = interpolation_weights(np.array(positions), size)
    assert weights.shape == (len(positions), size)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(weights @ values, np.interp(positions, range(size), values), atol=1e-5)


@pytest.mark.parametrize("code", CODES)
def test_grids_along_the_same_axes_in_any_order_are_separable(code):
    other = grid_of(code, spacing_mm=(1.1, 0.9, 2.3), centre_mm=(50, -20, 300))
    assert is_separable(np.linalg.inv(WORKING.affine) @ other.affine)


@pytest.mark.parametrize("changes", [{"angles": (0, 0, 0.01)}, {"shear": 0.01}], ids=["turned", "sheared"])
def test_grids_at_an_angle_are_not(changes):
    assert not is_separable(np.linalg.inv(WORKING.affine) @ grid_of(**changes).affine)
