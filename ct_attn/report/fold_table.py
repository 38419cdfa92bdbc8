"""The table of a cross-validation: organs and measures down, all cases and every fold across."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ct_attn import atomic
from ct_attn.metrics import CaseScore, OrganSummary
from ct_attn.report.paper_table import left_out
from ct_attn.report.score_files import write_record_json

#: The measures of the paper, and HD95.
MEASURES = ("dsc", "precision", "recall", "s2s_mm", "hd95_mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRow:
    """One measure of one organ over the cases of all folds.

    ``n`` cases have a number, and ``mean`` and ``std`` are over them; ``low`` and ``high``
    bound the bootstrap 95 % interval of the mean. The counts say in which state the cases
    are. ``fold_means``: the mean of each fold alone; ``fold_left_out``: how many of the fold's
    cases with the organ it leaves out, as they have no number (a missed organ has no distance).
    """

    organ: str
    measure: str
    n: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    n_scored: int
    n_missed: int
    n_spurious: int
    n_both_empty: int
    n_not_labelled: int
    fold_means: Mapping[int, float | None]
    fold_left_out: Mapping[int, int]


def fold_rows(
    pooled: Sequence[OrganSummary], by_fold: Mapping[int, Sequence[OrganSummary]]
) -> Iterator[FoldRow]:
    """The rows of the table, organ by organ."""
    for summary in pooled:
        of_folds = {
            fold: next((one for one in summaries if one.organ == summary.organ), None)
            for fold, summaries in by_fold.items()
        }
        for measure in MEASURES:
            numbers = getattr(summary, measure)
            yield FoldRow(
                organ=summary.organ,
                measure=measure,
                n=numbers.n,
                mean=numbers.mean,
                std=numbers.std,
                low=numbers.low,
                high=numbers.high,
                n_scored=summary.n_scored,
                n_missed=summary.n_missed,
                n_spurious=summary.n_spurious,
                n_both_empty=summary.n_both_empty,
                n_not_labelled=summary.n_not_labelled,
                fold_means={
                    fold: None if one is None else getattr(one, measure).mean
                    for fold, one in of_folds.items()
                },
                fold_left_out={
                    fold: 0 if one is None else left_out(one, getattr(one, measure))
                    for fold, one in of_folds.items()
                },
            )


def write_folds_csv(path: Path, rows: Sequence[FoldRow], folds: Sequence[int]) -> None:
    """One line per organ and measure; for each fold its mean and how many cases that leaves out."""
    names = [field.name for field in fields(FoldRow) if not field.name.startswith("fold_")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    of_folds = [column for fold in folds for column in (f"fold_{fold}", f"fold_{fold}_left_out")]
    writer.writerow([*names, *of_folds])
    for row in rows:
        cells = [getattr(row, name) for name in names]
        cells += [cell for fold in folds for cell in (row.fold_means[fold], row.fold_left_out[fold])]
        writer.writerow([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in cells])
    atomic.write_text(path, text.getvalue())


def write_folds_json(
    path: Path,
    record: Mapping[str, Any],
    *,
    rows: Sequence[FoldRow],
    summaries: Sequence[Mapping[str, Any]],
    scores: Mapping[int, Sequence[CaseScore]],
) -> None:
    """``record``, the rows, the full summaries and every case's scores with its fold."""
    cases = [{"fold": fold, **asdict(score)} for fold, of_fold in scores.items() for score in of_fold]
    table = [asdict(row) for row in rows]
    write_record_json(path, {**record, "table": table, "summary": list(summaries), "cases": cases})
