"""What many cases' scores come to, organ by organ."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from ct_attn.metrics.scores import CaseScore, State


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanStd:
    """Mean and sample standard deviation (n - 1 in the denominator) of ``n`` numbers.

    ``mean`` is None without a number, ``std`` with fewer than two.
    """

    mean: float | None
    std: float | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganSummary:
    """One organ over all cases: how many are in which state, and the means.

    A mean takes every case in which its number is defined (``CaseScore`` says
    where), and its own ``n`` says how many those are. So DSC, recall, precision and
    surface DSC count a missed or a spurious organ as 0 (precision has no value for
    a missed organ, recall none for a spurious one), while ``s2s_mm`` and ``hd95_mm``
    leave both out: show them with ``n_missed`` and ``n_spurious`` beside them, or a
    model that finds less looks better.
    """

    organ: str
    n_scored: int
    n_both_empty: int
    n_missed: int
    n_spurious: int
    n_not_labelled: int
    dsc: MeanStd
    precision: MeanStd
    recall: MeanStd
    s2s_mm: MeanStd
    hd95_mm: MeanStd
    surface_dsc_2mm: MeanStd


def summarize(scores: Iterable[CaseScore]) -> list[OrganSummary]:
    """One summary per organ, in the order in which the organs first appear."""
    by_organ: dict[str, list[CaseScore]] = {}
    for score in scores:
        by_organ.setdefault(score.organ, []).append(score)
    return [_summarize_organ(organ, of_organ) for organ, of_organ in by_organ.items()]


def mean_std(values: Iterable[float | None]) -> MeanStd:
    """Mean and sample standard deviation of those ``values`` that are not None."""
    known = [value for value in values if value is not None]
    return MeanStd(
        mean=statistics.fmean(known) if known else None,
        std=statistics.stdev(known) if len(known) > 1 else None,
        n=len(known),
    )


def _summarize_organ(organ: str, scores: list[CaseScore]) -> OrganSummary:
    states = [score.state for score in scores]
    return OrganSummary(
        organ=organ,
        n_scored=states.count(State.SCORED),
        n_both_empty=states.count(State.BOTH_EMPTY),
        n_missed=states.count(State.MISSED),
        n_spurious=states.count(State.SPURIOUS),
        n_not_labelled=states.count(State.NOT_LABELLED),
        dsc=mean_std(score.dsc for score in scores),
        precision=mean_std(score.precision for score in scores),
        recall=mean_std(score.recall for score in scores),
        s2s_mm=mean_std(score.s2s_mm for score in scores),
        hd95_mm=mean_std(score.hd95_mm for score in scores),
        surface_dsc_2mm=mean_std(score.surface_dsc_2mm for score in scores),
    )
