from __future__ import annotations

import pytest

from ct_attn.metrics.scores import CaseScore, State
from ct_attn.metrics.statistics import MeanStd, mean_std, summarize

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


def test_mean_and_sample_deviation():
    assert mean_std([2.0, None, 4.0, 9.0]) == MeanStd(mean=5.0, std=pytest.approx(13**0.5), n=3)
    assert mean_std([0.25, None]) == MeanStd(mean=0.25, std=None, n=1)
    assert mean_std([None]) == mean_std([]) == MeanStd(mean=None, std=None, n=0)


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
    assert summary.s2s_mm == MeanStd(mean=2.0, std=pytest.approx(2**0.5), n=2)
    assert summary.hd95_mm == MeanStd(mean=4.0, std=0.0, n=2)


def test_cases_without_numbers_change_no_mean():
    [alone] = summarize([case(State.SCORED, **SCORED)])
    empty = case(State.BOTH_EMPTY, truth_ml=0.0, predicted_ml=0.0)
    [among] = summarize([case(State.NOT_LABELLED), case(State.SCORED, **SCORED), empty, empty])
    assert (among.n_scored, among.n_both_empty, among.n_not_labelled) == (1, 2, 1)
    means = ("dsc", "precision", "recall", "s2s_mm", "hd95_mm", "surface_dsc_2mm")
    assert [getattr(among, name) for name in means] == [getattr(alone, name) for name in means]
    assert [getattr(alone, name).mean for name in means] == [SCORED[name] for name in means]


def test_organs_keep_their_order_and_are_apart():
    scores = [missed("spleen"), case(State.SCORED, "pancreas", **SCORED), missed("spleen")]
    spleen, pancreas = summarize(scores)
    assert (spleen.organ, spleen.n_missed, spleen.dsc.mean) == ("spleen", 2, 0)
    assert (spleen.s2s_mm.mean, spleen.s2s_mm.n) == (None, 0)
    assert (pancreas.organ, pancreas.n_missed, pancreas.dsc.mean) == ("pancreas", 0, 0.8)


def test_no_scores_no_summary():
    assert summarize([]) == []
