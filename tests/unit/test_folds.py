from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.folds import draw_folds, in_drawn_order

PATIENTS = {f"c{number}": f"p{number // 2}" for number in range(12)}


@given(
    st.dictionaries(st.text(min_size=1, max_size=4), st.sampled_from("abcdefgh"), min_size=8),
    st.integers(2, 4),
    st.integers(0, 99),
)
def test_a_patient_is_in_one_fold_and_sizes_differ_by_no_more_than_a_patient(patient_of, n_folds, seed):
    cases_of = Counter(patient_of.values())
    if len(cases_of) < n_folds:
        return
    folds = draw_folds(patient_of, n_folds, seed=seed)
    assert list(folds) == list(patient_of)
    for patient in cases_of:
        assert len({folds[case] for case in patient_of if patient_of[case] == patient}) == 1
    sizes = Counter(folds.values())
    assert set(sizes) == set(range(n_folds))
    assert max(sizes.values()) - min(sizes.values()) <= max(cases_of.values())


def test_the_seed_decides_and_the_order_of_the_cases_does_not():
    backwards = dict(reversed(PATIENTS.items()))
    assert draw_folds(PATIENTS, 3, seed=1) == draw_folds(backwards, 3, seed=1)
    assert draw_folds(PATIENTS, 3, seed=1) != draw_folds(PATIENTS, 3, seed=2)


def test_folds_never_change_from_version_to_version():
    assert in_drawn_order(["a", "b", "c", "d"], seed=7) == ["c", "a", "d", "b"]


@pytest.mark.parametrize("n_folds", [0, 1, 7])
def test_too_many_or_too_few_folds_are_refused(n_folds):
    with pytest.raises(ValueError, match="6 patients cannot be put"):
        draw_folds(PATIENTS, n_folds, seed=0)
