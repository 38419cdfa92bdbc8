"""Runs side by side on the same cases: paired differences, tests and rankings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ct_attn.metrics.scores import CaseScore, State
from ct_attn.metrics.statistics import SEED, mean_interval

Floats = NDArray[np.float64]

#: Whether more of it is better, of every measure that is compared.
HIGHER_IS_BETTER: Mapping[str, bool] = {
    "dsc": True,
    "precision": True,
    "recall": True,
    "s2s_mm": False,
    "hd95_mm": False,
    "surface_dsc_2mm": True,
}
N_RANKINGS = 1000

#: In the name of a ranking over all organs together.
ALL_ORGANS = "all organs"

_AT_FAULT = (State.MISSED, State.SPURIOUS)
_GRAVITY = (State.NOT_LABELLED, State.BOTH_EMPTY, State.SCORED, State.MISSED, State.SPURIOUS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """What ``second`` gains over ``first`` in one measure of one organ.

    ``difference`` is the mean of second less first over the ``n`` cases in which both have
    a number, ``low`` and ``high`` its BCa bootstrap interval (95 %). ``n_worst`` cases have
    none in at least one run (a missed or spurious organ has no distance): the test and the
    counts take it for worse than any number. ``p`` is that of Wilcoxon's signed-rank test
    (two-sided), ``p_holm`` the same after Holm's correction over the organs and pairs of
    runs of the measure. ``wins`` are the cases in which ``second`` is better.
    """

    organ: str
    measure: str
    first: str
    second: str
    n: int
    n_worst: int
    difference: float | None
    low: float | None
    high: float | None
    p: float
    p_holm: float
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The order of the runs in one measure, and how firmly the cases at hand decide it.

    In every case the runs are ranked (a missed or spurious organ is worst, ties share the
    mean of their ranks); ``mean_ranks`` are averaged over cases, and ``ranks`` (from 1) say
    their order. ``frequencies[run]`` holds how often the run took rank 1, 2, ... when the
    cases were drawn anew, with replacement (Wiesenfarth et al. 2021, Sci Rep 11:2369).
    ``tau`` is the mean of Kendall's tau between those rankings and the one of all cases.
    """

    organ: str
    measure: str
    n: int
    mean_ranks: Mapping[str, float]
    ranks: Mapping[str, int]
    frequencies: Mapping[str, tuple[float, ...]]
    tau: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeAgreement:
    """Bland and Altman 1986 (Lancet 327:307) of predicted against true volumes of one organ.

    ``bias_ml`` is the mean of predicted less true, ``low_ml`` and ``high_ml`` are the
    limits of agreement, 1.96 sample standard deviations to either side (None with fewer
    than two cases). ``points``: case, mean of both volumes, difference, in ml.
    """

    run: str
    organ: str
    bias_ml: float | None
    low_ml: float | None
    high_ml: float | None
    points: tuple[tuple[str, float, float], ...]


def average_runs(runs: Sequence[Sequence[CaseScore]]) -> list[CaseScore]:
    """The scores of repeated runs (seeds) as those of one, averaged case by case.

    All hold the same cases and organs. A number that one of the runs doesn't have, as the
    organ was missed or spurious there, is missing in the average, too, or missing more
    would look better: distances, a missed organ's precision, a spurious one's recall. So
    is a distance that one run doesn't have for another reason. Other numbers that are not
    defined in one are left out of the mean. The state is the gravest.
    """
    by_key: dict[tuple[str, str], list[CaseScore]] = {}
    for run in runs:
        for score in run:
            by_key.setdefault((score.case_id, score.organ), []).append(score)
    return [_average(scores) for scores in by_key.values()]


def compare_runs(
    runs: Mapping[str, Sequence[CaseScore]], measures: Sequence[str] = tuple(HIGHER_IS_BETTER)
) -> list[PairedComparison]:
    """Every pair of ``runs`` in every organ and measure; the later of two runs is ``second``.

    All runs hold the same cases and organs. A measure that a run has no number of at all
    (the contour convention knows no HD95) is left out.
    """
    compared = []
    for measure in _measures_of_all(runs, measures):
        family = [
            _compare(_of_organ(runs[first], organ), _of_organ(runs[second], organ), measure, (first, second))
            for organ in _organs(runs)
            for first, second in combinations(runs, 2)
        ]
        corrected = holm([one.p for one in family])
        compared += [replace(one, p_holm=p) for one, p in zip(family, corrected, strict=True)]
    return compared


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979, Scand J Stat 6:65) of ``p_values``, in their order."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for n_done, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - n_done)))
        corrected[place] = largest
    return corrected


def rank_runs(
    runs: Mapping[str, Sequence[CaseScore]], measures: Sequence[str] = tuple(HIGHER_IS_BETTER)
) -> list[Ranking]:
    """The ranking of ``runs`` in every measure, organ by organ and over all organs together.

    All runs hold the same cases and organs. Over all organs a case's ranks are averaged
    over its organs first, so that drawing cases anew keeps an organ with its case.
    """
    rankings = []
    for measure in _measures_of_all(runs, measures):
        by_case: dict[str, list[Floats]] = {}
        for organ in _organs(runs):
            scores = {run: _of_organ(runs[run], organ) for run in runs}
            ranked = dict(_case_ranks(scores, measure))
            for case_id, ranks in ranked.items():
                by_case.setdefault(case_id, []).append(ranks)
            if ranked:
                rankings.append(_rank(list(runs), np.array(list(ranked.values())), organ, measure))
        together = np.array([np.mean(ranks, axis=0) for ranks in by_case.values()])
        if len(together) and len(_organs(runs)) > 1:
            rankings.append(_rank(list(runs), together, ALL_ORGANS, measure))
    return rankings


def volume_agreement(run: str, scores: Sequence[CaseScore]) -> list[VolumeAgreement]:
    """One per organ of the ``scores`` of ``run``; cases that have the organ in neither mask are left out."""
    agreements = []
    for organ in dict.fromkeys(score.organ for score in scores):
        points = tuple(
            (score.case_id, (score.truth_ml + score.predicted_ml) / 2, score.predicted_ml - score.truth_ml)
            for score in scores
            if score.organ == organ and score.truth_ml is not None and score.predicted_ml is not None
            if score.state is not State.BOTH_EMPTY
        )
        differences = [difference for _, _, difference in points]
        bias = statistics.fmean(differences) if differences else None
        reach = 1.96 * statistics.stdev(differences) if len(differences) > 1 else None
        agreements.append(
            VolumeAgreement(
                run=run,
                organ=organ,
                bias_ml=bias,
                low_ml=None if bias is None or reach is None else bias - reach,
                high_ml=None if bias is None or reach is None else bias + reach,
                points=points,
            )
        )
    return agreements


def _average(scores: Sequence[CaseScore]) -> CaseScore:
    gravest = max((score.state for score in scores), key=_GRAVITY.index)
    numbers: dict[str, float | None] = {}
    for field in fields(CaseScore):
        if field.name in ("case_id", "organ", "state"):
            continue
        values = [getattr(score, field.name) for score in scores]
        known = [value for value in values if value is not None]
        withheld = any(
            value is None and (score.state in _AT_FAULT or field.name.endswith("_mm"))
            for score, value in zip(scores, values, strict=True)
        )
        numbers[field.name] = statistics.fmean(known) if known and not withheld else None
    return CaseScore(case_id=scores[0].case_id, organ=scores[0].organ, state=gravest, **numbers)


def _organs(runs: Mapping[str, Sequence[CaseScore]]) -> list[str]:
    return list(dict.fromkeys(score.organ for scores in runs.values() for score in scores))


def _of_organ(scores: Sequence[CaseScore], organ: str) -> dict[str, CaseScore]:
    return {score.case_id: score for score in scores if score.organ == organ}


def _measures_of_all(runs: Mapping[str, Sequence[CaseScore]], measures: Sequence[str]) -> list[str]:
    return [
        measure
        for measure in measures
        if all(any(getattr(score, measure) is not None for score in scores) for scores in runs.values())
    ]


def _goodness(score: CaseScore, measure: str) -> float:
    """Larger is better: infinite for an organ rightly left empty, minus infinity for a missing number."""
    value = getattr(score, measure)
    if value is None:
        return math.inf if score.state is State.BOTH_EMPTY else -math.inf
    return float(value) if HIGHER_IS_BETTER[measure] else -float(value)


def _says_nothing(scores: Sequence[CaseScore], measure: str) -> bool:
    """Whether the case is no contest: not labelled, or empty in truth and in all predictions."""
    return all(
        score.state in (State.NOT_LABELLED, State.BOTH_EMPTY) and getattr(score, measure) is None
        for score in scores
    )


def _compare(
    first: Mapping[str, CaseScore], second: Mapping[str, CaseScore], measure: str, names: tuple[str, str]
) -> PairedComparison:
    pairs = [(first[case_id], second[case_id]) for case_id in first]
    pairs = [pair for pair in pairs if not _says_nothing(pair, measure)]
    gains = [_gain(_goodness(one, measure), _goodness(other, measure)) for one, other in pairs]
    values = [(getattr(one, measure), getattr(other, measure)) for one, other in pairs]
    differences = [other - one for one, other in values if one is not None and other is not None]
    low, high = mean_interval(differences) or (None, None)
    p = _wilcoxon(gains)
    return PairedComparison(
        organ=next(iter(first.values())).organ,
        measure=measure,
        first=names[0],
        second=names[1],
        n=len(differences),
        n_worst=len(pairs) - len(differences),
        difference=statistics.fmean(differences) if differences else None,
        low=low,
        high=high,
        p=p,
        p_holm=p,
        wins=sum(gain > 0 for gain in gains),
        ties=sum(gain == 0 for gain in gains),
        losses=sum(gain < 0 for gain in gains),
    )


def _gain(first: float, second: float) -> float:
    return 0.0 if first == second else second - first


def _wilcoxon(gains: Sequence[float]) -> float:
    """Wilcoxon 1945 (Biometrics Bull 1:80), two-sided; infinite gains rank above all others."""
    finite = [abs(gain) for gain in gains if math.isfinite(gain)]
    beyond = 2 * max(finite, default=0.0) + 1
    ranked = np.clip(gains, -beyond, beyond)
    if not np.any(ranked):
        return 1.0
    return float(stats.wilcoxon(ranked).pvalue)


def _case_ranks(scores: Mapping[str, Mapping[str, CaseScore]], measure: str) -> list[tuple[str, Floats]]:
    """For every case that is a contest: the rank of each run, 1 for the best, [runs]."""
    ranked = []
    for case_id in next(iter(scores.values())):
        of_case = [of_run[case_id] for of_run in scores.values()]
        if not _says_nothing(of_case, measure):
            ranked.append((case_id, stats.rankdata([-_goodness(score, measure) for score in of_case])))
    return ranked


def _rank(names: Sequence[str], case_ranks: Floats, organ: str, measure: str) -> Ranking:
    """From the ranks in every case, [cases, runs]."""
    n_cases = len(case_ranks)
    mean_ranks = case_ranks.mean(axis=0)
    draws = np.random.default_rng(SEED).integers(0, n_cases, (N_RANKINGS, n_cases))
    redrawn = np.stack([case_ranks[draw].mean(axis=0) for draw in draws])
    orders = _order(redrawn)
    return Ranking(
        organ=organ,
        measure=measure,
        n=n_cases,
        mean_ranks=dict(zip(names, mean_ranks.tolist(), strict=True)),
        ranks=dict(zip(names, _order(mean_ranks).tolist(), strict=True)),
        frequencies={
            name: tuple(float(np.mean(orders[:, run] == rank)) for rank in range(1, len(names) + 1))
            for run, name in enumerate(names)
        },
        tau=_mean_tau(redrawn, mean_ranks),
    )


def _order(mean_ranks: Floats) -> NDArray[np.int_]:
    """Places from 1 of mean ranks [..., runs]; those that tie share the better place."""
    # rounded, as sums of the same ranks in another order differ in the last digit
    return np.asarray(stats.rankdata(mean_ranks.round(9), method="min", axis=-1)).astype(int)


def _mean_tau(redrawn: Floats, mean_ranks: Floats) -> float:
    """The mean of Kendall's tau (a: ties count as neither) of [draws, runs] against [runs]."""
    pairs = list(combinations(range(len(mean_ranks)), 2))
    agreeing = [
        np.sign((redrawn[:, one] - redrawn[:, other]).round(9))
        * np.sign(np.round(mean_ranks[one] - mean_ranks[other], 9))
        for one, other in pairs
    ]
    return float(np.mean(agreeing))
