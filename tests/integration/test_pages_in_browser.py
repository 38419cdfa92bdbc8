"""Every page that the project writes, in a real browser: on the screen, on a phone, in the dark, on paper.

They are written from a few made-up numbers; test_report_in_browser.py looks into an evaluation's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ct_attn.published import published_figures
from ct_attn.report.legend import PALETTE
from ct_attn.report.page import CasePicture
from ct_attn.report.png import palette_png
from ct_attn.report.reproduction_table import make_lines, write_page
from ct_attn.report.run_page import WorstCase, write_run_report
from ct_attn.reproduction.table import make_rows
from tests.browser import DESKTOP, PHONE, Page, assert_not_blank, open_browser, require_chromium
from tests.unit.report import (
    test_calibration_page,
    test_compare_page,
    test_contact_sheet,
    test_page,
    test_run_page,
)


def picture(case_id: str) -> CasePicture:
    """A bright disc, so that it is seen on any page."""
    rows, columns = np.mgrid[-150:150, -200:200]
    rgb = np.repeat((np.hypot(rows, columns)[..., None] % 256).astype(np.uint8), 3, axis=2)
    return CasePicture(case_id=case_id, png=palette_png(rgb, PALETTE), alt=f"slices of {case_id}")


def evaluation(folder: Path) -> None:
    shown = test_page.illustration("case_c", "worst", png=picture("case_c").png)
    test_page.write(folder / "evaluation.html", illustrations=[shown])


def comparison(folder: Path) -> None:
    pictures = [(case_id, [picture(case_id), picture(case_id)]) for case_id in "ac"]
    test_compare_page.write(folder / "comparison.html", pictures=pictures)


def run(folder: Path) -> None:
    worst = [
        WorstCase(
            case_id=f"case_{n}", state=("scored", "scored"), dsc=(n / 10, 0.9 - n / 10), s2s_mm=(9.5, 2.5)
        )
        for n in range(6)
    ]
    worst[2] = WorstCase(
        case_id="case_2", state=("not labelled", "scored"), dsc=(np.nan, 0.5), s2s_mm=(np.nan, 2.5)
    )
    write_run_report(
        folder / "run.html", title="A run", facts={"network": "unet"}, log=test_run_page.LOG,
        targets=["pancreas", "spleen"], worst=worst, pictures=[picture("case_0"), picture("case_1")],
        strip=CasePicture(case_id="case_0", png=test_run_page.strip(), alt="after epochs 3, 6"),
    )  # fmt: skip


def contact_sheet(folder: Path) -> None:
    rows = [
        test_contact_sheet.row(name, marks=marks, volumes_ml={"pancreas": volume}, part=part)
        for name, marks, volume, part in (
            ("a", (), 70.0, "fold 0"), ("b", ("pancreas of 12 ml",), 12.0, "fold 1"),
            ("c", (), 101.5, "test"),
        )
    ]  # fmt: skip
    test_contact_sheet.written(folder, rows=rows, pictures=[picture(one.case_id) for one in rows])
    (folder / "sheet.html").rename(folder / "contact_sheet.html")


def reproduction(folder: Path) -> None:
    lines = make_lines(make_rows(published_figures(), []))
    write_page(folder / "reproduction.html", title="Tables", facts={"a": "b"}, notes=["a note"], lines=lines)


def calibration(folder: Path) -> None:
    test_calibration_page.written(folder, test_calibration_page.row(), test_calibration_page.row("spleen"))


WRITERS: tuple[Callable[[Path], None], ...] = (
    evaluation, comparison, run, contact_sheet, reproduction, calibration,
)  # fmt: skip
PAGES = tuple(writer.__name__ for writer in WRITERS)


#: The width of A4 between margins of 14 mm, upright and across, in CSS px.
PAPER_PX = (round((210 - 28) / 25.4 * 96), round((297 - 28) / 25.4 * 96))


@dataclass(frozen=True)
class Opened:
    page: Page
    folder: Path

    def open(self, name: str) -> Page:
        self.page.requests.clear()
        self.page.complaints.clear()
        self.page.show_as(*DESKTOP)
        self.page.open(self.folder / f"{name}.html")
        return self.page


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    require_chromium()
    folder = tmp_path_factory.mktemp("pages")
    for write in WRITERS:
        write(folder)
    with open_browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield Opened(page=page, folder=folder)


def test_every_template_of_a_page_is_opened_here():
    """A page that is added later has to be added here."""
    templates = Path(test_page.write_report.__code__.co_filename).parent.glob("*.html")
    whole = [one.name for one in templates if '{% extends "base.html" %}' in one.read_text()]
    assert len(whole) == len(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_asked_of_the_network_and_nothing_complains(opened, name):
    page = opened.open(name)
    asked = [url for url in page.requests if not url.startswith("data:")]
    assert asked == [(opened.folder / f"{name}.html").as_uri()]
    assert page.complaints == []


@pytest.mark.parametrize("name", PAGES)
def test_it_fits_and_is_not_blank_on_a_screen_and_a_phone_in_light_and_dark(opened, name):
    page = opened.open(name)
    for size in (DESKTOP, PHONE):
        for dark in (False, True):
            page.show_as(*size, dark=dark)
            assert page.run("document.documentElement.scrollWidth - innerWidth") <= 0
            assert_not_blank(page.screenshot(whole=True), dark=dark)


@pytest.mark.parametrize("name", PAGES)
def test_it_prints_on_pages_that_are_wide_enough(opened, name):
    page = opened.open(name)
    page.show_as(PAPER_PX[name == "reproduction"], 900, media="print")
    assert page.run("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.run("document.querySelector('.controls')?.offsetHeight ?? 0") == 0
    cut = "[...document.querySelectorAll('.wide')].filter((e) => getComputedStyle(e).overflow !== 'visible')"
    assert page.run(f"{cut}.length") == 0
    assert_not_blank(page.screenshot(whole=True))
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF-")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 12


def cells(page: Page, table: str, place: int) -> list[str]:
    return page.run(
        f"[...document.querySelectorAll('{table} tbody tr')].filter((row) => !row.hidden)"
        f".map((row) => row.cells[{place}].innerText.trim())"
    )


def choose(page: Page, name: str, value: str) -> None:
    page.run(
        f"(e => {{ e.value = '{value}'; e.dispatchEvent(new Event('input', {{ bubbles: true }})) }})"
        f"(document.querySelector('[name={name}]'))"
    )


def test_the_contact_sheet_sorts_and_filters_and_enlarges(opened):
    page = opened.open("contact_sheet")
    assert cells(page, ".cases", 0) == ["b", "a", "c"]  # what is marked comes first
    page.run("document.querySelectorAll('.cases thead button')[7].click()")
    assert cells(page, ".cases", 7) == ["12.0", "70.0", "101.5"]
    choose(page, "marked", "no")
    assert cells(page, ".cases", 0) == ["a", "c"]
    choose(page, "part", "test")
    assert cells(page, ".cases", 0) == ["c"]
    assert page.run("document.querySelector('.controls output').innerText") == "1 of 3"
    width = "document.querySelector('.zoom img').getBoundingClientRect().width"
    small = page.run(width)
    page.run("document.querySelector('.zoom').focus()")
    page.press("Enter", 13)
    assert page.run(width) > 1.5 * small
    assert page.complaints == []


def test_the_worst_cases_of_a_run_sort_and_enlarge(opened):
    page = opened.open("run")
    page.run("document.querySelectorAll('.worst thead button')[2].click()")
    values = cells(page, ".worst", 2)
    assert values == sorted(values)
    page.run("document.querySelectorAll('.worst thead button')[1].click()")
    page.run("document.querySelectorAll('.worst thead button')[1].click()")
    values = cells(page, ".worst", 1)
    assert values[:-1] == sorted(values[:-1], reverse=True)
    assert values[-1] == "not labelled"  # what is not there stays last
    small = page.run("document.querySelector('.zoom img').getBoundingClientRect().width")
    page.run("document.querySelector('.zoom').click()")
    assert page.run("document.querySelector('.zoom img').getBoundingClientRect().width") > 1.5 * small
