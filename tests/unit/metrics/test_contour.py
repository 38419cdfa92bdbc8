from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ct_attn.metrics.areas import step_vectors_mm
from ct_attn.metrics.contour import contour_distances

STEPS = step_vectors_mm((1, 1, 5))
masks = arrays(bool, (5, 6, 3), elements=st.booleans(), fill=st.nothing())


def square(i, j, side, k=slice(0, 1), shape=(12, 12, 4)):
    mask = np.zeros(shape, dtype=bool)
    mask[i : i + side, j : j + side, k] = True
    return mask


def test_two_pixels_2_mm_apart():
    d = contour_distances(square(2, 2, 1), square(4, 2, 1), STEPS)
    assert (d.s2s_mm, d.hd_mm, d.n_slices) == (2, 2, 1)


def test_a_square_in_a_square():
    """Contours of 3 x 3 (8 pixels) and 7 x 7 (24 pixels) around one centre, 2 mm apart along the sides."""
    d = contour_distances(square(4, 4, 3), square(2, 2, 7), STEPS)
    corners = 4 * np.sqrt(8) + 8 * np.sqrt(5)  # the outer corners, and the pixels beside them
    assert d.s2s_mm == pytest.approx((2 + (corners + 12 * 2) / 24) / 2)
    assert d.hd_mm == pytest.approx(np.sqrt(8))


def test_slices_are_averaged_and_those_without_a_pair_left_out():
    truth = square(2, 2, 1, k=slice(0, 3))
    predicted = square(4, 2, 1) | square(2, 2, 1, k=slice(1, 2)) | square(8, 8, 1, k=slice(3, 4))
    d = contour_distances(truth, predicted, STEPS)
    assert (d.s2s_mm, d.n_slices) == (1, 2)


def test_holes_have_no_contour():
    whole, ring = square(2, 2, 7), square(2, 2, 7) & ~square(4, 4, 2)
    assert contour_distances(whole, ring, STEPS).hd_mm == 0


def test_no_slice_in_common_no_distance():
    assert contour_distances(square(2, 2, 3), square(2, 2, 3, k=slice(1, 2)), STEPS) is None


@given(truth=masks, predicted=masks, axis=st.integers(0, 2), flipped=st.integers(0, 2))
def test_the_slices_may_run_along_any_axis(truth, predicted, axis, flipped):
    assume(truth.any() and predicted.any())
    steps_mm = step_vectors_mm((0.7, 1.3, 4.0))
    expected = contour_distances(truth, predicted, steps_mm)
    order = list(np.roll([0, 1, 2], axis))
    turned = [np.flip(mask, flipped).transpose(order) for mask in (truth, predicted)]
    again = contour_distances(*turned, steps_mm[:, order], slice_axis=order.index(2))
    if expected is None:
        assert again is None
    else:
        assert (again.s2s_mm, again.hd_mm) == pytest.approx((expected.s2s_mm, expected.hd_mm))


def test_masks_that_are_no_pair_are_refused():
    with pytest.raises(ValueError, match="bool"):
        contour_distances(square(2, 2, 1).astype(np.uint8), square(2, 2, 1), STEPS)
    with pytest.raises(ValueError, match=r"\[I, J, K\]"):
        contour_distances(np.ones((2, 2), dtype=bool), np.ones((2, 2), dtype=bool), STEPS)
