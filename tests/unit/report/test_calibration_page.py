from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from ct_attn.report.calibration_page import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    BinRow,
    OrganRow,
    confidence_plot,
    write_calibration_report,
)
from ct_attn.report.legend import PALETTE

POINTS = ((0.8, 0.5), (0.9, 0.75), (1.0, 1.0))
BINS = (
    BinRow(low=0.8, high=0.9, n_cases=2, mean_dsc=0.625),
    BinRow(low=1.0, high=1.0, n_cases=1, mean_dsc=1.0),
)


def row(organ="left_kidney", **fields):
    given = {
        "filter": "largest+2ml", "n_cases": 3, "dsc_without": 0.71234, "dsc_with": 0.75,
        "rank_correlation": 0.875, "points": POINTS, "bins": BINS,
    }  # fmt: skip
    return OrganRow(organ=organ, **(given | fields))


def plot(one, names=("spleen", "left_kidney")):
    return ElementTree.fromstring(confidence_plot(one, names=list(names)))


def written(path, *rows, **fields):
    given = {"title": "Calibration of a<b", "facts": {"Model": "sha256:abc"}}
    write_calibration_report(path / "calibration.html", organs=rows, **(given | fields))
    return (path / "calibration.html").read_text()


def test_filters_confidence_and_bins_of_every_organ_are_told(tmp_path):
    page = written(tmp_path, row(), row("spleen", filter="off"))
    for text in ("left kidney", "spleen", "largest+2ml", "0.7123", "0.7500", "0.88", "0.625", "sha256:abc"):
        assert text in page
    assert page.count("<svg") == 2
    assert page.count("3 cases") == 2


def test_an_organ_of_which_nothing_is_known_has_a_row_and_no_plot(tmp_path):
    unknown = row("pancreas", n_cases=0, dsc_without=None, dsc_with=None, rank_correlation=None,
                  points=(), bins=())  # fmt: skip
    page = written(tmp_path, unknown, row())
    assert ">pancreas</th>" in page
    assert page.count("<svg") == 1
    assert "None" not in page


def test_what_the_page_is_given_is_escaped_and_gives_the_same_bytes_again(tmp_path):
    page = written(tmp_path, row(), facts={"Model": "<script>alert(1)</script>"})
    assert "a&lt;b" in page
    assert "<script>alert(1)" not in page
    assert page == written(tmp_path, row(), facts={"Model": "<script>alert(1)</script>"})


def test_a_dot_for_each_case_stands_at_its_confidence_and_dsc():
    dots = plot(row()).findall("circle")
    assert [dot.get("fill") for dot in dots] == [PALETTE[1]] * 3
    heights = [float(dot.get("cy")) for dot in dots]
    assert heights == pytest.approx([BOTTOM - (BOTTOM - TOP) * dsc for _, dsc in POINTS], abs=0.06)
    places = [float(dot.get("cx")) for dot in dots]
    assert LEFT <= places[0] < places[1] < places[2] == pytest.approx(RIGHT)
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.11)
    assert dots[0].find("title").text == "confidence 0.8000, DSC 0.500"


def test_a_line_joins_the_means_of_the_bins():
    drawn = plot(row())
    (line,) = drawn.findall("polyline")
    points = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
    assert [y for _, y in points] == pytest.approx([BOTTOM - 240 * 0.625, TOP], abs=0.06)
    dots = [float(dot.get("cx")) for dot in drawn.findall("circle")]
    assert points[0][0] == pytest.approx((dots[0] + dots[1]) / 2, abs=0.11)
    assert not plot(row(bins=())).findall("polyline")


@pytest.mark.parametrize("lowest", [0.0, 0.31, 0.9, 0.9995, 1.0])
def test_dots_and_ticks_stay_inside_however_sure_a_model_is(lowest):
    drawn = plot(row(points=((lowest, 0.0), (1.0, 1.0)), bins=()))
    for dot in drawn.findall("circle"):
        assert LEFT - 0.1 <= float(dot.get("cx")) <= RIGHT + 0.1
        assert TOP - 0.1 <= float(dot.get("cy")) <= BOTTOM + 0.1
    texts = [text.text for text in drawn.findall("text")]
    numbers = [float(text) for text in texts if re.fullmatch(r"[\d.]+", text)]
    assert all(0 <= number <= 1 for number in numbers)


def test_the_plot_says_in_words_what_it_shows():
    assert plot(row()).get("aria-label") == "DSC of left kidney over its confidence, a dot per case"
