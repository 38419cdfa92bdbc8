from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ct_attn.metrics.comparison import (
    ALL_ORGANS,
    average_runs,
    compare_runs,
    holm,
    rank_runs,
    volume_agreement,
)
from ct_attn.metrics.scores import CaseScore, State


def case(number, organ="spleen", state=State.SCORED, **numbers):
    return CaseScore(case_id=f"case{number}", organ=organ, state=state, **numbers)


def run_of(values, organ="spleen", measure="dsc"):
    """A run with one number per case; None is a missed organ."""
    return [
        case(n, organ, State.MISSED if value is None else State.SCORED, **{measure: value})
        for n, value in enumerate(values)
    ]


def only(compared):
    [pair] = compared
    return pair


# --- paired differences


def test_a_difference_to_check_by_hand():
    pair = only(compare_runs({"a": run_of([0.5, 0.6, 0.7, 0.8]), "b": run_of([0.6, 0.8, 0.7, 0.7])}))
    assert (pair.organ, pair.measure, pair.first, pair.second) == ("spleen", "dsc", "a", "b")
    assert pair.difference == pytest.approx(0.05)
    assert pair.low < 0.05 < pair.high
    assert (pair.wins, pair.ties, pair.losses, pair.n, pair.n_worst) == (2, 1, 1, 4, 0)


def test_a_shorter_distance_wins():
    first, second = run_of([2.0, 3.0, 1.0], measure="s2s_mm"), run_of([1.0, 2.5, 1.6], measure="s2s_mm")
    pair = only(compare_runs({"a": first, "b": second}))
    assert (pair.wins, pair.losses, pair.difference) == (2, 1, pytest.approx(-0.3))


def test_the_test_is_that_of_scipy():
    random = np.random.default_rng(1)
    first, second = random.normal(size=(2, 15)).tolist()
    pair = only(compare_runs({"a": run_of(first), "b": run_of(second)}))
    assert pair.p == stats.wilcoxon(np.subtract(second, first)).pvalue == pair.p_holm


def test_equal_runs_have_no_difference_and_p_1():
    run = run_of([0.5, 0.7, 0.9])
    pair = only(compare_runs({"a": run, "b": run}))
    assert (pair.difference, pair.low, pair.high, pair.p, pair.ties) == (0, 0, 0, 1, 3)


def test_a_missed_organ_is_worse_than_any_distance_and_out_of_the_mean():
    first = run_of([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], measure="s2s_mm")
    second = run_of([0.9, 0.8, 0.7, 0.6, 0.5, None], measure="s2s_mm")
    pair = only(compare_runs({"a": first, "b": second}))
    assert (pair.n, pair.n_worst, pair.wins, pair.losses) == (5, 1, 5, 1)
    assert pair.difference == pytest.approx(-0.3)
    # the loss takes the highest of six ranks, however near the others are
    assert pair.p == stats.wilcoxon([1, 2, 3, 4, 5, -6]).pvalue


def test_an_organ_missed_by_both_is_a_tie():
    runs = {name: run_of([value, None], measure="s2s_mm") for name, value in (("a", 1.0), ("b", 2.0))}
    pair = only(compare_runs(runs))
    assert (pair.wins, pair.ties, pair.losses, pair.n_worst) == (0, 1, 1, 1)


def test_leaving_out_what_is_not_there_beats_drawing_it():
    empty, spurious = case(0, state=State.BOTH_EMPTY), case(0, state=State.SPURIOUS, dsc=0.0)
    rest = case(1, dsc=0.5)
    assert only(compare_runs({"a": [spurious, rest], "b": [empty, rest]})).wins == 1
    both = only(compare_runs({"a": [empty, rest], "b": [empty, rest]}))
    assert (both.n, both.ties) == (1, 1)  # empty for all: no contest


def test_cases_that_are_not_labelled_are_no_contest():
    unlabelled = case(0, state=State.NOT_LABELLED)
    pair = only(compare_runs({"a": [unlabelled, case(1, dsc=0.5)], "b": [unlabelled, case(1, dsc=0.6)]}))
    assert (pair.n, pair.n_worst, pair.wins) == (1, 0, 1)


def test_a_measure_that_a_run_does_not_have_is_left_out():
    with_distance = [case(0, dsc=0.5, s2s_mm=1.0)]
    assert {one.measure for one in compare_runs({"a": with_distance, "b": [case(0, dsc=0.5)]})} == {"dsc"}


def test_every_two_runs_and_organ_are_one_family():
    random = np.random.default_rng(2)
    runs = {
        name: run_of(random.random(8).tolist()) + run_of(random.random(8).tolist(), "pancreas")
        for name in "abc"
    }
    compared = compare_runs(runs)
    assert [(one.organ, one.first, one.second) for one in compared] == [
        (organ, *pair) for organ in ("spleen", "pancreas") for pair in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    assert [one.p_holm for one in compared] == holm([one.p for one in compared])


# --- Holm


def test_holm_to_check_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([]) == []


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_no_correction_and_bonferroni(p_values):
    corrected = holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert p <= q <= min(1, p * len(p_values))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)


# --- a simulated study: does the analysis find what was put in, and nothing else as often as it says?

N_STUDIES, N_CASES = 200, 24
GAIN = 0.02


def simulated_study(random, gains):
    """Two runs on the same cases; cases differ by 0.1, the runs within a case by 0.03 and ``gains``."""
    first, second = [], []
    for organ, gain in gains.items():
        base = random.normal(0.8, 0.1, N_CASES)
        noise = random.normal(0, 0.03, (2, N_CASES))
        first += run_of((base + noise[0]).tolist(), organ)
        second += run_of((base + noise[1] + gain).tolist(), organ)
    return {"first": first, "second": second}


def test_a_known_effect_is_covered_as_often_as_nominal_and_found_with_the_power_it_should_have():
    """95 % of 200 intervals is 190 +- 3 x 3.1; BCa on 24 cases covers about 1.5 % less.

    A paired difference of 0.02 with a standard deviation of 0.0424 in 24 cases has a power
    of 0.60 by the t test, of which Wilcoxon's keeps 95 %.
    """
    random = np.random.default_rng(7)
    covered = found = 0
    for _ in range(N_STUDIES):
        pair = only(compare_runs(simulated_study(random, {"spleen": GAIN}), ["dsc"]))
        covered += pair.low <= GAIN <= pair.high
        found += pair.p < 0.05
    assert 0.88 <= covered / N_STUDIES <= 0.98
    assert 0.47 <= found / N_STUDIES <= 0.70


def test_without_an_effect_a_family_of_tests_finds_one_as_rarely_as_nominal():
    """At most 5 % of 400 studies, plus 3 standard errors; without Holm three tests find one in 14 %."""
    random = np.random.default_rng(8)
    corrected = uncorrected = 0
    for _ in range(400):
        first, second = random.normal(size=(2, 3, N_CASES))
        p_values = [stats.wilcoxon(one - other).pvalue for one, other in zip(first, second, strict=True)]
        corrected += min(holm(p_values)) < 0.05
        uncorrected += min(p_values) < 0.05
    assert corrected / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert uncorrected / 400 > 0.09


def test_an_effect_in_one_organ_is_not_found_in_the_others():
    random = np.random.default_rng(9)
    gains = {"pancreas": 0.0, "spleen": 2 * GAIN, "kidney": 0.0}
    found = dict.fromkeys(gains, 0)
    for _ in range(60):
        for pair in compare_runs(simulated_study(random, gains), ["dsc"]):
            found[pair.organ] += pair.p_holm < 0.05
    assert found["spleen"] > 50
    assert max(found["pancreas"], found["kidney"]) <= 5


# --- rankings


def test_a_run_that_is_always_best_is_always_first():
    runs = {"worst": run_of([0.1] * 6), "best": run_of([0.9] * 6), "middle": run_of([0.5] * 6)}
    ranking = only(rank_runs(runs))
    assert ranking.ranks == {"worst": 3, "best": 1, "middle": 2}
    assert ranking.frequencies == {"worst": (0, 0, 1), "best": (1, 0, 0), "middle": (0, 1, 0)}
    assert (ranking.tau, ranking.n) == (1, 6)


def test_frequencies_are_those_of_drawing_cases_anew():
    """One case of three speaks for b. It wins where two or more of the three drawn are that one: 7 of 27."""
    runs = {"a": run_of([0.6, 0.6, 0.4]), "b": run_of([0.5, 0.5, 0.5])}
    ranking = only(rank_runs(runs))
    assert ranking.frequencies["b"][0] == pytest.approx(7 / 27, abs=3 * np.sqrt(7 / 27 * 20 / 27 / 1000))
    assert ranking.tau == pytest.approx(1 - 2 * ranking.frequencies["b"][0])


def test_a_missed_organ_ranks_last_and_two_share_the_last_ranks():
    runs = {
        "a": run_of([None, 3.0], measure="s2s_mm"),
        "b": run_of([9.0, 1.0], measure="s2s_mm"),
        "c": run_of([None, 2.0], measure="s2s_mm"),
    }
    assert only(rank_runs(runs)).mean_ranks == {"a": 2.75, "b": 1, "c": 2.25}


def test_runs_that_tie_share_the_better_rank():
    run = run_of([0.5, 0.7])
    ranking = only(rank_runs({"a": run, "b": run}))
    assert (ranking.ranks, ranking.tau) == ({"a": 1, "b": 1}, 0)


def test_all_organs_are_ranked_together_case_by_case():
    runs = {
        "a": run_of([0.5, 0.5]) + run_of([0.9, 0.9], "pancreas"),
        "b": run_of([0.6, 0.6]) + run_of([0.1, 0.95], "pancreas"),
    }
    together = rank_runs(runs)[-1]
    assert (together.organ, together.n) == (ALL_ORGANS, 2)
    assert together.mean_ranks == {"a": 1.75, "b": 1.25}


# --- repeated runs


def test_repeated_runs_are_averaged_case_by_case():
    [score] = average_runs([[case(0, dsc=0.5, s2s_mm=2.0)], [case(0, dsc=0.7, s2s_mm=1.0)]])
    assert (score.case_id, score.state, score.s2s_mm) == ("case0", State.SCORED, 1.5)
    assert score.dsc == pytest.approx(0.6)


def test_an_organ_missed_once_has_no_average_distance():
    missed = case(0, state=State.MISSED, dsc=0.0)
    [score] = average_runs([[case(0, dsc=0.5, s2s_mm=2.0)], [missed]])
    assert (score.state, score.dsc, score.s2s_mm) == (State.MISSED, 0.25, None)


# --- volumes


def test_agreement_of_volumes_to_check_by_hand():
    volumes = [(100, 110), (200, 190), (300, 315)]
    scores = [case(n, truth_ml=truth, predicted_ml=predicted) for n, (truth, predicted) in enumerate(volumes)]
    scores += [case(8, state=State.BOTH_EMPTY, truth_ml=0, predicted_ml=0), case(9, state=State.NOT_LABELLED)]
    [agreement] = volume_agreement("a", scores)
    assert agreement.bias_ml == 5
    assert agreement.high_ml == pytest.approx(5 + 1.96 * np.std([10, -10, 15], ddof=1))
    assert agreement.low_ml == pytest.approx(10 - agreement.high_ml)
    assert agreement.points == (("case0", 105, 10), ("case1", 195, -10), ("case2", 307.5, 15))


def test_one_case_has_a_bias_and_no_limits():
    [agreement] = volume_agreement("a", [case(0, truth_ml=10, predicted_ml=12)])
    assert (agreement.bias_ml, agreement.low_ml, agreement.high_ml) == (2, None, None)
