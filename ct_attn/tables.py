"""Scores as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ct_attn.metrics.statistics import MeanStd, OrganSummary

ABSENT = ("missed", "spurious")


def summary_table(title: str, summaries: Sequence[OrganSummary]) -> Table:
    """DSC, precision, recall and S2S per organ as mean ± standard deviation.

    ``cases`` are those scored; missed and spurious organs, which a mean distance leaves
    out, get columns of their own when there are any.
    """
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("organ", no_wrap=True)
    absent = any(summary.n_missed or summary.n_spurious for summary in summaries)
    for heading in ("cases", "DSC", "precision", "recall", "S2S mm", *(ABSENT if absent else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in summaries:
        counts = (str(summary.n_missed), str(summary.n_spurious))
        table.add_row(
            summary.organ,
            str(summary.n_scored),
            *(_mean_std(score, 3) for score in (summary.dsc, summary.precision, summary.recall)),
            _mean_std(summary.s2s_mm, 2),
            *(counts if absent else ()),
        )
    return table


def _mean_std(score: MeanStd, digits: int) -> str:
    if score.mean is None:
        return "–"
    spread = "" if score.std is None else f" ± {score.std:.{digits}f}"
    return f"{score.mean:.{digits}f}{spread}"
