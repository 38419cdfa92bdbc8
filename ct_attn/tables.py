"""Scores as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ct_attn.metrics.statistics import MeanStd, OrganSummary


def summary_table(title: str, summaries: Sequence[OrganSummary]) -> Table:
    """DSC, precision, recall and S2S per organ as mean ± standard deviation, and who is left out."""
    table = Table(title=title, title_justify="left")
    table.add_column("organ")
    for heading in ("DSC", "precision", "recall", "S2S mm", "scored", "missed", "spurious"):
        table.add_column(heading, justify="right")
    for summary in summaries:
        table.add_row(
            summary.organ,
            *(_mean_std(score, 3) for score in (summary.dsc, summary.precision, summary.recall)),
            _mean_std(summary.s2s_mm, 2),
            *(str(count) for count in (summary.n_scored, summary.n_missed, summary.n_spurious)),
        )
    return table


def _mean_std(score: MeanStd, digits: int) -> str:
    if score.mean is None:
        return "–"
    spread = "" if score.std is None else f" ± {score.std:.{digits}f}"
    return f"{score.mean:.{digits}f}{spread}"
