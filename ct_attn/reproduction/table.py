"""Our figures beside the published ones, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ct_attn.metrics import Distribution, OrganSummary, SurfaceConvention, summarize
from ct_attn.metrics.scores import CaseScore
from ct_attn.published import PublishedFigure, find
from ct_attn.report.reproduction_table import ReproducedFigure
from ct_attn.reproduction.experiments import Experiment

#: What is measured of an organ, in the paper's order; of its networks, their size and time.
MEASURES = ("dsc", "precision", "recall", "s2s_mm")
OF_NETWORKS = ("parameters_million", "inference_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of an experiment; ``reason`` says why there are no scores, where there are none.

    ``seconds``: the network's mean time per scan, all its windows. ``failed``: cases that
    could not be scored.
    """

    experiment: Experiment
    data: str
    reason: str = ""
    scores: Mapping[SurfaceConvention, Sequence[CaseScore]] | None = None
    parameters: int | None = None
    seconds: float | None = None
    failed: tuple[str, ...] = ()


def make_rows(figures: Sequence[PublishedFigure], results: Sequence[Result]) -> list[ReproducedFigure]:
    """Every published figure, and every figure of ours about an organ the paper reports.

    What the paper quotes of other groups comes last and has no figure of ours.
    """
    rows = [row for result in results for row in _of_experiment(figures, result)]
    covered = {_key(row) for row in rows}
    rows += [
        ReproducedFigure(
            experiment="",
            table=figure.table,
            method=figure.method,
            stage=figure.stage,
            data_set=figure.data_set,
            train_test=figure.train_test,
            organ=figure.organ,
            metric=figure.metric,
            published_mean=figure.mean,
            published_std=figure.std,
            note="another group's method" if figure.table == "state-of-the-art" else "not asked for",
        )
        for figure in figures
        if _key(figure) not in covered
    ]
    return rows


def _key(row: ReproducedFigure | PublishedFigure) -> tuple[str, ...]:
    return (row.method, row.stage, row.data_set, row.train_test, row.organ, row.metric)


def _of_experiment(figures: Sequence[PublishedFigure], result: Result) -> Iterator[ReproducedFigure]:
    one = result.experiment
    organs = dict.fromkeys(
        figure.organ
        for figure in figures
        if figure.organ
        and (figure.table, figure.method, figure.train_test) == (one.table, one.method, one.train_test)
    )
    summaries = {
        convention: {summary.organ: summary for summary in summarize(scores)}
        for convention, scores in (result.scores or {}).items()
    }
    areas = summaries.get(SurfaceConvention.AREA, {})
    contours = summaries.get(SurfaceConvention.CONTOUR, {})
    for organ in organs:
        for metric in MEASURES:
            yield _organ_row(figures, result, organ, metric, areas.get(organ), contours.get(organ))
    ours = {
        "parameters_million": None if result.parameters is None else result.parameters / 1e6,
        "inference_s": result.seconds,
    }
    for metric, value in ours.items():
        yield replace(
            _row(figures, result, "", metric), mean=value, note="" if value is not None else result.reason
        )


def _organ_row(
    figures: Sequence[PublishedFigure],
    result: Result,
    organ: str,
    metric: str,
    summary: OrganSummary | None,
    contour: OrganSummary | None,
) -> ReproducedFigure:
    printed = _row(figures, result, organ, metric)
    if summary is None:
        return replace(printed, note=result.reason or f"{organ} is not labelled")
    numbers: Distribution = getattr(summary, metric)
    distances = contour.s2s_mm if contour is not None and metric == "s2s_mm" else Distribution(n=0)
    return replace(
        printed,
        mean=numbers.mean,
        std=numbers.std,
        n=numbers.n,
        n_missed=summary.n_missed,
        n_spurious=summary.n_spurious,
        contour_mean=distances.mean,
        contour_std=distances.std,
        contour_n=distances.n if contour is not None and metric == "s2s_mm" else None,
        note="; ".join(
            ([f"could not be scored: {', '.join(result.failed)}"] if result.failed else [])
            + ([] if numbers.mean is not None else [f"no case has a number for {metric}"])
        ),
    )


def _row(figures: Sequence[PublishedFigure], result: Result, organ: str, metric: str) -> ReproducedFigure:
    """The published figure, with none of ours beside it yet."""
    one = result.experiment
    printed = find(
        figures, organ=organ, metric=metric, method=one.method, stage=one.stage, train_test=one.train_test
    )
    return ReproducedFigure(
        experiment=one.name,
        table=one.table,
        method=one.method,
        stage=one.stage,
        data_set=one.data_set,
        train_test=one.train_test,
        organ=organ,
        metric=metric,
        published_mean=printed.mean if printed else None,
        published_std=printed.std if printed else None,
        data=result.data,
    )
