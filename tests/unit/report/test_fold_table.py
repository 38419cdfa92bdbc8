from __future__ import annotations

import csv
import json

import pytest

from ct_attn.metrics.scores import CaseScore, State
from ct_attn.metrics.statistics import summarize
from ct_attn.report.fold_table import MEASURES, fold_rows, write_folds_csv, write_folds_json
from ct_attn.tables import fold_lines


def score(case_id, dsc, organ="spleen", state=State.SCORED, s2s_mm=None):
    return CaseScore(
        case_id=case_id, organ=organ, state=state, dsc=dsc, precision=0.5, recall=0.25, s2s_mm=s2s_mm,
        hd95_mm=4.0, surface_dsc_2mm=0.5, truth_ml=100.0, predicted_ml=90.0,
    )  # fmt: skip


#: Fold 1 has no case with a pancreas.
SCORES = {
    0: [score("a", 0.6), score("b", 0.8), score("a", 0.4, "pancreas")],
    1: [score("c", 1.0), score("d", 0.0, state=State.MISSED)],
}


@pytest.fixture
def rows():
    pooled = summarize([one for scores in SCORES.values() for one in scores])
    return list(fold_rows(pooled, {fold: summarize(scores) for fold, scores in SCORES.items()}))


def test_every_organ_has_a_row_for_every_measure(rows):
    assert [(row.organ, row.measure) for row in rows] == [
        (organ, measure) for organ in ("spleen", "pancreas") for measure in MEASURES
    ]


def test_the_mean_is_over_cases_and_not_over_folds(rows):
    spleen, pancreas = rows[0], rows[len(MEASURES)]
    assert spleen.mean == pytest.approx((0.6 + 0.8 + 1.0 + 0.0) / 4)
    assert spleen.fold_means == pytest.approx({0: 0.7, 1: 0.5})
    assert (spleen.n, spleen.n_scored, spleen.n_missed) == (4, 3, 1)
    assert spleen.low < spleen.mean < spleen.high
    assert pancreas.fold_means == {0: 0.4, 1: None}


def test_a_mean_distance_of_a_fold_says_what_it_leaves_out(tmp_path):
    """A fold with a missed organ may have the better mean distance."""
    missed = score("d", 0.0, state=State.MISSED)
    scores = {
        0: [score("a", 0.6, s2s_mm=3.0), score("b", 0.8, s2s_mm=1.0)],
        1: [score("c", 1.0, s2s_mm=1.5), missed, score("e", 0.1, state=State.SPURIOUS)],
    }
    pooled = summarize([one for of_fold in scores.values() for one in of_fold])
    rows = list(fold_rows(pooled, {fold: summarize(of_fold) for fold, of_fold in scores.items()}))
    by_measure = {row.measure: row for row in rows}
    assert by_measure["s2s_mm"].fold_means == {0: 2.0, 1: 1.5}
    assert by_measure["s2s_mm"].fold_left_out == {0: 0, 1: 2}
    assert by_measure["dsc"].fold_left_out == {0: 0, 1: 0}
    write_folds_csv(tmp_path / "folds.csv", rows, [0, 1])
    with (tmp_path / "folds.csv").open() as file:
        read = {row["measure"]: row for row in csv.DictReader(file)}
    assert [read["s2s_mm"][name] for name in ("fold_0", "fold_0_left_out", "fold_1", "fold_1_left_out")] == [
        "2", "0", "1.5", "2",
    ]  # fmt: skip
    [distances] = [line for line in fold_lines(rows) if "S2S" in line]
    assert distances.split("  ")[-1].strip() == "1.50 (2 out)"
    assert "2.00" in distances
    [dsc] = [line for line in fold_lines(rows) if "DSC " in line and "missed" not in line]
    assert "out" not in dsc


def test_the_csv_has_a_column_for_each_fold_and_nothing_where_nothing_is_known(rows, tmp_path):
    write_folds_csv(tmp_path / "folds.csv", rows, [0, 1])
    with (tmp_path / "folds.csv").open() as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(rows)
    assert (read[0]["fold_0"], read[0]["fold_1"], read[0]["mean"]) == ("0.7", "0.5", "0.6")
    assert (read[len(MEASURES)]["fold_0"], read[len(MEASURES)]["fold_1"]) == ("0.4", "")
    distance = read[MEASURES.index("s2s_mm")]
    assert (distance["n"], distance["mean"]) == ("0", "")


def test_the_json_holds_rows_and_every_case_with_its_fold(rows, tmp_path):
    path = tmp_path / "folds.json"
    write_folds_json(path, {"manifest": "m"}, rows=rows, summaries=[{"fold": 0}], scores=SCORES)
    read = json.loads(path.read_text())
    assert read["manifest"] == "m"
    assert len(read["table"]) == len(rows)
    assert [(case["fold"], case["case_id"], case["organ"]) for case in read["cases"]] == [
        (0, "a", "spleen"), (0, "b", "spleen"), (0, "a", "pancreas"), (1, "c", "spleen"), (1, "d", "spleen"),
    ]  # fmt: skip
    assert read["summary"] == [{"fold": 0}]
