"""Scores and data sets as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ct_attn.labels import ORGANS
from ct_attn.metrics.statistics import MeanStd, OrganSummary
from ct_attn.report.contact_sheet import SheetRow


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
    widths = [max(len(line[column]) for line in (headings, *cells)) for column in range(len(headings))]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in (headings, *cells)]
    return lines + [f"marked    {row.case_id}: {mark}" for row in rows for mark in row.marks]


def _absences(summaries: Sequence[OrganSummary]) -> Iterator[str]:
    for summary in summaries:
        if summary.n_missed or summary.n_spurious:
            yield (
                f"{summary.organ}: {summary.n_missed} missed, {summary.n_spurious} spurious "
                "(DSC 0; not in the distance)"
            )


def _mean_std(score: MeanStd, digits: int, spread_digits: int) -> str:
    if score.mean is None:
        return "–"
    spread = "" if score.std is None else f" ± {score.std:.{spread_digits}f}"
    return f"{score.mean:.{digits}f}{spread}"
