from __future__ import annotations

import re

import numpy as np

from ct_attn.labels import ORGANS
from ct_attn.report.contact_sheet import SheetRow, write_contact_sheet
from ct_attn.report.page import CasePicture
from ct_attn.report.png import palette_png
from tests.unit.report.test_page import noise

PNG = palette_png(np.zeros((2, 3, 3), dtype=np.uint8), ())


def row(case_id, **fields):
    given = {
        "part": "fold 0", "shape": (512, 512, 300), "spacing_mm": (0.7, 0.7, 1.0), "orientation": "LPS",
        "hu": (-2048.0, -1024.0, 10.0, 300.0, 3071.0), "padding_voxels": 7, "volumes_ml": {"pancreas": 70.2},
        "flips": "front-back", "corrections": (), "marks": (),
    }  # fmt: skip
    return SheetRow(case_id=case_id, **(given | fields))


def written(path, **fields):
    given = {
        "title": "Some data", "facts": {"Cases": "2"}, "notices": ["case 9 is missing"], "refused": {},
        "rows": [row("a"), row("b", marks=("pancreas of 12 ml",), corrections=("one slice twice",))],
        "organs": ORGANS, "pictures": [CasePicture(case_id=name, png=PNG, alt="slices") for name in "ab"],
    }  # fmt: skip
    write_contact_sheet(path / "sheet.html", **(given | fields))
    return (path / "sheet.html").read_text()


def test_every_case_is_measured_seen_and_marked(tmp_path):
    page = written(tmp_path)
    for text in (
        "512×512×300 LPS",
        "0.70×0.70×1.00",
        "-2048 · -1024 · 10 · 300 · 3071",
        ">70.2<",
        "front-back",
    ):
        assert page.count(text) == 2
    assert page.count("data:image/png;base64,") == 2
    assert (
        page.count('<span class="loud">pancreas of 12 ml</span>') == 2
    )  # in the table and below the picture
    assert "one slice twice" in page
    assert "case 9 is missing" in page
    assert "Refused" not in page


def test_refusals_stand_on_top_and_nothing_is_taken_for_html(tmp_path):
    page = written(tmp_path, refused={"c": "found <b>"})
    assert "Refused: 1" in page
    assert "found &lt;b&gt;" in page


def test_the_same_input_gives_the_same_bytes_and_nothing_is_fetched(tmp_path):
    assert written(tmp_path) == written(tmp_path)
    assert "http" not in written(tmp_path).replace("http-equiv", "")


def test_marked_cases_come_first_and_rows_say_what_they_are_sorted_and_filtered_by(tmp_path):
    page = written(tmp_path)
    assert re.findall(r'<tr data-part="(.*?)" data-marked="(.*?)">', page) == [
        ("fold 0", "yes"),
        ("fold 0", "no"),
    ]
    assert re.findall(r"<figcaption><strong>(\w)", page) == ["b", "a"]
    assert page.count("<button") == 8 + len(ORGANS) + 2  # headings, and one to enlarge each picture
    assert 'data-table="cases-table"' in page
    assert 'id="cases-table"' in page
    assert page.count("<script>") == 1


def test_a_sheet_too_large_has_smaller_pictures_then_fewer_the_unmarked_first(tmp_path):
    names = "abcdef"
    given = {
        "rows": [row(name, marks=("odd",) if name == "f" else ()) for name in names],
        "pictures": [
            CasePicture(case_id=name, png=noise(seed, 80), alt=name) for seed, name in enumerate(names)
        ],
    }
    whole, bare = (len(written(tmp_path, **(given | more)).encode()) for more in ({}, {"pictures": []}))
    room = whole - bare
    smaller = written(tmp_path, **given, max_bytes=whole - room // 5)
    assert len(smaller.encode()) <= whole - room // 5
    sizes = re.findall(r'alt="(\w)" width="(\d+)"', smaller)
    assert [name for name, _ in sizes] == list("fabcde")
    assert sizes[0] == ("f", "80")
    assert sizes[-1] == ("e", "40")
    assert re.search(r"of 6 pictures \d at half their size; the folder pictures has all in full\.", smaller)
    fewer = written(tmp_path, **given, max_bytes=bare + room // 8)
    assert len(fewer.encode()) <= bare + room // 8
    left = re.findall(r'alt="(\w)" width="(\d+)"', fewer)
    assert [width for _, width in left] == ["40"] * len(left)
    assert "".join(name for name, _ in left) in ("f", "fa", "fab")
    assert f"of 6 pictures {len(left)} at half their size, {6 - len(left)} left out;" in fewer
