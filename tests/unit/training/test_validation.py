"""Scores of whole volumes, shared between processes."""

from __future__ import annotations

from math import isnan, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.metrics import State
from ct_attn.training.validation import (
    TargetScores,
    ValidatedCase,
    from_all_processes,
    left_out,
    means,
    score_labels,
    share_of,
    worst_first,
)


def case(number, *dsc):
    scores = TargetScores(
        state=(State.SCORED,) * len(dsc),
        dsc=dsc,
        iou=dsc,
        precision=dsc[::-1],
        recall=(nan,) * len(dsc),
        s2s_mm=(1.0,) * len(dsc),
    )
    return ValidatedCase(number=number, case_id=f"case_{number}", scores=scores)


def scores_of(predicted, truth, known):
    predicted, truth = (
        torch.tensor(labels, dtype=torch.uint8).reshape(-1, 1, 1) for labels in (predicted, truth)
    )
    return score_labels(predicted, truth, known, (1.0, 1.0, 1.0))


def test_two_voxels_of_which_one_is_found():
    scores = scores_of([1, 0, 0, 2], [1, 1, 0, 2], [True, True])
    assert scores.dsc == (2 / 3, 1.0)
    assert scores.iou == (1 / 2, 1.0)
    assert scores.precision == (1.0, 1.0)
    assert scores.recall == (1 / 2, 1.0)


def test_an_absent_class_that_stays_absent_has_no_score_and_an_invented_one_zero():
    absent = scores_of([0, 0], [0, 0], [True])
    assert all(map(isnan, (*absent.dsc, *absent.iou, *absent.precision, *absent.recall)))
    invented = scores_of([1, 0], [0, 0], [True])
    assert (invented.dsc, invented.iou, invented.precision) == ((0.0,),) * 3
    assert isnan(invented.recall[0])


def test_what_a_case_does_not_label_in_full_has_no_value():
    scores = scores_of([1, 0, 0, 2], [1, 1, 0, 2], [False, True])
    assert all(isnan(value[0]) for value in (scores.dsc, scores.iou, scores.precision, scores.recall))
    assert scores.dsc[1] == 1.0


def test_missing_numbers_have_a_state_and_those_without_s2s_are_counted():
    scored, missed, absent, spurious = (
        scores_of(*labels, [True])
        for labels in (([1, 0], [0, 1]), ([0, 0], [1, 0]), ([0, 0],) * 2, ([1, 0], [0, 0]))
    )
    unlabelled = scores_of([1, 0], [1, 0], [False])
    every = (scored, missed, absent, spurious, spurious, unlabelled)
    assert [one.state[0] for one in every] == [
        State.SCORED, State.MISSED, State.BOTH_EMPTY, State.SPURIOUS, State.SPURIOUS, State.NOT_LABELLED,
    ]  # fmt: skip
    counted = left_out([ValidatedCase(number=0, case_id="a", scores=one) for one in every])
    assert {column: count.tolist() for column, count in counted.items()} == {
        "n_missed": [1], "n_spurious": [2],
    }  # fmt: skip


def test_s2s_is_in_mm_and_missing_where_there_is_no_surface():
    truth = torch.zeros(20, 20, 20, dtype=torch.uint8)
    truth[5:15, 5:15, 5:15] = 1
    scores = score_labels(truth, truth, [True, True, False], (2.0, 2.0, 3.0))
    assert scores.dsc[0] == 1.0
    assert scores.s2s_mm[0] == 0
    assert all(map(isnan, scores.dsc[1:]))
    assert all(map(isnan, scores.s2s_mm[1:]))
    moved = torch.roll(truth, 1, dims=2)
    near, far = (score_labels(moved, truth, [True], (2.0, 2.0, step)).s2s_mm[0] for step in (3.0, 6.0))
    assert 0 < near < 3
    assert far > near


@given(st.integers(1, 12), st.integers(1, 8))
def test_every_case_is_validated_and_no_process_is_idle(n_cases, n_processes):
    shares = [share_of(n_cases, rank=rank, n_processes=n_processes) for rank in range(n_processes)]
    assert all(shares)
    assert {number for share in shares for number in share} == set(range(n_cases))
    if n_cases >= n_processes:
        assert sum(map(len, shares)) == n_cases


def test_means_leave_out_what_has_no_value():
    found = means([case(0, 0.2, nan), case(1, 0.4, nan)])
    assert found["dsc"][0] == pytest.approx(0.3)
    assert isnan(found["dsc"][1])
    assert found["precision"][1] == pytest.approx(0.3)
    assert all(map(isnan, found["recall"]))
    assert found["s2s_mm"].tolist() == [1, 1]


def test_the_worst_case_comes_first_and_one_without_a_score_not_at_all():
    ordered = worst_first([case(0, 0.9, nan), case(1, 0.25, 0.5), case(2, nan, nan), case(3, 0.375, 0.375)])
    assert [one.case_id for one in ordered] == ["case_1", "case_3", "case_0"]


def test_cases_that_two_processes_validated_count_once_in_order():
    assert [one.number for one in from_all_processes([case(2, 0.1), case(0, 0.2), case(2, 0.1)])] == [0, 2]
