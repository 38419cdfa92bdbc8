"""The report of a comparison, its plots and tables."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from ct_attn.metrics.comparison import (
    HIGHER_IS_BETTER,
    VolumeAgreement,
    compare_runs,
    rank_runs,
    volume_agreement,
)
from ct_attn.metrics.scores import CaseScore, State, SurfaceConvention
from ct_attn.report.compare_page import write_comparison_report
from ct_attn.report.comparison_plots import bland_altman_plot, difference_plot, rank_colours, rank_plot
from ct_attn.report.definitions import s2s_by
from ct_attn.report.page import MEASURES, CasePicture
from ct_attn.report.paper_table import latex_table, markdown_table
from ct_attn.report.score_files import ScoreSettings
from tests.unit.report.test_legend import lab
from tests.unit.report.test_page import Page, noise


def score(case_id, dsc, s2s_mm):
    return CaseScore(
        case_id=case_id, organ="left_kidney", state=State.SCORED, dsc=dsc, precision=0.5, recall=0.5,
        s2s_mm=s2s_mm, hd95_mm=5.0, surface_dsc_2mm=0.9, truth_ml=100.0, predicted_ml=100 * dsc,
    )  # fmt: skip


MISSED = CaseScore(
    case_id="c", organ="left_kidney", state=State.MISSED, dsc=0.0, recall=0.0, surface_dsc_2mm=0.0,
    truth_ml=100.0, predicted_ml=0.0,
)  # fmt: skip
RUNS = {
    "U-Net & co_1": [score("a", 0.7, 2.0), score("b", 0.8, 1.0), MISSED],
    "gates": [score("a", 0.8, 1.5), score("b", 0.9, 0.5), score("c", 0.6, 3.0)],
}


def write(path, runs=RUNS, **changed):
    given = {
        "title": "Two runs",
        "facts": {"Cases": "3"},
        "settings": ScoreSettings(),
        "notes": ["said aloud"],
        "runs": runs,
        "pairs": compare_runs(runs),
        "rankings": rank_runs(runs),
        "agreements": [one for run, scores in runs.items() for one in volume_agreement(run, scores)],
    }
    write_comparison_report(path, **(given | changed))
    return path.read_text()


def test_it_holds_means_differences_and_what_a_distance_leaves_out(tmp_path):
    page = Page(write(tmp_path / "r.html"))
    runs = {row[0]: row[1:] for row in page.tables["runs"]}
    assert runs["left kidney DSC"] == ["0.500 ± 0.436", "0.767 ± 0.153"]
    assert runs["left kidney S2S mm"][0] == "1.50 ± 0.71 without 1"
    pairs = {row[0]: row[1:] for row in page.tables["pairs"]}
    assert pairs["DSC"][:3] == ["left kidney", "gates − U-Net & co_1", "0.267"]
    assert pairs["DSC"][-3:] == ["3", "0", "0"]
    assert pairs["S2S mm"][2:5] == ["-0.50", "-0.50 to -0.50", "2 and 1 without a number"]
    assert "said aloud" in page.words


def test_nothing_is_fetched_and_nothing_given_becomes_markup(tmp_path):
    evil = "<script>alert('x')</script>\"&"
    runs = {evil: RUNS["gates"], "b": [replace(one, case_id=evil) for one in RUNS["gates"]]}
    html = write(tmp_path / "r.html", {evil: runs["b"], "b": runs["b"]}, title=evil, notes=[evil])
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("script") == 1  # ours
    assert "://" not in html
    assert page.words.count(evil) > 6


def test_a_reader_without_eyes_gets_along(tmp_path):
    page = Page(write(tmp_path / "r.html"))
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    assert len(plots) == 6 + 6 + 2  # differences, rankings, volumes


@pytest.mark.parametrize("convention", SurfaceConvention)
def test_every_number_is_defined_as_its_convention_has_it(tmp_path, convention):
    settings = ScoreSettings(surface_convention=convention, count_empty=True)
    words = " ".join(Page(write(tmp_path / "r.html", settings=settings)).words.split())
    assert f"(convention {convention}" in words
    assert s2s_by(convention) in words
    assert "2 TP / (2 TP + FP + FN)" in words
    assert "both empty counts as DSC, Jaccard and surface DSC 1" in words
    assert "Centroids apart" not in words  # none is shown


def test_a_mean_that_leaves_scored_cases_out_does_not_call_them_missed(tmp_path):
    """By contour a scored organ may have no distance."""
    runs = {name: [replace(RUNS["gates"][0], s2s_mm=None), *RUNS["gates"][1:]] for name in "ab"}
    page = Page(write(tmp_path / "r.html", runs))
    rows = {row[0]: row[1:] for row in page.tables["runs"]}
    assert rows["left kidney S2S mm"][0].endswith("without 1")
    assert "missed or spurious</small>" not in (tmp_path / "r.html").read_text()


def test_a_page_too_large_leaves_the_last_pictures_out_and_says_so(tmp_path):
    pictures = [
        (case_id, [CasePicture(case_id=case_id, png=noise(seed), alt=f"{case_id} {seed}") for seed in (1, 2)])
        for case_id in ("first", "second")
    ]
    whole = write(tmp_path / "r.html", pictures=pictures)
    budget = len(whole.encode()) - 1000
    html = write(tmp_path / "r.html", pictures=pictures, max_bytes=budget)
    assert len(html.encode()) <= budget
    assert re.findall(r'<img [^>]*alt="([^"]*)"', html) == ["first 1", "first 2", "second 1"]
    assert "pictures of second are left out (1);" in html


@pytest.mark.parametrize("n_ranks", [2, 4, 7, 10])
def test_neighbouring_ranks_differ_in_brightness_and_their_words_can_be_read(n_ranks):
    colours = rank_colours(n_ranks)
    lightness = [lab(fill)[0] for fill, _ in colours]
    assert np.diff(lightness).max() < -6
    for fill, ink in colours:
        assert abs(lab(fill)[0] - lab(ink)[0]) > 40


def test_every_measure_that_is_compared_has_a_column():
    assert set(HIGHER_IS_BETTER) <= {column.field for column in MEASURES}


def test_a_difference_lies_right_of_0_by_its_size():
    pairs = [one for one in compare_runs(RUNS) if one.measure == "dsc"]
    pairs.append(replace(pairs[0], difference=2 * pairs[0].difference, low=None, high=None))
    svg = difference_plot(pairs, title="DSC")
    zero = float(re.findall(r'M([\d.]+) 4V\d+" stroke="currentColor" stroke-width', svg)[0])
    one, double = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg))
    assert double - zero == pytest.approx(2 * (one - zero), abs=0.2)
    assert one > zero
    assert "gates − U-Net &amp; co_1" in svg


def test_a_difference_that_is_not_defined_has_no_dot():
    pairs = [replace(compare_runs(RUNS)[0], difference=None, low=None, high=None)]
    assert "<circle" not in difference_plot(pairs, title="DSC")


def test_a_difference_says_how_many_cases_it_is_of():
    pairs = {pair.measure: pair for pair in compare_runs(RUNS)}
    assert ">gates − U-Net &amp; co_1, 3 of 3 cases<" in difference_plot([pairs["dsc"]], title="DSC")
    distance = difference_plot([pairs["s2s_mm"]], title="S2S")
    assert ">gates − U-Net &amp; co_1, 2 of 3 cases<" in distance
    assert "-0.5 in 2 of 3 cases</title>" in distance


def test_long_names_of_runs_have_a_line_for_themselves():
    short = compare_runs(RUNS)[0]
    long = replace(short, first="ct150_120_30_unet", second="ct150_120_30_attention_unet")
    svg = difference_plot([short, long], title="DSC")
    words = re.findall(r'<text x="2" y="([\d.]+)".*?</text>', svg)
    shown = re.findall(r"<tspan[^>]*>([^<]*)</tspan>", svg)
    assert shown[4:] == ["left kidney", "3 of 3 cases", "", f"{long.second} − {long.first}"]
    assert max(map(len, shown)) < 62
    heights = [float(y) for y in words] + [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(sorted(heights))]
    assert min(gaps) >= 12  # as high as the letters
    assert max(heights) < float(re.findall(r'M[\d.]+ 4V(\d+)"', svg)[0])


def test_bars_of_ranks_are_as_long_as_they_are_frequent():
    ranking = replace(rank_runs(RUNS)[0], frequencies={"U-Net & co_1": (0.25, 0.75), "gates": (1.0, 0.0)})
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"', rank_plot(ranking))]
    assert len(widths) == 3
    assert widths[0] == pytest.approx(widths[1] + widths[2], abs=0.2)
    assert widths[2] == pytest.approx(3 * widths[1], abs=0.2)


def test_every_case_and_the_limits_lie_inside_the_volume_plot():
    points = tuple((f"c{n}", 100.0 + 10 * n, (-1) ** n * 5.0 * n) for n in range(9))
    agreement = VolumeAgreement(
        run="a", organ="spleen", bias_ml=0.5, low_ml=-60.0, high_ml=61.0, points=points
    )
    svg = bland_altman_plot(agreement)
    assert svg.count("<circle") == 9
    wide, high = map(float, re.findall(r'viewBox="0 0 (\d+) (\d+)"', svg)[0])
    places = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert all(0 < float(x) < wide and 0 < float(y) < high for x, y in places)
    assert ">+61.0<" in svg
    assert ">-60.0<" in svg


def test_a_volume_plot_of_one_case_is_not_broken():
    agreement = VolumeAgreement(
        run="a", organ="spleen", bias_ml=0.0, low_ml=None, high_ml=None, points=(("c", 10.0, 0.0),)
    )
    assert bland_altman_plot(agreement).count("<circle") == 1


def test_the_tables_of_the_paper():
    markdown, latex = markdown_table(RUNS).splitlines(), latex_table(RUNS).splitlines()
    assert markdown[0] == "| | n | U-Net & co_1 | gates |"
    assert markdown[1] == "|---|---|---|---|"
    assert markdown[2] == "| Left kidney DSC | 3 | 0.500 ± 0.436 | 0.767 ± 0.153 |"
    assert markdown[5] == "| Left kidney S2S (mm) | 2 / 3 | 1.500 ± 0.707 (1 left out) | 1.667 ± 1.258 |"
    assert len(markdown) == 6
    assert latex[0] == r"\begin{tabular}{lrcc}"
    assert latex[2] == r"& n & U-Net \& co\_1 & gates \\"
    assert latex[4] == r"Left kidney DSC & 3 & 0.500 $\pm$ 0.436 & 0.767 $\pm$ 0.153 \\"
    assert latex[7].startswith(r"Left kidney S2S (mm) & 2 / 3 & 1.500")
    assert latex[-1] == r"\end{tabular}"


def test_notes_are_lines_below_the_table_and_comments_in_latex():
    notes = ["Left out of a: x_1, 50 % of it.", "torn\nin two"]
    markdown, latex = markdown_table(RUNS, notes), latex_table(RUNS, notes)
    assert markdown.endswith("|\n\n- Left out of a: x_1, 50 % of it.\n- torn in two\n")
    assert markdown.startswith(markdown_table(RUNS))
    assert latex == f"% {notes[0]}\n% torn in two\n" + latex_table(RUNS)


def test_an_organ_without_numbers_has_a_dash_in_the_table():
    runs = {name: [MISSED] for name in "ab"}
    assert "| Left kidney S2S (mm) | 0 | – (1 left out) | – (1 left out) |" in markdown_table(runs)
