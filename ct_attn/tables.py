"""Scores and data sets as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ct_attn.labels import ORGANS
from ct_attn.metrics.comparison import PairedComparison
from ct_attn.metrics.statistics import Distribution, OrganSummary
from ct_attn.prediction.postprocessing import Postprocessing
from ct_attn.report.contact_sheet import SheetRow
from ct_attn.report.fold_table import FoldRow
from ct_attn.report.reproduction_table import HEADINGS, Line

#: What the terminal shows of a comparison; its files hold all.
SHORT_NAMES = {"dsc": "DSC", "s2s_mm": "S2S mm"}
#: Of the measures of a cross-validation, and the digits each is shown with.
FOLD_MEASURES = {
    "dsc": ("DSC", 3), "precision": ("precision", 3), "recall": ("recall", 3),
    "s2s_mm": ("S2S mm", 2), "hd95_mm": ("HD95 mm", 2),
}  # fmt: skip


def summary_table(title: str, summaries: Sequence[OrganSummary]) -> Table:
    """DSC, precision, recall and S2S per organ as mean ± standard deviation.

    ``scored`` counts the cases in which truth and prediction both hold the organ; below
    the table stands how many of the others were missed or are spurious, which a mean
    distance leaves out.
    """
    table = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("organ", no_wrap=True)
    for heading in ("scored", "DSC", "precision", "recall", "S2S mm"):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in summaries:
        table.add_row(
            summary.organ,
            f"{summary.n_scored} of {summary.n_scored + summary.n_missed + summary.n_spurious}",
            *(_mean_std(score, 3, 2) for score in (summary.dsc, summary.precision, summary.recall)),
            _mean_std(summary.s2s_mm, 2, 1),
        )
    table.caption = "\n".join(_absences(summaries))
    return table


def fold_lines(rows: Sequence[FoldRow]) -> list[str]:
    """Mean ± standard deviation over the cases of all folds, the interval of the mean, every fold's mean.

    Plain lines, as there may be any number of folds. A fold's mean says how many cases it leaves
    out, and below stands which cases the distances leave out.
    """
    folds = rows[0].fold_means if rows else {}
    headings = (
        "organ",
        "measure",
        "cases",
        "mean ± std",
        "95 % interval",
        *(f"fold {fold}" for fold in folds),
    )
    cells = []
    for row in rows:
        name, digits = FOLD_MEASURES[row.measure]
        cells.append(
            (
                row.organ,
                name,
                str(row.n),
                _number(row.mean, digits) + ("" if row.std is None else f" ± {row.std:.{digits}f}"),
                "–" if row.low is None else f"{row.low:.{digits}f} to {row.high:.{digits}f}",
                *(
                    _number(mean, digits)
                    + (f" ({row.fold_left_out[fold]} out)" if row.fold_left_out[fold] else "")
                    for fold, mean in row.fold_means.items()
                ),
            )
        )
    gaps = {row.organ: row for row in rows if row.n_missed or row.n_spurious}
    return _in_columns([headings, *cells]) + [
        f"{organ}: {row.n_missed} missed, {row.n_spurious} spurious (DSC 0; not in the distances)"
        for organ, row in gaps.items()
    ]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def comparison_tables(pairs: Sequence[PairedComparison]) -> list[Table]:
    """For each two runs, what the later one gains in DSC and S2S, its interval, and what the test says.

    Cases in which a run has no distance count as its worst in the test and the counts.
    """
    tables: dict[str, Table] = {}
    for pair in pairs:
        if pair.measure not in SHORT_NAMES:
            continue
        title = f"{pair.second} − {pair.first}"
        table = tables.setdefault(title, _empty_comparison(title))
        table.add_row(
            pair.organ,
            SHORT_NAMES[pair.measure],
            "–" if pair.difference is None else f"{pair.difference:+.3f}",
            "–" if pair.low is None else f"{pair.low:+.3f} to {pair.high:+.3f}",
            p_value(pair.p_holm),
            f"{pair.wins}/{pair.ties}/{pair.losses}",
        )
        if pair.n_worst:
            gap = f"{pair.organ} {SHORT_NAMES[pair.measure]}: {pair.n_worst} cases without (counted as worst)"
            table.caption = f"{table.caption}\n{gap}" if table.caption else gap
    return list(tables.values())


def calibration_table(learnt: Postprocessing) -> Table:
    """The filter chosen for each organ, what it brings, and how confidence goes with DSC."""
    title = f"{learnt.n_cases} validation cases"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("organ", "filter"):
        table.add_column(heading, no_wrap=True)
    for heading in ("cases", "DSC without", "DSC with", "rank correlation of confidence and DSC"):
        table.add_column(heading, justify="right")
    for organ, choice in learnt.filters.items():
        numbers = (choice.dsc_without, choice.dsc_with, learnt.calibration[organ].rank_correlation)
        table.add_row(
            organ,
            choice.filter.describe(),
            str(choice.n_cases),
            *("–" if number is None else f"{number:.3f}" for number in numbers),
        )
    return table


def _empty_comparison(title: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("organ", "measure"):
        table.add_column(heading, no_wrap=True)
    for heading in ("difference", "95 % interval", "p (Holm)", "+ / = / −"):
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def preparation_lines(rows: Sequence[SheetRow]) -> list[str]:
    """Size, spacing, HU, volumes and the flip taken of each prepared case; below, what is marked.

    Plain lines in columns, since a table this wide would be cut where no terminal is.
    """
    headings = ("case", "size", "mm", "HU 1 %", "HU 99 %", *(f"{organ} ml" for organ in ORGANS), "flip")
    cells = [
        (
            row.case_id,
            "x".join(map(str, row.shape)),
            "x".join(f"{step:.3g}" for step in row.spacing_mm),
            f"{row.hu[1]:.0f}",
            f"{row.hu[3]:.0f}",
            *(f"{row.volumes_ml[organ]:.0f}" if organ in row.volumes_ml else "–" for organ in ORGANS),
            row.flips,
        )
        for row in rows
    ]
    lines = _in_columns([headings, *cells])
    return lines + [f"marked    {row.case_id}: {mark}" for row in rows for mark in row.marks]


def reproduction_lines(lines: Sequence[Line]) -> list[str]:
    """The published figures of every network, stage and organ, and ours in the line below."""
    rows: list[Sequence[str]] = [(*HEADINGS, "Note")]
    for line in lines:
        rows.append((*line.about, "published", *line.published, ""))
        rows.append((*[""] * len(line.about), "ours", *line.ours, line.note))
    return _in_columns(rows)


def _in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _absences(summaries: Sequence[OrganSummary]) -> Iterator[str]:
    for summary in summaries:
        if summary.n_missed or summary.n_spurious:
            yield (
                f"{summary.organ}: {summary.n_missed} missed, {summary.n_spurious} spurious "
                "(DSC 0; not in the distance)"
            )


def _mean_std(score: Distribution, digits: int, spread_digits: int) -> str:
    if score.mean is None:
        return "–"
    spread = "" if score.std is None else f" ± {score.std:.{spread_digits}f}"
    return f"{score.mean:.{digits}f}{spread}"
