from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from ct_attn.labels import LabelScheme
from ct_attn.metrics import CaseScore, State, SurfaceConvention, summarize
from ct_attn.report.budget import MAX_PAGE_BYTES
from ct_attn.report.legend import PALETTE
from ct_attn.report.page import CasePicture, Illustration, half_size, worst_first, write_report
from ct_attn.report.plots import score_plot
from ct_attn.report.png import palette_png
from ct_attn.report.reduced import ReducedCase
from ct_attn.report.score_files import ScoreSettings

PNG = palette_png(np.zeros((30, 40, 3), dtype=np.uint8), PALETTE)
VOID = {"meta", "link", "img", "input"}


def scored(case_id: str, organ: str, dsc: float, s2s_mm: float = 1.5) -> CaseScore:
    numbers = {"dsc": dsc, "precision": 0.61, "recall": 0.62, "jaccard": 0.63, "accuracy": 0.99,
               "surface_dsc_1mm": 0.44, "surface_dsc_2mm": 0.64, "surface_dsc_3mm": 0.84,
               "directed_mean_mm": 1.6, "hd_mm": 9.5, "centroid_mm": 2.5,
               "volume_difference_ml": -0.08, "volume_difference_percent": -0.1}  # fmt: skip
    return CaseScore(
        case_id=case_id,
        organ=organ,
        state=State.SCORED,
        s2s_mm=s2s_mm,
        hd95_mm=7.25,
        truth_ml=80.04,
        predicted_ml=79.96,
        **numbers,
    )


MISSED = CaseScore(
    case_id="case_c",
    organ="pancreas",
    state=State.MISSED,
    dsc=0.0,
    recall=0.0,
    jaccard=0.0,
    accuracy=0.98,
    surface_dsc_1mm=0.0,
    surface_dsc_2mm=0.0,
    surface_dsc_3mm=0.0,
    volume_difference_ml=-80.0,
    volume_difference_percent=-100.0,
    truth_ml=80.0,
    predicted_ml=0.0,
)
SCORES = [
    scored("case_a", "pancreas", 0.8, s2s_mm=1.0),
    scored("case_b", "pancreas", 0.7, s2s_mm=2.0),
    MISSED,
    scored("case_a", "left_kidney", 0.95),
    CaseScore(case_id="case_b", organ="left_kidney", state=State.NOT_LABELLED),
    CaseScore(case_id="case_c", organ="left_kidney", state=State.BOTH_EMPTY),
]


def noise(seed: int, size_px: int = 60) -> bytes:
    """A picture that packs badly."""
    rgb = np.random.default_rng(seed).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    return palette_png(rgb, PALETTE)


class Page(HTMLParser):
    """What the tests look at: tags with their attributes, tables as words, and that all is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.open: list[str] = []
        self.words = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = self.tables.setdefault(str(dict(attributes)["class"]).split()[0], [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"style", "script"} & set(self.open):
            return
        self.words += data
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())


def illustration(case_id, rank, **picture):
    given = {"case_id": case_id, "png": PNG, "alt": f"Slices of {case_id}", "caption": "Contours"} | picture
    return Illustration(case_id=case_id, rank=rank, pictures=(CasePicture(**given),))


def write(path, scores=SCORES, **changed) -> str:
    given = {
        "title": "Fold 0",
        "facts": {"Model": "attention U-Net"},
        "scores": scores,
        "summaries": summarize(scores),
        "illustrations": [illustration("case_c", "worst")],
        "notes": ["a note"],
    }
    write_report(path, **(given | changed))
    return path.read_text(encoding="utf-8")


@pytest.fixture
def html(tmp_path) -> str:
    return write(tmp_path / "report.html")


def test_it_says_what_it_was_given(html):
    words = Page(html).words
    for given in ("Fold 0", "Model", "attention U-Net", "a note", "case_a", "case_b", "case_c", "pancreas"):
        assert given in words
    assert "left kidney" in words
    assert "2 TP / (2 TP + FP + FN)" in words


def test_the_summary_holds_means_and_what_they_leave_out(html):
    """Pancreas: DSC of 0.8, 0.7 and 0 is 0.5 ± 0.436; surfaces of two cases 1.5 ± 0.71 mm."""
    heading, *rows = Page(html).tables["summary"]
    pancreas, kidney = (dict(zip(heading, row, strict=True)) for row in rows)
    assert pancreas == {
        "Organ": "pancreas",
        "DSC": "0.500 ± 0.436",
        "Precision": "0.610 ± 0.000 without 1",
        "Recall": "0.413 ± 0.358",
        "S2S mm": "1.50 ± 0.71 without 1",
        "HD95 mm": "7.25 ± 0.00 without 1",
        "Surface DSC 2 mm": "0.427 ± 0.370",
        "Cases": "2 scored, 1 missed",
    }
    assert (kidney["DSC"], kidney["Cases"]) == ("0.950", "1 scored, 1 both empty, 1 not labelled")


def test_all_measures_come_with_intervals_medians_and_quartiles(html):
    heading, *rows = Page(html).tables["measures"]
    assert rows[0] == ["pancreas: 2 scored, 1 missed"]
    dsc = dict(zip(heading, rows[1], strict=True))
    assert re.fullmatch(r"0\.\d{3} to 0\.\d{3}", dsc.pop("95 % interval"))
    assert dsc == {
        "Measure": "DSC",
        "Mean": "0.500",
        "± std": "0.436",
        "Median": "0.700",
        "Quartiles": "0.350 to 0.750",
        "Cases": "3",
    }
    assert [row[0] for row in rows[1:16]] == [row[0] for row in rows[17:]]
    assert rows[17][1:] == ["0.950", "—", "—", "0.950", "0.950 to 0.950", "1"]


def test_an_organ_without_any_number_has_dashes_in_the_summary(tmp_path):
    html = write(tmp_path / "r.html", [SCORES[4]])
    assert Page(html).tables["summary"][1][1] == "—"


@pytest.mark.parametrize("convention", SurfaceConvention)
def test_it_says_what_a_surface_is_and_how_both_empty_counts(tmp_path, convention):
    asked = write(
        tmp_path / "a.html", settings=ScoreSettings(surface_convention=convention, count_empty=True)
    )
    assert f"(convention {convention}" in asked
    assert "both empty counts as DSC, Jaccard and surface DSC 1" in asked
    assert "both empty too" in write(tmp_path / "b.html")


def meanings(html: str) -> dict[str, str]:
    """The words of the page's definitions by their terms."""
    listed = html.split('<dl class="definitions">')[1].split("</dl>", maxsplit=1)[0]
    return {
        unescape(term): unescape(words) for term, words in re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", listed)
    }


def test_distances_are_defined_as_the_convention_has_them(tmp_path):
    """The words follow what ct_attn.metrics computes; only contour has no pooled average and no HD95."""
    area, voxel, contour = (
        meanings(write(tmp_path / "r.html", settings=ScoreSettings(surface_convention=convention)))
        for convention in SurfaceConvention
    )
    assert "both directions pooled and weighted by area" in area["S2S"]
    assert "both directions pooled, every boundary voxel counted once" in voxel["S2S"]
    assert "pooled" not in contour["S2S"]
    assert "the mean over these slices" in contour["S2S"]
    assert "at least 95 % of a surface's area" in area["HD95"]
    assert "interpolated" in voxel["HD95"]
    assert contour["HD95"] == contour["Surface DSC, 1, 2, 3 mm"] == "Not defined by this convention."
    assert "area that lies within 1, 2 or 3 mm" in area["Surface DSC, 1, 2, 3 mm"]
    assert "averaged over the slices" in contour["HD"]
    assert "no slice shows both contours" in contour["Missed, spurious"]
    assert "no slice shows both contours" not in area["Missed, spurious"]


def test_a_card_says_what_its_distances_leave_out(tmp_path):
    """Whether the organ was missed, or a scored one has no distance, as happens by contour."""
    html = write(tmp_path / "r.html", [*SCORES, replace(SCORES[0], case_id="d", hd95_mm=None)])
    pancreas, kidney = html.split('<ul class="cards">')[1].split("<h3>")[1:]
    assert [" ".join(re.sub("<.*?>", "", one).split()) for one in re.findall("<dd>(.*?)</dd>", pancreas)][
        :2
    ] == [
        "1.33 mm without 1",
        "7.2 mm without 2",
    ]
    assert "without" not in kidney.split("</li>")[0]


def test_cases_stand_worst_first_and_numbers_beside_their_columns(html):
    heading, *rows = Page(html).tables["cases"]
    assert [row[:4] for row in rows] == [
        ["case_c", "pancreas", "missed", "0.000"],
        ["case_b", "pancreas", "scored", "0.700"],
        ["case_a", "pancreas", "scored", "0.800"],
        ["case_a", "left kidney", "scored", "0.950"],
        ["case_b", "left kidney", "not labelled", "— not labelled"],
        ["case_c", "left kidney", "both empty", "— both empty"],
    ]
    assert dict(zip(heading, rows[2], strict=True)) == {
        "Case": "case_a",
        "Organ": "pancreas",
        "DSC": "0.800",
        "State": "scored",
        "Precision": "0.610",
        "Recall": "0.620",
        "Jaccard": "0.630",
        "S2S mm": "1.00",
        "HD95 mm": "7.25",
        "HD mm": "9.50",
        "Surface DSC 1 mm": "0.440",
        "Surface DSC 2 mm": "0.640",
        "Surface DSC 3 mm": "0.840",
        "Volume difference ml": "-0.1",
        "Volume difference %": "-0.1",
        "Centroids apart mm": "2.50",
        "Mean of directed averages mm": "1.60",
        "Accuracy": "0.99000",
        "Truth ml": "80.0",
        "Predicted ml": "80.0",
    }


def test_no_number_is_missing_without_its_state(html):
    heading, missed, *rows = Page(html).tables["cases"]
    cells = dict(zip(heading, missed, strict=True))
    assert cells["Recall"] == "0.000"
    assert {cells[name] for name in ("Precision", "S2S mm", "HD95 mm")} == {"— missed"}
    assert all(all(row) for row in rows)


def test_worst_first_keeps_the_order_of_equals_and_puts_no_dsc_last():
    without = SCORES[4]
    assert worst_first([without, SCORES[0], replace(SCORES[0], case_id="z"), MISSED]) == [
        MISSED,
        SCORES[0],
        replace(SCORES[0], case_id="z"),
        without,
    ]


def test_nothing_is_fetched(html):
    page = Page(html)
    links = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert sum(link.startswith("data:") for link in links) == 2  # the empty icon and the picture
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "://" not in html
    assert "url(" not in html
    assert "@import" not in html
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'")


def test_what_was_given_cannot_become_markup(tmp_path):
    evil = "<script>alert('x')</script>\"&"
    scores = [replace(SCORES[0], case_id=evil), replace(SCORES[0], organ=evil)]
    shown = illustration(evil, evil, alt=evil, caption=evil)
    html = write(
        tmp_path / "r.html", scores, title=evil, facts={evil: evil}, illustrations=[shown], notes=[evil]
    )
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("script") == 1  # ours
    assert page.words.count(evil) >= 9  # title twice, note, fact and value, tables, plots, picture
    assert next(attributes["alt"] for tag, attributes in page.tags if tag == "img") == evil


def test_the_same_input_gives_the_same_bytes(tmp_path, html):
    again = write(tmp_path / "elsewhere" / "again.html")
    assert again == html
    assert str(tmp_path) not in html


def test_a_reader_without_eyes_or_mouse_gets_along(html):
    page = Page(html)
    assert page.tags[0] == ("html", {"lang": "en"})
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [(picture["alt"], picture["width"], picture["height"]) for picture in pictures] == [
        ("Slices of case_c", "40", "30")
    ]
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    assert len(plots) == 2 + 4 + 2  # a bar per card, the measures, the volumes
    buttons = sum(tag == "button" for tag, _ in page.tags)
    assert buttons == len(page.tables["cases"][0]) + 1  # and one to enlarge the picture
    assert [attributes for tag, attributes in page.tags if "aria-sort" in attributes] == [
        {"scope": "col", "aria-sort": "ascending"}
    ]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 4
    labels = {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes}
    assert labels <= set(ids)


def test_sorting_has_the_whole_number_and_nothing_for_a_gap(html):
    values = re.findall(r'<td[^>]* data-value="([^"]*)"', html)
    assert "80.04" in values
    assert values.count("") == 6 + 17 + 17  # the missed one, the one not labelled, both empty


def test_a_report_without_pictures_and_notes_has_no_empty_sections(tmp_path):
    html = write(tmp_path / "r.html", illustrations=[], notes=[], facts={})
    assert 'id="pictures"' not in html
    assert 'class="note"' not in html
    assert 'id="viewer"' not in html


def test_a_shown_case_is_linked_from_its_rows_and_says_why_it_was_chosen(html):
    assert html.count('<a href="#shown-0">case_c</a>') == 2
    assert '<span class="rank">worst</span>' in html
    assert "<figcaption>Contours</figcaption>" in html


def test_the_viewer_travels_with_its_cases_and_its_licence(tmp_path):
    scheme = LabelScheme.from_names({"pancreas": 1})
    reduced = ReducedCase(scan="QUJD", truth="REVG", predicted="R0hJ", scheme=scheme, step_mm=(2.0, 2.0, 2.5))
    shown = Illustration(case_id="case_c", rank="worst", viewer=reduced)
    html = write(tmp_path / "r.html", illustrations=[shown])
    [case] = json.loads(re.findall(r'id="viewer-data">(.*?)</script>', html, re.DOTALL)[0])
    assert case["name"] == "case_c (worst)"
    assert (case["scan"], case["truth"], case["predicted"]) == ("QUJD", "REVG", "R0hJ")
    assert case["organs"] == [{"code": 1, "name": "pancreas", "colour": PALETTE[0]}]
    packed = re.findall(r'id="viewer-script">(.*?)</script>', html, re.DOTALL)[0]
    assert b"niivue" in gzip.decompress(b64decode(packed))
    assert "BSD 2-Clause License" in html
    assert "://" not in html


@pytest.fixture
def crowd():
    """Nine cases, worst first, each with two pictures that pack badly and the first with a viewer's data."""
    interest = [0, 3, 4, 5, 1, 6, 7, 8, 2]  # the worst, the median, the best, and from the second worst on
    cases = []
    for place, rank in enumerate(interest):
        case_id = f"case_{place}"
        pictures = tuple(
            CasePicture(case_id=case_id, png=noise(2 * place + n), alt=f"{place} {n}") for n in range(2)
        )
        cases.append(Illustration(case_id=case_id, rank=str(rank), interest=rank, pictures=pictures))
    scheme = LabelScheme.from_names({"pancreas": 1})
    reduced = ReducedCase(scan="QUJD" * 3000, truth="", predicted="", scheme=scheme, step_mm=(2.0, 2.0, 2.5))
    return [replace(cases[0], viewer=reduced), *cases[1:]]


def shown_in(html: str) -> list[str]:
    return re.findall(r'<img [^>]*alt="([^"]*)"', html)


def test_a_page_too_large_leaves_out_what_is_of_least_interest_and_says_so(tmp_path, crowd):
    whole = write(tmp_path / "r.html", illustrations=crowd)
    picture = len(crowd[0].pictures[0].data_uri)
    budget = len(whole.encode()) - int(4.5 * picture)
    html = write(tmp_path / "r.html", illustrations=crowd, max_bytes=budget)
    assert budget - 2 * picture < len(html.encode()) <= budget
    assert shown_in(html) == [
        "0 0",
        "0 1",
        "1 0",
        "1 1",
        "2 0",
        "2 1",
        "3 0",
        "3 1",
        "4 0",
        "4 1",
        "5 0",
        "8 0",
        "8 1",
    ]
    assert "5 pictures are left out: those of case_7, case_6, case_5." in Page(html).words
    assert 'id="viewer"' in html
    assert "left out" not in Page(whole).words.split("Definitions")[0]


def test_the_worst_case_is_seen_longest_and_numbers_are_never_left_out(tmp_path, crowd):
    bare = len(write(tmp_path / "r.html", illustrations=[]).encode())
    one = bare + 2 * len(crowd[0].pictures[0].data_uri)
    assert shown_in(write(tmp_path / "r.html", illustrations=crowd, max_bytes=one)) == ["0 0"]
    html = write(tmp_path / "r.html", illustrations=crowd, max_bytes=1)
    assert shown_in(html) == []
    assert 'id="viewer"' not in html
    assert len(Page(html).tables["cases"]) == 1 + len(SCORES)
    assert "18 pictures and 1 case of the viewer are left out" in html


def test_a_page_has_room_for_less_than_20_mb():
    assert MAX_PAGE_BYTES < 20e6


def test_half_a_picture_is_the_average_of_its_blocks():
    rgb = np.zeros((4, 6, 3), dtype=np.uint8)
    rgb[:2, :2] = 255
    small = half_size(CasePicture(case_id="a", png=palette_png(rgb, PALETTE), alt="b", caption="c"))
    assert (small.size_px, small.alt, small.caption) == ((3, 2), "b", "c")
    assert imread(BytesIO(small.png))[..., 0].round().tolist() == [[1, 0, 0], [0, 0, 0]]


def test_an_older_report_is_replaced(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("yesterday's")
    assert "yesterday's" not in write(path)
    assert list(tmp_path.iterdir()) == [path]


def circles(svg: str, organ_colour: str) -> list[tuple[float, str]]:
    """x and fill of the dots of one organ."""
    found = re.findall(r'<circle cx="([\d.]+)" cy="[\d.]+" r="4.2" fill="([^"]+)"[^>]*stroke="([^"]+)"', svg)
    return [(float(x), fill) for x, fill, stroke in found if stroke == organ_colour]


def test_a_plot_has_a_dot_for_each_case_with_a_value():
    """On the axis from 0 to 1 the dots of 0, 0.7 and 0.8 lie as 7 : 1."""
    svg = score_plot(SCORES)
    (good, full), (fair, _), (none, hollow) = circles(svg, PALETTE[0])
    assert (full, hollow) == (PALETTE[0], "none")
    assert (fair - none) / (good - fair) == pytest.approx(7, abs=0.05)
    assert len(circles(svg, PALETTE[1])) == 1
    assert "<title>case_c: 0 (missed)</title>" in svg
    assert ">3 of 3 cases<" in svg
    assert ">1 of 3 cases<" in svg


def test_a_plot_of_distances_has_no_dot_for_a_missed_organ_and_marks_the_median():
    svg = score_plot(SCORES, measure="s2s_mm")
    (low, _), (high, _) = circles(svg, PALETTE[0])
    marks = [float(x) for x in re.findall(r'<path d="M([\d.]+) [\d.]+v38"', svg)]
    assert marks[0] == pytest.approx((low + high) / 2, abs=0.11)
    assert ">1.5</text>" in svg
    assert ">2 of 3 cases<" in svg


def test_a_box_holds_the_middle_half_and_whiskers_leave_outliers_out():
    """Of 0.1, 0.5, 0.6, 0.7, 0.8 the quartiles are 0.5 and 0.7; 0.1 lies more than 0.3 below the box."""
    values = (0.1, 0.5, 0.6, 0.7, 0.8)
    svg = score_plot([scored(f"case_{n}", "spleen", dsc) for n, dsc in enumerate(values)])
    x = [place for place, _ in circles(svg, PALETTE[0])]
    start, width = map(
        float, re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="34"', svg)[0]
    )
    assert (start, start + width) == pytest.approx((x[1], x[3]), abs=0.11)
    whiskers = re.findall(
        r'<path d="M([\d.]+) [\d.]+H([\d.]+)" stroke="currentColor" stroke-opacity=".55"', svg
    )
    assert [float(end) for pair in whiskers for end in pair] == pytest.approx(
        [x[1], x[1], x[3], x[4]], abs=0.11
    )


def test_every_dot_lies_inside_its_plot():
    scores = [scored(f"case_{n}", "spleen", 1.0, s2s_mm=0.3 * n) for n in range(12)]
    for svg in (score_plot(scores), score_plot(scores, measure="s2s_mm")):
        width, height = map(float, re.findall(r'viewBox="0 0 (\d+) (\d+)"', svg)[0])
        places = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]
        assert len(places) == 12
        assert all(5 < x < width - 5 and 5 < y < height - 5 for x, y in places)


def test_plots_without_any_value_are_empty_not_broken():
    svg = score_plot([SCORES[4]], measure="s2s_mm")
    assert "<circle" not in svg
    assert ">0 of 1 cases<" in svg
