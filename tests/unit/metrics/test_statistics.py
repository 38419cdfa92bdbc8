from __future__ import annotations

import numpy as np
import pytest

from ct_attn.metrics.scores import CaseScore, State
from ct_attn.metrics.statistics import Distribution, describe, mean_interval, summarize

SCORED = {
    "dsc": 0.8,
    "precision": 0.9,
    "recall": 0.7,
    "jaccard": 0.6,
    "s2s_mm": 1.0,
    "hd95_mm": 4.0,
    "surface_dsc_2mm": 0.9,
}


def case(state, organ="spleen", **numbers):
    return CaseScore(case_id="one", organ=organ, state=state, **numbers)


def missed(organ="spleen"):
    return case(State.MISSED, organ, dsc=0.0, recall=0.0, jaccard=0.0, surface_dsc_2mm=0.0)


def spurious():
    return case(State.SPURIOUS, dsc=0.0, precision=0.0, jaccard=0.0, surface_dsc_2mm=0.0)


def test_a_distribution_to_check_by_hand():
    found = describe([2.0, None, 4.0, 9.0])
    assert (found.n, found.mean, found.std) == (3, 5.0, pytest.approx(13**0.5))
    assert (found.q1, found.median, found.q3) == (3.0, 4.0, 6.5)
    assert 2 <= found.low < 5 < found.high <= 9
    assert describe([0.25, None]) == Distribution(n=1, mean=0.25, median=0.25, q1=0.25, q3=0.25)
    assert describe([None]) == describe([]) == Distribution(n=0)


def test_the_interval_is_the_same_every_time_and_that_of_equal_values_is_a_point():
    values = np.random.default_rng(1).normal(size=20).tolist()
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval([0.5] * 4) == (0.5, 0.5)
    assert mean_interval([0.5]) is None


def test_an_interval_without_a_defined_correction_is_the_percentile_one():
    low, high = mean_interval([0.0, 1.0])
    assert (low, high) == (0, 1)


def test_the_interval_holds_the_true_mean_as_often_as_it_says():
    """95 %, give or take 3 standard errors of 300 samples and what a skewed sample of 60 covers less."""
    random = np.random.default_rng(2)
    inside = 0
    for _ in range(300):
        low, high = mean_interval(random.gamma(4, size=60).tolist())
        inside += low <= 4 <= high
    assert 0.91 < inside / 300 < 0.98


def test_missed_and_spurious_count_as_0_in_dsc_and_stay_out_of_distances():
    scores = [
        case(State.SCORED, **SCORED),
        missed(),
        spurious(),
        case(State.SCORED, **SCORED | {"s2s_mm": 3.0}),
    ]
    [summary] = summarize(scores)
    assert (summary.n_scored, summary.n_missed, summary.n_spurious) == (2, 1, 1)
    assert summary.dsc.mean == pytest.approx(0.4)
    assert summary.dsc.std == pytest.approx((4 * 0.4**2 / 3) ** 0.5)
    assert summary.surface_dsc_2mm.mean == pytest.approx(0.45)
    assert (summary.recall.mean, summary.recall.n) == (pytest.approx(1.4 / 3), 3)
    assert (summary.precision.mean, summary.precision.n) == (pytest.approx(1.8 / 3), 3)
    assert (summary.s2s_mm.mean, summary.s2s_mm.std, summary.s2s_mm.n) == (2.0, pytest.approx(2**0.5), 2)
    assert (summary.hd95_mm.mean, summary.hd95_mm.std, summary.hd95_mm.n) == (4.0, 0.0, 2)


def test_cases_without_numbers_change_no_mean():
    [alone] = summarize([case(State.SCORED, **SCORED)])
    empty = case(State.BOTH_EMPTY, accuracy=1.0, truth_ml=0.0, predicted_ml=0.0, volume_difference_ml=0.0)
    [among] = summarize([case(State.NOT_LABELLED), case(State.SCORED, **SCORED), empty, empty])
    assert (among.n_scored, among.n_both_empty, among.n_not_labelled) == (1, 2, 1)
    means = ("dsc", "precision", "recall", "s2s_mm", "hd95_mm", "surface_dsc_2mm")
    assert [getattr(among, name) for name in means] == [getattr(alone, name) for name in means]
    assert [getattr(alone, name).mean for name in means] == [SCORED[name] for name in means]
    assert among.accuracy.n == among.volume_difference_ml.n == 0


def test_both_empty_counts_in_the_overlap_where_its_score_says_so():
    [summary] = summarize([missed(), case(State.BOTH_EMPTY, dsc=1.0, jaccard=1.0, surface_dsc_2mm=1.0)])
    assert (summary.dsc.mean, summary.surface_dsc_2mm.mean, summary.recall.n) == (0.5, 0.5, 1)


def test_organs_keep_their_order_and_are_apart():
    scores = [missed("spleen"), case(State.SCORED, "pancreas", **SCORED), missed("spleen")]
    spleen, pancreas = summarize(scores)
    assert (spleen.organ, spleen.n_missed, spleen.dsc.mean) == ("spleen", 2, 0)
    assert (spleen.s2s_mm.mean, spleen.s2s_mm.n) == (None, 0)
    assert (pancreas.organ, pancreas.n_missed, pancreas.dsc.mean) == ("pancreas", 0, 0.8)


def test_no_scores_no_summary():
    assert summarize([]) == []
