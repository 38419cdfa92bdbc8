"""What many cases' scores come to, organ by organ."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ct_attn.metrics.scores import CaseScore, State

CONFIDENCE = 0.95
N_RESAMPLES = 2000

#: Every resampling starts from this, so that the same scores give the same intervals.
SEED = 0

#: What a structure that is in neither mask may count in, when that was asked for.
_OF_BOTH_EMPTY = ("dsc", "jaccard", "surface_dsc_1mm", "surface_dsc_2mm", "surface_dsc_3mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What ``n`` numbers look like.

    ``std`` is the sample standard deviation (n - 1 in the denominator), ``q1`` and ``q3``
    are the quartiles, ``low`` and ``high`` a bootstrap 95 % interval of the mean. All are
    None without a number; ``std``, ``low`` and ``high`` with fewer than two.
    """

    n: int
    mean: float | None = None
    std: float | None = None
    median: float | None = None
    q1: float | None = None
    q3: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganSummary:
    """One organ over all cases: how many are in which state, and what the numbers look like.

    A distribution takes every case in which its number is defined (``CaseScore`` says
    where) and its own ``n`` says how many those are. So DSC, recall, precision and
    surface DSC count a missed or a spurious organ as 0 (precision has no value for
    a missed organ, recall none for a spurious one), while distances leave both out:
    show them with ``n_missed`` and ``n_spurious`` beside them, or a model that finds
    less looks better. A structure in neither mask counts nowhere, or in the overlap
    ratios when ``ScoreOptions.count_empty`` asked for it.
    """

    organ: str
    n_scored: int
    n_both_empty: int
    n_missed: int
    n_spurious: int
    n_not_labelled: int
    dsc: Distribution
    precision: Distribution
    recall: Distribution
    jaccard: Distribution
    accuracy: Distribution
    s2s_mm: Distribution
    directed_mean_mm: Distribution
    hd95_mm: Distribution
    hd_mm: Distribution
    surface_dsc_1mm: Distribution
    surface_dsc_2mm: Distribution
    surface_dsc_3mm: Distribution
    centroid_mm: Distribution
    volume_difference_ml: Distribution
    volume_difference_percent: Distribution


_SUMMARIZED = tuple(name for name in OrganSummary.__slots__ if name != "organ" and not name.startswith("n_"))


def summarize(scores: Iterable[CaseScore]) -> list[OrganSummary]:
    """One summary per organ, in the order in which the organs first appear."""
    by_organ: dict[str, list[CaseScore]] = {}
    for score in scores:
        by_organ.setdefault(score.organ, []).append(score)
    return [_summarize_organ(organ, of_organ) for organ, of_organ in by_organ.items()]


def describe(values: Iterable[float | None]) -> Distribution:
    """The distribution of those ``values`` that are not None."""
    known = [value for value in values if value is not None]
    if not known:
        return Distribution(n=0)
    q1, median, q3 = np.percentile(known, [25, 50, 75]).tolist()
    low, high = mean_interval(known) or (None, None)
    return Distribution(
        n=len(known),
        mean=statistics.fmean(known),
        std=statistics.stdev(known) if len(known) > 1 else None,
        median=median,
        q1=q1,
        q3=q3,
        low=low,
        high=high,
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The bias-corrected and accelerated bootstrap interval (95 %) of the mean of ``values``.

    Efron 1987 (J Am Stat Assoc 82:171), through ``scipy.stats.bootstrap`` with a fixed
    seed. The value itself where all are equal; the percentile interval where the
    correction is not defined; None with fewer than two values.
    """
    if len(values) < 2:
        return None
    if min(values) == max(values):
        return values[0], values[0]
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the correction is not defined: the interval is NaN then
            found = stats.bootstrap(
                (np.asarray(values),),
                np.mean,
                n_resamples=N_RESAMPLES,
                confidence_level=CONFIDENCE,
                method=method,
                rng=np.random.default_rng(SEED),
            ).confidence_interval
        if np.isfinite(found.low) and np.isfinite(found.high):
            break
    return float(found.low), float(found.high)


def _summarize_organ(organ: str, scores: list[CaseScore]) -> OrganSummary:
    states = [score.state for score in scores]
    return OrganSummary(
        organ=organ,
        n_scored=states.count(State.SCORED),
        n_both_empty=states.count(State.BOTH_EMPTY),
        n_missed=states.count(State.MISSED),
        n_spurious=states.count(State.SPURIOUS),
        n_not_labelled=states.count(State.NOT_LABELLED),
        **{name: describe(_values(scores, name)) for name in _SUMMARIZED},
    )


def _values(scores: list[CaseScore], name: str) -> list[float | None]:
    return [
        getattr(score, name)
        for score in scores
        if score.state is not State.BOTH_EMPTY or name in _OF_BOTH_EMPTY
    ]
