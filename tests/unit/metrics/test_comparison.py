from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ct_attn.metrics import comparison
from ct_attn.metrics.comparison import (
    ALL_ORGANS,
    average_runs,
    compare_runs,
    holm,
    rank_runs,
    volume_agreement,
)
from ct_attn.metrics.scores import CaseScore, State
from ct_attn.metrics.statistics import summarize
from ct_attn.report.paper_table import left_out
from tests.studies import SPREAD, simulated_study


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


def simulated_pair(random):
    """Two runs on the same cases; cases differ by 0.1, the runs within a case by 0.03 and ``GAIN``."""
    base = random.normal(0.8, 0.1, N_CASES)
    first, second = base + random.normal(0, 0.03, (2, N_CASES)) + [[0], [GAIN]]
    return {"first": run_of(first.tolist()), "second": run_of(second.tolist())}


def test_a_known_effect_is_covered_as_often_as_nominal_and_found_with_the_power_it_should_have():
    """95 % of 200 intervals is 190 +- 3 x 3.1; BCa on 24 cases covers about 1.5 % less.

    A paired difference of 0.02 with a standard deviation of 0.0424 in 24 cases has a power
    of 0.60 by the t test, of which Wilcoxon's keeps 95 %.
    """
    random = np.random.default_rng(7)
    covered = found = 0
    for _ in range(N_STUDIES):
        pair = only(compare_runs(simulated_pair(random), ["dsc"]))
        covered += pair.low <= GAIN <= pair.high
        found += pair.p < 0.05
    assert 0.88 <= covered / N_STUDIES <= 0.98
    assert 0.47 <= found / N_STUDIES <= 0.70


@pytest.mark.parametrize("measure", ["dsc", "s2s_mm"])
def test_without_an_effect_runs_differ_as_rarely_as_nominal(measure, monkeypatch):
    """Three runs, three organs, missed ones among them: a family of nine tests, as ``compare`` makes it.

    One test finds a difference in 5 % of the studies, the family after Holm's correction in
    at most 5 %, each give or take 3 standard errors (the nine are worth about three that are
    independent); without the correction it would be more than 20 %.
    """
    monkeypatch.setattr(comparison, "mean_interval", lambda values: None)  # nothing is asked of them here
    random, n_studies = np.random.default_rng(8), 400
    studies = [compare_runs(simulated_study(random, {}), [measure]) for _ in range(n_studies)]
    assert {len(family) for family in studies} == {9}
    assert any(pair.n_worst for family in studies for pair in family) == (measure == "s2s_mm")
    single = np.mean([pair.p < 0.05 for family in studies for pair in family])
    family_wise = np.mean([min(pair.p_holm for pair in family) < 0.05 for family in studies])
    uncorrected = np.mean([min(pair.p for pair in family) < 0.05 for family in studies])
    assert single == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / (3 * n_studies)))
    assert 0.005 < family_wise <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_studies)
    assert uncorrected > 0.2


def test_a_known_effect_among_three_runs_is_found_where_it_is_and_nowhere_else():
    """The third run is better by two spreads in the spleen, 1.4 standard deviations of a gain."""
    random, n_studies = np.random.default_rng(9), 100
    gain_mm = 2 * SPREAD["s2s_mm"]
    found = elsewhere = covered = 0
    for _ in range(n_studies):
        family = compare_runs(simulated_study(random, {("third", "spleen"): 2.0}), ["s2s_mm"])
        effects = [pair for pair in family if (pair.second, pair.organ) == ("third", "spleen")]
        found += sum(pair.p_holm < 0.05 and pair.difference < 0 for pair in effects)
        elsewhere += any(pair.p_holm < 0.05 for pair in family if pair not in effects)
        for pair in family:
            covered += pair.low <= (-gain_mm if pair in effects else 0) <= pair.high
    assert found >= 0.75 * 2 * n_studies
    assert elsewhere / n_studies <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_studies)
    assert 0.90 <= covered / (9 * n_studies) <= 0.97


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


@pytest.mark.parametrize(
    ("state", "numbers", "withheld"),
    [
        (State.MISSED, {"dsc": 0.0, "recall": 0.0}, ("precision", "s2s_mm")),
        (State.SPURIOUS, {"dsc": 0.0, "precision": 0.0}, ("recall", "s2s_mm")),
    ],
)
def test_what_a_fault_of_one_run_leaves_undefined_has_no_average(state, numbers, withheld):
    """As good as the other run is: else to miss an organ in one run of two would raise the precision."""
    good = case(0, dsc=0.5, precision=0.6, recall=0.4, s2s_mm=2.0)
    [score] = average_runs([[good], [case(0, state=state, **numbers)]])
    assert (score.state, score.dsc) == (state, 0.25)
    assert [getattr(score, name) for name in withheld] == [None, None]
    [defined] = {"precision", "recall"} - set(withheld)
    assert getattr(score, defined) == getattr(good, defined) / 2
    summary = only(summarize([score]))
    assert all(left_out(summary, getattr(summary, name)) == 1 for name in withheld)
    assert left_out(summary, getattr(summary, defined)) == 0


def test_a_distance_that_one_run_does_not_have_has_no_average_for_whatever_reason():
    """By the contour convention two structures may share no slice."""
    [score] = average_runs([[case(0, dsc=0.5, s2s_mm=2.0)], [case(0, dsc=0.3)]])
    assert (score.state, score.dsc, score.s2s_mm) == (State.SCORED, 0.4, None)


def test_what_is_not_defined_without_a_fault_is_left_out_of_the_average():
    right, spurious = case(0, state=State.BOTH_EMPTY), case(0, state=State.SPURIOUS, dsc=0.0, precision=0.0)
    [score] = average_runs([[right], [spurious]])
    assert (score.state, score.dsc, score.precision, score.recall) == (State.SPURIOUS, 0, 0, None)


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
