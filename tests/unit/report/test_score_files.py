"""Scores as CSV and JSON."""

from __future__ import annotations

import csv
import json

import pytest

from ct_attn.errors import UserError
from ct_attn.metrics.scores import CaseScore, State, SurfaceConvention
from ct_attn.metrics.statistics import summarize
from ct_attn.report.score_files import ScoreSettings, read_scores, write_scores_csv, write_scores_json

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


def test_what_was_written_is_read_again(tmp_path):
    settings = ScoreSettings(
        surface_convention=SurfaceConvention.VOXEL, count_empty=True, resampled=("a",), failed=("z",)
    )
    write_scores_json(tmp_path / "scores.json", SCORES, summarize(SCORES), settings)
    write_scores_csv(tmp_path / "scores.csv", SCORES)
    assert read_scores(tmp_path / "scores.json") == (SCORES, settings)
    assert read_scores(tmp_path / "scores.csv") == (SCORES, settings)  # as the JSON beside it says


@pytest.mark.parametrize("beside", [None, "{}", "of others"])
def test_a_csv_without_its_json_does_not_say_how_it_was_counted(tmp_path, beside):
    write_scores_csv(tmp_path / "scores.csv", SCORES)
    if beside == "of others":
        write_scores_json(tmp_path / "scores.json", SCORES[:1], summarize(SCORES[:1]))
    elif beside:
        (tmp_path / "scores.json").write_text(beside)
    assert read_scores(tmp_path / "scores.csv") == (SCORES, None)


def test_a_column_that_an_older_version_did_not_write_is_none(tmp_path):
    (tmp_path / "old.csv").write_text("case_id,organ,state,dsc\na,spleen,scored,0.5\n")
    [score], _ = read_scores(tmp_path / "old.csv")
    assert (score.dsc, score.hd_mm) == (0.5, None)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("s.csv", "a,b\n1,2\n", "KeyError"),
        ("s.csv", "case_id,organ,state,dsc\na,spleen,great,1\n", "great"),
        ("s.csv", "case_id,organ,state,dsc\na,spleen,scored,high\n", "high"),
        ("s.csv", "case_id,organ,state\na,spleen,missed\na,spleen,missed\n", "a spleen more often"),
        ("s.csv", "case_id,organ,state\n", "found none"),
        ("s.json", "{", "JSONDecodeError"),
        ("s.json", "[]", "something else"),
        ("s.json", '{"cases": [], "settings": {"surface_convention": "round"}}', "round"),
    ],
)
def test_what_holds_no_scores_is_refused(tmp_path, name, text, found):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=found):
        read_scores(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_scores(tmp_path / "scores.json")
