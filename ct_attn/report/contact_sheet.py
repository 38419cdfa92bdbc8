"""The contact sheet of a prepared data set: every case measured and seen, the odd ones marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ct_attn.atomic import write_text
from ct_attn.report.budget import MAX_PAGE_BYTES, fit_page
from ct_attn.report.legend import colour_of
from ct_attn.report.page import CasePicture, half_size, page_template


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetRow:
    """A case on the sheet. ``volumes_ml`` by organ; ``marks`` say what is worth a look."""

    case_id: str
    part: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    hu: tuple[float, float, float, float, float]
    padding_voxels: int
    volumes_ml: Mapping[str, float]
    flips: str
    corrections: Sequence[str]
    marks: Sequence[str]


def write_contact_sheet(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    notices: Sequence[str],
    refused: Mapping[str, str],
    rows: Sequence[SheetRow],
    organs: Sequence[str],
    pictures: Sequence[CasePicture],
    max_bytes: int = MAX_PAGE_BYTES,
) -> None:
    """Write the sheet to ``path``, whole or not at all; the same input gives the same bytes.

    What is marked stands first. So that the sheet stays within ``max_bytes``, its last pictures
    are made smaller, then left out, and it says how many. All is shown as given; nothing is
    added that could tell who, where or when.
    """
    marks_of = {row.case_id: row.marks for row in rows}
    rows = sorted(rows, key=lambda row: not row.marks)
    pictures = sorted(pictures, key=lambda picture: not marks_of[picture.case_id])
    halves: dict[int, CasePicture] = {}

    def economised(place: int, n: int) -> CasePicture | None:
        """The picture at ``place`` after ``n`` economies: as it is, smaller, or not there."""
        times = (n + place) // len(pictures)  # the last picture is the first to give way, each time
        if times == 1 and place not in halves:
            halves[place] = half_size(pictures[place])
        return (pictures[place], halves.get(place), None)[times]

    def rendered(n: int) -> str:
        shown = [one for place in range(len(pictures)) if (one := economised(place, n)) is not None]
        return page_template("contact_sheet.html").render(
            title=title,
            facts=facts,
            notices=notices,
            refused=refused,
            rows=rows,
            parts=sorted({row.part for row in rows}),
            organs=organs,
            colours=colour_of(organs),
            pictures=shown,
            places={picture.case_id: place for place, picture in enumerate(shown)},
            marks_of=marks_of,
            economy=_economy(n, len(pictures)),
        )

    write_text(path, fit_page(rendered, 2 * len(pictures), max_bytes=max_bytes))


def _economy(n: int, n_pictures: int) -> str:
    if not n:
        return ""
    left_out = max(0, n - n_pictures)
    smaller = min(n, n_pictures) - left_out
    counts = {"at half their size": smaller, "left out": left_out}
    told = ", ".join(f"{count} {how}" for how, count in counts.items() if count)
    kept = f"This sheet is kept below 20 MB: of {n_pictures} pictures {told}"
    return f"{kept}; the folder pictures has all in full."
