from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial.distance import cdist

from ct_attn.metrics.areas import step_vectors_mm
from ct_attn.metrics.contour import contour_distances

STEPS = step_vectors_mm((1, 1, 5))
masks = arrays(bool, (5, 6, 3), elements=st.booleans(), fill=st.nothing())
planes = arrays(bool, (7, 8, 2), elements=st.booleans(), fill=st.nothing())


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


# --- the recipe of the authors' released code, written anew without OpenCV

AROUND = [(0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1)]  # clockwise from the left


def traced(component):
    """The pixels that tracing the outer border passes, in its order, and again where it passes again.

    Suzuki and Abe 1985 (CVGIP 30:32), algorithm 1, for an 8-connected structure, as OpenCV's
    ``findContours`` follows external contours and keeps every pixel.
    """
    padded = np.pad(component, 1)
    start = tuple(int(place) for place in np.argwhere(padded)[0])  # its left is background

    def step(centre, first, turn):
        """The first pixel of the structure around ``centre``, beginning next to direction ``first``."""
        for n in range(1, 9):
            direction = (first + turn * n) % 8
            pixel = (centre[0] + AROUND[direction][0], centre[1] + AROUND[direction][1])
            if padded[pixel]:
                return pixel, direction
        return None, None

    last, _ = step(start, 0, 1)
    if last is None:
        return [(start[0] - 1, start[1] - 1)]
    passed, here, before = [], start, last
    while True:
        passed.append((here[0] - 1, here[1] - 1))
        back = AROUND.index((before[0] - here[0], before[1] - here[1]))
        following, _ = step(here, back, -1)
        if following == start and here == last:
            return passed
        here, before = following, here


def external_contours(plane):
    """The pixels of the outer contours of ``plane`` [I, J]; what lies in a hole of another has none."""
    outside = ndimage.label(np.pad(~plane, 1, constant_values=True))[0]
    outside = (outside == outside[0, 0])[1:-1, 1:-1]
    labels, n_labels = ndimage.label(plane, np.ones((3, 3)))
    pixels = []
    for label in range(1, n_labels + 1):
        component = labels == label
        padded = np.pad(component, 1)
        near = ndimage.binary_dilation(padded)[1:-1, 1:-1] & ~component
        at_edge = component[[0, -1]].any() or component[:, [0, -1]].any()
        if at_edge or (near & outside).any():
            pixels += traced(component)
    return np.array(pixels)


def released_distances(truth, predicted, pixel_mm, *, count_once):
    """Mean and Hausdorff distance, averaged over the slices that show both contours."""
    means, greatest = [], []
    for k in range(truth.shape[2]):
        if truth[:, :, k].any() and predicted[:, :, k].any():
            contours = [external_contours(mask[:, :, k]) for mask in (truth, predicted)]
            if count_once:
                contours = [np.unique(contour, axis=0) for contour in contours]
            between = cdist(*contours)
            means.append((between.min(axis=0).mean() + between.min(axis=1).mean()) / 2 * pixel_mm)
            greatest.append(max(between.min(axis=0).max(), between.min(axis=1).max()) * pixel_mm)
    return (np.mean(means), np.mean(greatest)) if means else None


def test_tracing_to_check_by_hand():
    assert traced(square(1, 1, 1)[:, :, 0]) == [(1, 1)]
    assert len(traced(square(1, 1, 3)[:, :, 0])) == 8
    line = np.zeros((3, 6), dtype=bool)
    line[1, 1:5] = True
    assert traced(line) == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 3), (1, 2)]  # there and back


@settings(max_examples=100, deadline=None)
@given(truth=planes, predicted=planes)
def test_contours_are_those_of_the_released_code_with_every_pixel_once(truth, predicted):
    assume(truth.any() and predicted.any())
    expected = released_distances(truth, predicted, 0.7, count_once=True)
    d = contour_distances(truth, predicted, step_vectors_mm((0.7, 0.7, 5)))
    assert (d is None) == (expected is None)
    if d is not None:
        assert (d.s2s_mm, d.hd_mm) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_of_structures_that_are_nowhere_thin_distances_are_those_of_the_released_code(seed):
    noise = np.random.default_rng(seed).normal(size=(2, 40, 36, 5))
    pair = ndimage.gaussian_filter(noise, (0, 3, 3, 1)) > 0.01
    truth, predicted = ndimage.binary_opening(pair, np.ones((1, 3, 3, 1)))
    d = contour_distances(truth, predicted, step_vectors_mm((0.7, 0.7, 5)))
    assert d.n_slices >= 3
    passed = released_distances(truth, predicted, 0.7, count_once=False)
    assert d.hd_mm == pytest.approx(passed[1])
    assert d.s2s_mm == pytest.approx(passed[0], rel=1e-3)  # a corner where two parts meet is passed twice


def test_masks_that_are_no_pair_are_refused():
    with pytest.raises(ValueError, match="bool"):
        contour_distances(square(2, 2, 1).astype(np.uint8), square(2, 2, 1), STEPS)
    with pytest.raises(ValueError, match=r"\[I, J, K\]"):
        contour_distances(np.ones((2, 2), dtype=bool), np.ones((2, 2), dtype=bool), STEPS)
