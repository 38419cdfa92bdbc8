"""Scores of whole volumes, shared between processes."""

from __future__ import annotations

from math import isnan, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.training.validation import (
    ValidatedCase,
    dsc_per_class,
    from_all_processes,
    means,
    score_labels,
    share_of,
    worst_first,
)


def case(number, *dsc):
    return ValidatedCase(number=number, case_id=f"case_{number}", dsc=dsc, s2s_mm=(1.0,) * len(dsc))


def test_dsc_of_two_voxels_of_which_one_is_found():
    truth = torch.tensor([1, 1, 0, 2])
    predicted = torch.tensor([1, 0, 0, 2])
    assert dsc_per_class(predicted, truth, n_classes=3) == [2 / 3, 1.0]


def test_an_absent_class_that_stays_absent_counts_one_and_an_invented_one_zero():
    truth = torch.zeros(4, dtype=torch.int64)
    assert dsc_per_class(truth, truth, n_classes=2) == [1.0]
    assert dsc_per_class(torch.tensor([1, 0, 0, 0]), truth, n_classes=2) == [0.0]


def test_s2s_is_in_mm_and_missing_where_there_is_no_surface():
    truth = torch.zeros(20, 20, 20, dtype=torch.uint8)
    truth[5:15, 5:15, 5:15] = 1
    dsc, s2s_mm = score_labels(truth, truth, [True, True, False], (2.0, 2.0, 3.0))
    assert dsc[:2] == (1.0, 1.0)
    assert s2s_mm[0] == 0
    assert isnan(dsc[2])
    assert all(map(isnan, s2s_mm[1:]))
    moved = torch.roll(truth, 1, dims=2)
    near, far = (score_labels(moved, truth, [True], (2.0, 2.0, step))[1][0] for step in (3.0, 6.0))
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
    dsc, s2s_mm = means([case(0, 0.2, nan), case(1, 0.4, nan)])
    assert dsc[0] == pytest.approx(0.3)
    assert isnan(dsc[1])
    assert s2s_mm.tolist() == [1, 1]


def test_the_worst_case_comes_first_and_one_without_a_score_not_at_all():
    ordered = worst_first([case(0, 0.9, nan), case(1, 0.25, 0.5), case(2, nan, nan), case(3, 0.375, 0.375)])
    assert [one.case_id for one in ordered] == ["case_1", "case_3", "case_0"]


def test_cases_that_two_processes_validated_count_once_in_order():
    assert [one.number for one in from_all_processes([case(2, 0.1), case(0, 0.2), case(2, 0.1)])] == [0, 2]
