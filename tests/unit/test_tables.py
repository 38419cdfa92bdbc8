"""Tables for the terminal."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from ct_attn.metrics.comparison import PairedComparison
from ct_attn.metrics.scores import CaseScore, State
from ct_attn.metrics.statistics import summarize
from ct_attn.report.contact_sheet import SheetRow
from ct_attn.tables import comparison_tables, p_value, preparation_lines, summary_table


def shown(*scores):
    console = Console(width=80, record=True, file=StringIO())
    console.print(summary_table("title", summarize(scores)))
    return console.export_text()


def scored(case_id, dsc, s2s_mm):
    return CaseScore(
        case_id=case_id, organ="spleen", state=State.SCORED, dsc=dsc, precision=0.9, recall=0.8, s2s_mm=s2s_mm
    )


def test_mean_and_spread_fit_a_narrow_terminal():
    text = shown(scored("a", 0.8, 1.0), scored("b", 0.9, 2.0))
    assert "0.850 ± 0.07" in text
    assert "1.50 ± 0.7" in text
    assert "…" not in text
    assert "missed" not in text


def test_a_missed_organ_is_counted_beside_the_distance_it_has_no_part_in():
    missed = CaseScore(case_id="b", organ="spleen", state=State.MISSED, dsc=0.0, recall=0.0)
    text = shown(scored("a", 0.8, 1.0), missed)
    assert "0.400" in text
    assert "1.00" in text
    assert "1 of 2" in text
    assert "spleen: 1 missed, 0 spurious" in text
    assert "…" not in text


def test_an_organ_that_is_nowhere_scored_shows_a_dash():
    empty = CaseScore(case_id="a", organ="spleen", state=State.BOTH_EMPTY)
    assert "–" in shown(empty)


def compared(measure, **changed):
    numbers = {"difference": 0.0123, "low": -0.001, "high": 0.03, "p": 0.02, "p_holm": 0.0004,
               "wins": 9, "ties": 1, "losses": 2, "n": 12, "n_worst": 0}  # fmt: skip
    return PairedComparison(
        organ="left_kidney", measure=measure, first="unet", second="gates", **numbers | changed
    )


def test_a_comparison_fits_a_narrow_terminal_and_says_what_is_without_a_distance():
    console = Console(width=80, record=True, file=StringIO())
    missing = {"difference": None, "low": None, "high": None, "n_worst": 3}
    pairs = [compared("dsc", n_worst=2), compared("recall"), compared("s2s_mm", **missing)]
    [table] = comparison_tables(pairs)
    console.print(table)
    text = " ".join(console.export_text().split())
    assert "gates − unet" in text
    assert "left_kidney DSC +0.012 -0.001 to +0.030 < 0.001 9/1/2" in text
    assert "left_kidney DSC: 2 cases without (counted as worst)" in text
    assert "left_kidney S2S mm: 3 cases without" in text
    assert "S2S mm" in text
    assert "recall" not in text
    assert "…" not in text


def test_small_p_values_are_not_0():
    assert [p_value(p) for p in (1.0, 0.0321, 0.0001)] == ["1.000", "0.032", "< 0.001"]


def test_a_preparation_in_columns_with_marks_below():
    row = SheetRow(
        case_id="c1", part="fold 0", shape=(512, 512, 300), spacing_mm=(0.75, 0.75, 1.0), orientation="LPS",
        hu=(-2048, -1000, 5, 321, 3071), padding_voxels=0, volumes_ml={"pancreas": 24.6}, flips="front-back",
        corrections=(), marks=("pancreas of 25 ml",),
    )  # fmt: skip
    headings, values, mark = preparation_lines([row])
    for heading, value in (("case", "c1"), ("mm", "0.75x0.75x1"), ("HU 99 %", "321"), ("spleen ml", "–")):
        assert headings.index(heading) == values.index(value)
    assert mark == "marked    c1: pancreas of 25 ml"
