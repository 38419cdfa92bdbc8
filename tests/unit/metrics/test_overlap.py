from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ct_attn.metrics.overlap import Overlap, count_overlap

few = settings(max_examples=40, deadline=None)
masks = arrays(bool, (3, 4, 2))


def overlap(true_positive: int, false_positive: int, false_negative: int) -> Overlap:
    return Overlap(true_positive=true_positive, false_positive=false_positive, false_negative=false_negative)


def ratios(counts: Overlap) -> tuple[float | None, ...]:
    return counts.dsc, counts.jaccard, counts.precision, counts.recall


def test_box_shifted_by_one_voxel():
    truth, predicted = np.zeros((2, 10, 4, 1), dtype=bool)
    truth[0:4], predicted[1:5] = True, True  # 16 voxels each, 12 in common
    counts = count_overlap(truth, predicted)
    assert counts == overlap(12, 4, 4)
    assert ratios(counts) == (24 / 32, 12 / 20, 12 / 16, 12 / 16)


def test_precision_is_about_the_prediction_and_recall_about_the_truth():
    truth = np.array([True, True, True, True])
    predicted = np.array([True, False, False, False])
    assert ratios(count_overlap(truth, predicted)) == (2 / 5, 1 / 4, 1.0, 1 / 4)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (overlap(0, 0, 0), (None, None, None, None)),
        (overlap(0, 5, 0), (0, 0, 0, None)),
        (overlap(0, 0, 5), (0, 0, None, 0)),
        (overlap(0, 2, 3), (0, 0, 0, 0)),
        (overlap(7, 0, 0), (1, 1, 1, 1)),
    ],
)
def test_nothing_to_divide_by_is_none(counts: Overlap, expected: tuple[float | None, ...]):
    assert ratios(counts) == expected


def test_accuracy_is_about_all_voxels():
    assert overlap(5, 2, 3).accuracy(100) == 0.95
    assert overlap(0, 0, 1).accuracy(100) == 0.99  # an empty prediction of a small organ
    with pytest.raises(ValueError, match="does not fit into 9 voxels"):
        overlap(5, 2, 3).accuracy(9)


def test_negative_counts_are_refused():
    with pytest.raises(ValueError, match="at least 0"):
        overlap(3, -1, 0)


def test_arrays_that_are_no_pair_are_refused():
    with pytest.raises(ValueError, match="masks are bool"):
        count_overlap(np.zeros(3, dtype=bool), np.zeros(3, dtype=np.uint8))
    with pytest.raises(ValueError, match="one shape"):
        count_overlap(np.zeros((1, 3), dtype=bool), np.zeros((3, 3), dtype=bool))


@few
@given(truth=masks, predicted=masks)
def test_counts_are_those_of_the_voxels(truth, predicted):
    counts = count_overlap(truth, predicted)
    assert (counts.truth_voxels, counts.predicted_voxels) == (truth.sum(), predicted.sum())
    pairs = list(zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True))
    assert counts == overlap(*(pairs.count(pair) for pair in [(True, True), (False, True), (True, False)]))


@few
@given(truth=masks, predicted=masks)
def test_swapping_swaps_precision_and_recall_only(truth, predicted):
    there, back = count_overlap(truth, predicted), count_overlap(predicted, truth)
    assert (there.dsc, there.jaccard) == (back.dsc, back.jaccard)
    assert (there.precision, there.recall) == (back.recall, back.precision)


@few
@given(counts=st.builds(overlap, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)))
def test_dsc_and_jaccard_say_the_same(counts):
    dsc, jaccard = counts.dsc, counts.jaccard
    assert all(ratio is None or 0 <= ratio <= 1 for ratio in ratios(counts))
    if dsc is None or jaccard is None:
        assert dsc is jaccard is None
    else:
        assert dsc == pytest.approx(2 * jaccard / (1 + jaccard))
