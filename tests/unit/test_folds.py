from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.folds import draw_folds, draw_test, in_drawn_order

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


@given(
    st.dictionaries(st.text(min_size=1, max_size=4), st.sampled_from("abcdefgh"), min_size=1),
    st.floats(0, 0.99),
    st.integers(0, 99),
)
def test_a_test_share_has_whole_patients_and_is_as_large_as_they_allow(patient_of, share, seed):
    try:
        test = draw_test(patient_of, share, seed=seed)
    except ValueError:
        assert share
        assert min(Counter(patient_of.values()).values()) > round(share * len(patient_of))
        return
    assert test == draw_test(dict(reversed(patient_of.items())), share, seed=seed)
    assert len(test) <= round(share * len(patient_of))
    inside = {patient_of[case] for case in test}
    rest = Counter(patient for case, patient in patient_of.items() if case not in test)
    assert not inside & set(rest)
    assert all(len(test) + cases > round(share * len(patient_of)) for cases in rest.values())


def test_sixty_twenty_twenty_is_a_test_share_and_four_folds_of_the_rest():
    patient_of = {f"c{number}": f"p{number}" for number in range(60)}
    test = draw_test(patient_of, 0.2, seed=42)
    rest = {case: patient for case, patient in patient_of.items() if case not in test}
    sizes = Counter(draw_folds(rest, 4, seed=42).values())
    assert (len(test), sizes[0], sizes[1] + sizes[2] + sizes[3]) == (12, 12, 36)


def test_a_share_that_comes_to_no_patient_is_refused():
    with pytest.raises(ValueError, match=r"0\.1 of 4 cases is 0: less than any patient has"):
        draw_test({f"c{number}": f"p{number}" for number in range(4)}, 0.1, seed=0)
    assert not draw_test(PATIENTS, 0.0, seed=0)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        draw_test(PATIENTS, share, seed=0)
