"""Scores as files for programs: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ct_attn import __version__, atomic
from ct_attn.metrics.scores import CaseScore
from ct_attn.metrics.statistics import OrganSummary


def write_scores_json(path: Path, scores: Sequence[CaseScore], summaries: Sequence[OrganSummary]) -> None:
    """The summary per organ and every case's scores; a number that is not defined is null."""
    record = {
        "version": __version__,
        "summary": [asdict(summary) for summary in summaries],
        "cases": [asdict(score) for score in scores],
    }
    atomic.write_text(path, json.dumps(record, indent=1) + "\n")


def write_scores_csv(path: Path, scores: Sequence[CaseScore]) -> None:
    """One line per case and organ; a number that is not defined is empty beside its state."""
    text = io.StringIO()
    names = [field.name for field in fields(CaseScore)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for score in scores:
        writer.writerow({name: _as_cell(getattr(score, name)) for name in names})
    atomic.write_text(path, text.getvalue())


def _as_cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
