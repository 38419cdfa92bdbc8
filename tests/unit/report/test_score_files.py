"""Scores as CSV and JSON."""

from __future__ import annotations

import csv
import json

from ct_attn.metrics.scores import CaseScore, State
from ct_attn.metrics.statistics import summarize
from ct_attn.report.score_files import write_scores_csv, write_scores_json

SCORES = [
    CaseScore(case_id="a", organ="spleen", state=State.SCORED, dsc=0.75, s2s_mm=1.5),
    CaseScore(case_id="b", organ="spleen", state=State.MISSED, dsc=0.0),
]


def test_csv_has_a_row_per_score_and_leaves_what_is_not_defined_empty(tmp_path):
    write_scores_csv(tmp_path / "scores.csv", SCORES)
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case_id"], row["state"], row["dsc"], row["s2s_mm"]) for row in rows] == [
        ("a", "scored", "0.75", "1.5"),
        ("b", "missed", "0", ""),
    ]


def test_json_has_summary_and_cases_and_null_for_what_is_not_defined(tmp_path):
    write_scores_json(tmp_path / "scores.json", SCORES, summarize(SCORES))
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["cases"][1]["s2s_mm"] is None
    assert record["summary"][0]["dsc"]["mean"] == 0.375
    assert record["summary"][0]["n_missed"] == 1
